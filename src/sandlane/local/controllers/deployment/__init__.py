"""Deployment: keeps ReplicaSets as its strategy says. `plan` decides (pure), `controller` writes."""
