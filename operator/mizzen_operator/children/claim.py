"""PersistentVolumeClaim: a namespace's artifacts, where no object store is configured."""

from __future__ import annotations

from mizzen_api.contract import ARTIFACTS_CLAIM, LABEL_MANAGED_BY, MANAGED_BY
from mizzen_operator.plan import Manifest
from mizzen_operator.settings import Settings


def artifacts_claim(namespace: str, settings: Settings) -> Manifest:
    """Has no owner: datasets and checkpoints outlive the resource that came first."""
    spec: Manifest = {
        "accessModes": [settings.artifacts_access_mode],
        "resources": {"requests": {"storage": settings.artifacts_claim_size}},
    }
    if settings.artifacts_storage_class:
        spec["storageClassName"] = settings.artifacts_storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": ARTIFACTS_CLAIM, "namespace": namespace, "labels": {LABEL_MANAGED_BY: MANAGED_BY}},
        "spec": spec,
    }
