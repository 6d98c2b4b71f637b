"""Sandlane: many developers test their changes at the same time in one shared Kubernetes environment."""

__version__ = "0.1.0"
