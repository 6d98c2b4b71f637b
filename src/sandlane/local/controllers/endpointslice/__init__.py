"""EndpointSlice: the addresses of the Pods that a Service selects. `plan` decides (pure), `controller` writes."""
