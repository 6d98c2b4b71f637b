"""Both ends of a LocalWorkload's tunnel: identity, Envoy bootstraps and the dialler on the laptop."""
