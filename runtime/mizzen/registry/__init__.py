"""MLflow as Mizzen uses it: runs with their triple, models without pickle, versions that are registered once."""

from mizzen.registry.versions import download

__all__ = ["download"]
