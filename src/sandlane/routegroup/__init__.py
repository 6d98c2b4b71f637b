"""The RouteGroup controller: joins several sandboxes under one routing key."""
