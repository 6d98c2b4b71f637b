"""The supervisor behind `sandlane up`: one process tree that starts, is watched, restarted and ended together."""
