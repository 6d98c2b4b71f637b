"""Every figure in docs/benchmarks.md comes from a command here: `python -m bench NAME`."""
