"""What one reading of a Dataset's sources is made of: its configuration, its pod, and with Ray the workers."""

from __future__ import annotations

from mizzen_api import Dataset
from mizzen_api.contract import ROLE_MATERIALIZE, ROLE_WORKERS
from mizzen_api.workload import DriftReference, LiveReference, NewestVersion, RayCluster, WorkloadConfig
from mizzen_operator import names
from mizzen_operator.children.claim import artifacts_claim
from mizzen_operator.children.configmap import configmap
from mizzen_operator.children.materialize import materialize_job, materialize_workers_job
from mizzen_operator.children.meta import stable_hash
from mizzen_operator.children.secret import ray_token
from mizzen_operator.children.service import head_service
from mizzen_operator.observed import JobView, Observed
from mizzen_operator.plan import Manifest, Patch, Ref
from mizzen_operator.planners.failures import stuck
from mizzen_operator.settings import Settings


def children(dataset: Dataset, observed: Observed, settings: Settings, run: int) -> tuple[Manifest, ...]:
    """All but the workers: whether they are needed, the pod finds out."""
    name = names.materialize(dataset.metadata.name, dataset.metadata.generation, run)
    config = _config(dataset, observed, settings, run)
    claim = settings.uses_claim and not observed.has_claim
    return (
        *((artifacts_claim(dataset.metadata.namespace, settings),) if claim else ()),
        *_cluster(dataset, observed),
        configmap(dataset, name, ROLE_MATERIALIZE, config, stable_hash(config.to_wire())),
        materialize_job(dataset, run, settings),
    )


def _cluster(dataset: Dataset, observed: Observed) -> tuple[Manifest, ...]:
    """By which workers find the head, and may join it."""
    if dataset.spec.engine == "polars":
        return ()
    token = () if observed.has_token else (ray_token(dataset, observed.fresh_token),)
    return (*token, head_service(dataset, ROLE_MATERIALIZE))


def workers(dataset: Dataset, observed: Observed, settings: Settings, run: int) -> tuple[Manifest, ...]:
    """The workers' Job, once the running pod has said that it works with Ray."""
    report = observed.progress.dataset if observed.progress else None
    if dataset.spec.engine == "polars" or report is None or report.engine != "ray" or _crew(dataset, observed, run):
        return ()
    return (materialize_workers_job(dataset, run, settings),)


def workers_missing(dataset: Dataset, observed: Observed, run: int) -> str:
    """Why fewer workers than the least have a place; empty where enough have one, or nothing is known."""
    crew = _crew(dataset, observed, run)
    if crew is None:
        return ""
    pods, least = observed.pods_of_job(crew), dataset.spec.scaling.min_workers
    placed = sum(pod.scheduled and pod.phase in {"Pending", "Running"} for pod in pods)
    why = stuck(pods)
    return f"{placed} of at least {least} workers have a place: {why}" if why and placed < least else ""


def job(dataset: Dataset, observed: Observed, run: int) -> JobView | None:
    name = names.materialize(dataset.metadata.name, dataset.metadata.generation, run)
    return next((found for found in observed.jobs if found.ref.name == name), None)


def everything(observed: Observed) -> tuple[Ref, ...]:
    return (*(found.ref for found in observed.jobs), *observed.configs)


def leftovers(dataset: Dataset, observed: Observed, run: int, *, running: bool = False) -> tuple[Ref, ...]:
    """Jobs and configurations of earlier readings, and the workers of this one unless it runs."""
    name = names.materialize(dataset.metadata.name, dataset.metadata.generation, run)
    kept = {name, f"{name}-ray"} if running else {name}
    return tuple(ref for ref in everything(observed) if ref.name not in kept)


def times_to_live(dataset: Dataset, observed: Observed) -> tuple[Patch, ...]:
    """When ended Jobs may go: written once the status has their reports, however short the time is."""
    ttl = dataset.spec.ttl_seconds_after_finished
    if ttl is None:
        return ()
    body = {"spec": {"ttlSecondsAfterFinished": ttl}}
    return tuple(Patch(found.ref, body) for found in observed.jobs if found.ended and found.ttl != ttl)


def reference_name(dataset: Dataset) -> str | None:
    """The other Dataset that drift is measured against, where one is named."""
    drift = dataset.spec.drift
    return drift.dataset_ref.name if drift is not None and drift.reference == "dataset" and drift.dataset_ref else None


def service_name(dataset: Dataset) -> str | None:
    """The ModelService whose traffic drift is measured against, where one is named."""
    drift = dataset.spec.drift
    named = drift is not None and drift.reference == "modelservice" and drift.model_service_ref
    return drift.model_service_ref.name if drift and named and drift.model_service_ref else None


def _crew(dataset: Dataset, observed: Observed, run: int) -> JobView | None:
    name = names.materialize_workers(dataset.metadata.name, dataset.metadata.generation, run)
    found = observed.job(ROLE_WORKERS)
    return found if found is not None and found.ref.name == name else None


def _config(dataset: Dataset, observed: Observed, settings: Settings, run: int) -> WorkloadConfig:
    meta, status, spec = dataset.metadata, dataset.status, dataset.spec
    own = DriftReference(uri=status.uri, name=f"version {status.version}") if status.uri else None
    newest = NewestVersion(version=status.version, fingerprint=status.fingerprint or "")
    address = names.head_address(dataset.kind, meta.name, meta.namespace)
    return WorkloadConfig(
        kind="Dataset",
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        generation=meta.generation,
        artifacts_uri=settings.datasets_uri,
        run_uri=settings.run_uri(meta.namespace, dataset.kind, meta.name, meta.uid),
        mlflow_uri=settings.mlflow_uri,
        dataset_spec=spec,
        newest=newest,
        previous=own if run else None,  # an edit of the spec may change the schema; the data alone may not
        reference=_reference(dataset, observed, own),
        live_reference=_live_reference(dataset, observed),
        ray=RayCluster(address=address, workers=spec.scaling.max_workers) if spec.engine != "polars" else None,
    )


def _reference(dataset: Dataset, observed: Observed, own: DriftReference | None) -> DriftReference | None:
    if dataset.spec.drift is None or service_name(dataset):
        return None
    named, other = reference_name(dataset), observed.dataset
    return DriftReference(uri=other.status.uri, name=named) if named and other and other.status.uri else own


def _live_reference(dataset: Dataset, observed: Observed) -> LiveReference | None:
    name = service_name(dataset)
    return LiveReference(name=name, addresses=list(observed.servers)) if name else None
