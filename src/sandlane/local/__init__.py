"""The cluster on a laptop: embedded API server, built-in controllers, process node, Service proxy, supervisor."""
