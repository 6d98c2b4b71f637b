"""The cluster on a laptop: an embedded API server, built-in controllers, a node that runs Pods as processes, a Service proxy."""
