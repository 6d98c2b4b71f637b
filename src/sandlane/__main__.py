"""`python -m sandlane`: the same as the `sandlane` script."""

from sandlane.cli.main import main

main()
