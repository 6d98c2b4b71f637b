"""For your own tests: an in-memory cluster, a manual clock, fault injection and event capture."""
