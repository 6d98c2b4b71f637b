"""Talks to any Kubernetes API server: client, watch state machine, informer cache, apply and patch.

Knows nothing of sandboxes.
"""
