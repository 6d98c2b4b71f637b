"""The `sandlane` command: thin; every command is a few lines over the other rooms."""
