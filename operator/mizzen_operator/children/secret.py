"""Secret: the token without which no process may join a job's Ray cluster."""

from __future__ import annotations

from mizzen_api import Dataset
from mizzen_api.contract import RAY_TOKEN_FILE, ROLE_HEAD
from mizzen_operator import names
from mizzen_operator.children.meta import metadata
from mizzen_operator.plan import Manifest, RayJob


def ray_token(job: RayJob | Dataset, token: str) -> Manifest:
    """Made once: a new token would lock the running workers out."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(job, names.token(job.kind, job.metadata.name), ROLE_HEAD),
        "type": "Opaque",
        "stringData": {RAY_TOKEN_FILE: token},
    }
