"""ReplicaSet: keeps as many Pods as asked for. `plan` decides (pure), `controller` writes."""
