"""Job: runs Pods until enough of them have succeeded. `plan` decides (pure), `controller` writes."""
