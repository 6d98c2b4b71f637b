"""The Service proxy: one Envoy that load-balances each cluster IP over its ready endpoints, as kube-proxy does."""
