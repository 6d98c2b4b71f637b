"""The LocalWorkload controller: a process on a laptop stands in for a workload."""
