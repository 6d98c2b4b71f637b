"""Rides: a small ride-hailing app of five services that pass W3C baggage on."""
