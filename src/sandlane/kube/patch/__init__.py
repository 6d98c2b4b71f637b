"""Patches of Kubernetes objects as pure functions: JSON patch, merge patch and strategic merge patch.

The embedded API server applies what clients send with them, the sandbox planner applies a fork's customizations.
Nothing here changes its arguments, and no result shares a dict or list with them.
"""
