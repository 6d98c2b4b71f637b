"""PersistentVolumeClaims: each gets a folder of this machine. `plan` decides (pure), `controller` writes."""
