"""The process node: a kubelet that runs the containers of Pods as local processes."""
