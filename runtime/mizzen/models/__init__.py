"""The models, by the names that manifests use; each is a small dataclass of settings and a short module."""
