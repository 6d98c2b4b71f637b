"""The route table as Envoy configuration: a pure translation, and the delta xDS server that delivers it."""
