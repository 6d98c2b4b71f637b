"""DaemonSet: one Pod on each node. `plan` decides (pure), `controller` writes."""
