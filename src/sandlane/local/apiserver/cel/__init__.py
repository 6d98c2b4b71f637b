"""CEL, the expression language of Kubernetes' rules: parsed, checked against types, and run with bounded work. Pure."""
