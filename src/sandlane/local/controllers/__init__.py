"""The built-in controllers that a workload needs: Deployment, ReplicaSet, EndpointSlice, garbage collection, namespace."""
