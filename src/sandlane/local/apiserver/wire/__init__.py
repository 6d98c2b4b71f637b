"""How built-in kinds look on the wire: their fields and types, and how JSON values become what Kubernetes stores."""
