"""The preview gateway: an Envoy that maps host names `<endpoint>--<key>.<domain>` to a Service and a routing key."""
