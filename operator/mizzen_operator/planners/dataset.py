"""Dataset: one Job for each generation of the spec, and a version that counts up with each new fingerprint."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from mizzen_api import Dataset
from mizzen_api.conditions import ConditionType, Reason
from mizzen_api.contract import ROLE_MATERIALIZE
from mizzen_api.workload import DatasetReport, WorkloadConfig
from mizzen_operator import names
from mizzen_operator.children.claim import artifacts_claim
from mizzen_operator.children.configmap import configmap
from mizzen_operator.children.job import materialize_job
from mizzen_operator.children.meta import stable_hash
from mizzen_operator.observed import JobView, Observed
from mizzen_operator.plan import Manifest, Plan, Ref
from mizzen_operator.planners.conditions import Truth, events_of, with_condition
from mizzen_operator.planners.failures import Outcome, last_words, outcome, stuck
from mizzen_operator.settings import Settings

PROGRESS_INTERVAL = 3.0


def plan(dataset: Dataset, observed: Observed, now: datetime, settings: Settings) -> Plan:
    """Decide what a Dataset needs next. Pure: the same inputs give the same plan."""
    stale = _stale(dataset, observed)
    if _settled(dataset):
        return Plan(delete=stale)
    job = _job(dataset, observed)
    if job is None:
        text = "Reading the sources" if dataset.status.version == 0 else "Reading the sources of the edited spec"
        return _plan(dataset, now, "False", Reason.MATERIALIZING, text, apply=_children(dataset, observed, settings),
                     delete=stale, look_again=PROGRESS_INTERVAL)  # fmt: skip
    end = outcome(job, observed, "backoffLimit")
    if end is not None:
        return _ended(dataset, end, now, stale)
    reason, message = _running(dataset, observed, job)
    done = observed.progress.dataset.progress_percentage if observed.progress and observed.progress.dataset else None
    return _plan(dataset, now, "False", reason, message, delete=stale, look_again=PROGRESS_INTERVAL,
                 progress_percentage=done if done is not None else dataset.status.progress_percentage)  # fmt: skip


def _settled(dataset: Dataset) -> bool:
    """This generation came to its end, for good or for bad; the next edit begins anew."""
    ready = dataset.status.condition(ConditionType.READY)
    if ready is None or ready.observed_generation != dataset.metadata.generation:
        return False
    return ready.status == "True" or ready.reason not in {Reason.MATERIALIZING, Reason.PENDING}


def _ended(dataset: Dataset, end: Outcome, now: datetime, stale: tuple[Ref, ...]) -> Plan:
    report = end.progress.dataset if end.progress else None
    if not end.succeeded:
        return _plan(dataset, now, "False", end.reason, end.message, delete=stale)
    if report is None or report.fingerprint is None or report.uri is None:
        message = "The pod ended well but its report is gone; edit the spec or delete and create the Dataset again"
        return _plan(dataset, now, "False", Reason.INTERNAL_ERROR, message, delete=stale)
    version = dataset.status.version + (report.fingerprint != dataset.status.fingerprint)
    message = f"Version {version} has {report.rows} rows"
    return _plan(dataset, now, "True", Reason.MATERIALIZED, message, delete=stale, version=version,
                 **_facts(report))  # fmt: skip


def _facts(report: DatasetReport) -> dict[str, Any]:
    return {
        "fingerprint": report.fingerprint,
        "uri": report.uri,
        "rows": report.rows,
        "classes": report.classes,
        "progress_percentage": 100,
    }


def _running(dataset: Dataset, observed: Observed, job: JobView) -> tuple[Reason, str]:
    pods = observed.pods_of_job(job)
    why = stuck(pods)
    if why:
        return Reason.PENDING, why[:1].upper() + why[1:]
    if observed.progress is not None:
        return Reason.MATERIALIZING, observed.progress.message or "Reading the sources"
    failed = [pod for pod in pods if pod.phase == "Failed"]
    if failed:
        tries = f"Attempt {len(failed) + 1} of {dataset.spec.backoff_limit + 1}"
        return Reason.MATERIALIZING, f"{tries}; the last one failed: {last_words(failed[-1])}"
    return Reason.MATERIALIZING, "Reading the sources"


def _children(dataset: Dataset, observed: Observed, settings: Settings) -> tuple[Manifest, ...]:
    meta = dataset.metadata
    config = WorkloadConfig(
        kind="Dataset",
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        generation=meta.generation,
        artifacts_uri=settings.artifacts_uri,
        run_uri=settings.run_uri(meta.namespace, dataset.kind, meta.name, meta.uid),
        mlflow_uri=settings.mlflow_uri,
        dataset_spec=dataset.spec,
    )
    claim = settings.uses_claim and not observed.has_claim
    name = names.materialize(meta.name, meta.generation)
    return (
        *((artifacts_claim(meta.namespace, settings),) if claim else ()),
        configmap(dataset, name, ROLE_MATERIALIZE, config, stable_hash(config.to_wire())),
        materialize_job(dataset, settings),
    )


def _job(dataset: Dataset, observed: Observed) -> JobView | None:
    name = names.materialize(dataset.metadata.name, dataset.metadata.generation)
    return next((job for job in observed.jobs if job.ref.name == name), None)


def _stale(dataset: Dataset, observed: Observed) -> tuple[Ref, ...]:
    """Jobs and configurations of earlier generations."""
    name = names.materialize(dataset.metadata.name, dataset.metadata.generation)
    refs = (*(job.ref for job in observed.jobs), *observed.configs)
    return tuple(ref for ref in refs if ref.name != name)


def _plan(
    dataset: Dataset,
    now: datetime,
    truth: Truth,
    reason: Reason,
    message: str,
    *,
    apply: tuple[Manifest, ...] = (),
    delete: tuple[Ref, ...] = (),
    look_again: float | None = None,
    **changes: Any,
) -> Plan:
    conditions = with_condition(dataset, ConditionType.READY, truth, reason, message, now)
    changes |= {"conditions": conditions, "observed_generation": dataset.metadata.generation}
    status = dataset.status.model_copy(update=changes)
    return Plan(apply, delete=delete, status=status, events=events_of(dataset, conditions), look_again=look_again)
