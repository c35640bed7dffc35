"""The embedded cluster's API server: what kubectl, Helm and operators talk to."""
