"""The embedded API server: behaves like kube-apiserver for clients, over a durable store in one process."""
