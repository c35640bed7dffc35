"""Names of children: every kind has an infix, because a Dataset, its jobs and its service may share one name."""

from __future__ import annotations

from mizzen_api.contract import PORT_RAY_GCS

_INFIX = {"Dataset": "data", "SearchJob": "search", "TrainingJob": "train"}


def materialize(dataset: str, generation: int, run: int = 0) -> str:
    """Job and ConfigMap of one reading: the first of a generation, or the one of that number on schedule."""
    return f"{dataset}-data-{generation}" + (f"-{run}" if run else "")


def materialize_workers(dataset: str, generation: int, run: int = 0) -> str:
    """Job of the Ray workers of one reading."""
    return f"{materialize(dataset, generation, run)}-ray"


def config(kind: str, name: str) -> str:
    return f"{name}-{_INFIX[kind]}"


def token(kind: str, name: str) -> str:
    """Secret with the token that Ray's head and workers share."""
    return f"{name}-{_INFIX[kind]}-ray"


def head(kind: str, name: str) -> str:
    """Job and headless Service of the Ray head; of a Dataset the Service only, one for all readings."""
    return f"{name}-{_INFIX[kind]}-head"


def workers(kind: str, name: str) -> str:
    return f"{name}-{_INFIX[kind]}-workers"


def head_address(kind: str, name: str, namespace: str) -> str:
    """Where workers find the head's GCS."""
    return f"{head(kind, name)}.{namespace}.svc:{PORT_RAY_GCS}"


def variant(service: str, name: str) -> str:
    """Deployment and Service of one variant of a ModelService."""
    return f"{service}-{name}"
