"""Custom resources: definitions become served resources; their objects are defaulted, pruned and validated by schema."""
