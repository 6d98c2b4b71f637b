"""StatefulSet: numbered Pods, one after the other. `plan` decides (pure), `controller` writes."""
