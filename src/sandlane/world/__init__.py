"""What is known of the cluster, as frozen records read from the caches, with the lookups that plans need."""
