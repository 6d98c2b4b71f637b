"""Request bodies in Kubernetes' protobuf, the only form in which kubectl sends some of its requests."""
