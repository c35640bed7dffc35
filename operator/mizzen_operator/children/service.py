"""Services: the headless one that leads workers to the Ray head, and one for each variant of a ModelService."""

from __future__ import annotations

from mizzen_api import Dataset, ModelService
from mizzen_api.contract import PORT_HTTP, PORT_PROGRESS, PORT_RAY_GCS, ROLE_HEAD, ROLE_SERVER
from mizzen_operator import names
from mizzen_operator.children.meta import metadata, selector
from mizzen_operator.plan import Manifest, RayJob


def head_service(job: RayJob | Dataset, role: str = ROLE_HEAD) -> Manifest:
    """Resolves to the head's pod before it is ready: workers join while the driver starts."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(job, names.head(job.kind, job.metadata.name), role),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": selector(job, role),
            "ports": [
                {"name": "gcs", "port": PORT_RAY_GCS, "targetPort": PORT_RAY_GCS, "protocol": "TCP"},
                {"name": "progress", "port": PORT_PROGRESS, "targetPort": PORT_PROGRESS, "protocol": "TCP"},
            ],
        },
    }


def variant_service(service: ModelService, variant: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(service, names.variant(service.metadata.name, variant), ROLE_SERVER, variant=variant),
        "spec": {
            "selector": selector(service, ROLE_SERVER, variant),
            "ports": [{"name": "http", "port": PORT_HTTP, "targetPort": PORT_HTTP, "protocol": "TCP"}],
        },
    }
