"""The node agent: a client of the Kubernetes API, like any kubelet, that runs pods as processes of this machine."""
