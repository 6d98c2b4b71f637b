"""The controllers that a workload needs: Deployment, ReplicaSet, Job, EndpointSlice, garbage collection, namespace."""
