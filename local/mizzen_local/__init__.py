"""The embedded cluster: a Kubernetes-compatible control plane and a node agent, from pip alone."""
