"""Jobs of one reading of a Dataset's sources: the pod that makes the version, and with Ray the workers beside it."""

from __future__ import annotations

from collections.abc import Iterable

from mizzen_api import Dataset, contract
from mizzen_api.dataset_sources import SecretKey
from mizzen_operator import names
from mizzen_operator.children.job import WORKERS_BACKOFF_LIMIT, failure_policy
from mizzen_operator.children.meta import labels, metadata
from mizzen_operator.children.pods import Workload, template
from mizzen_operator.plan import Manifest
from mizzen_operator.settings import Settings


def materialize_job(dataset: Dataset, run: int, settings: Settings) -> Manifest:
    """One Job for each reading of the sources; its version of the data is immutable.

    It does not say when to go: the operator writes ttlSecondsAfterFinished once the status has what the pod reported.
    """
    spec, name = dataset.spec, names.materialize(dataset.metadata.name, dataset.metadata.generation, run)
    workload = Workload(
        command=("mizzen", "data", "materialize"),
        requests=spec.resources,
        limits=spec.resources,
        config=name,
        token=names.token(dataset.kind, dataset.metadata.name) if spec.engine != "polars" else "",
        artifacts=True,
        secrets=secrets_of(dataset),
    )
    job = _job(dataset, name, contract.ROLE_MATERIALIZE, workload, settings)
    job["spec"] |= {"backoffLimit": spec.backoff_limit, "podFailurePolicy": failure_policy()}
    return job


def materialize_workers_job(dataset: Dataset, run: int, settings: Settings) -> Manifest:
    """Ray nodes that fit and transform what the head reads. They see the artifacts, and none of the Secrets."""
    meta, scaling = dataset.metadata, dataset.spec.scaling
    workload = Workload(
        command=("mizzen", "ray-worker"),
        requests=scaling.resources_per_worker,
        limits=scaling.resources_per_worker,
        restart_policy="OnFailure",
        config=names.materialize(meta.name, meta.generation, run),
        token=names.token(dataset.kind, meta.name),
        artifacts=True,
    )
    name = names.materialize_workers(meta.name, meta.generation, run)
    job = _job(dataset, name, contract.ROLE_WORKERS, workload, settings)
    job["spec"] |= {"parallelism": scaling.max_workers, "backoffLimit": WORKERS_BACKOFF_LIMIT}
    return job


def secrets_of(dataset: Dataset) -> tuple[tuple[str, str], ...]:
    """(Secret, key), without a key for all of it. A Secret that is mounted whole needs no mount for a key of it."""
    whole = {source.secret_ref.name for source in dataset.spec.sources if source.secret_ref is not None}
    keys = [source.sql.secret_ref for source in dataset.spec.sources if source.sql is not None]
    return (*((name, "") for name in sorted(whole)), *_sorted(key for key in keys if key.name not in whole))


def _sorted(keys: Iterable[SecretKey]) -> list[tuple[str, str]]:
    return sorted({(key.name, key.key) for key in keys})


def _job(dataset: Dataset, name: str, role: str, workload: Workload, settings: Settings) -> Manifest:
    annotations = {contract.ANNOTATION_GENERATION: str(dataset.metadata.generation)}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(dataset, name, role, annotations=annotations),
        "spec": {"template": template(workload, labels(dataset, role), annotations, settings)},
    }
