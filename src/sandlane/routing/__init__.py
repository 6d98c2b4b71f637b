"""One route table, computed from the world, from which Envoy's configuration, explanations and status are derived."""
