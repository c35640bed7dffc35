"""Dataset: one Job for each reading of the sources, and a version that counts up with each new fingerprint.

A spec's first reading decides whether it is Ready. Later ones, on schedule, leave it Ready with the version it has,
and speak in the condition Refreshed.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from mizzen_api import Dataset
from mizzen_api.conditions import ConditionType, Reason
from mizzen_api.contract import ROLE_MATERIALIZE
from mizzen_api.workload import DatasetReport, DriftReference, WorkloadConfig
from mizzen_operator import names, schedule
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
LONGEST_WAIT = 3600.0  # clocks are set anew sometimes; a look an hour costs nothing


def plan(dataset: Dataset, observed: Observed, now: datetime, settings: Settings) -> Plan:
    """Decide what a Dataset needs next. Pure: the same inputs give the same plan."""
    if not _settled(dataset):
        return _first_reading(dataset, observed, now, settings)
    return _scheduled(dataset, observed, now, settings)


def _settled(dataset: Dataset) -> bool:
    """This generation's first reading came to its end, for good or for bad; the next edit begins anew."""
    ready = dataset.status.condition(ConditionType.READY)
    if ready is None or ready.observed_generation != dataset.metadata.generation:
        return False
    return ready.status == "True" or ready.reason not in {Reason.MATERIALIZING, Reason.PENDING, Reason.SUSPENDED}


def _first_reading(dataset: Dataset, observed: Observed, now: datetime, settings: Settings) -> Plan:
    stale = _stale(dataset, observed, 0)
    if dataset.spec.suspend:
        text = "Suspended: set spec.suspend to false to read the sources"
        return _plan(
            dataset, now, "False", Reason.SUSPENDED, text, delete=_all(observed), run=0, next_refresh_time=None
        )
    if dataset.spec.drift is not None and dataset.spec.drift.reference == "modelservice":
        text = "spec.drift.reference: modelservice cannot be measured against yet; set previous, or dataset"
        return _plan(dataset, now, "False", Reason.INVALID_PARAMETERS, text, delete=stale)
    missing = _missing_reference(dataset, observed)
    if missing:
        return _plan(dataset, now, "False", Reason.PENDING, missing, delete=stale, look_again=None)
    job = _job(dataset, observed, 0)
    if job is None:
        text = "Reading the sources" if dataset.status.version == 0 else "Reading the sources of the edited spec"
        children = _children(dataset, observed, settings, 0)
        return _plan(dataset, now, "False", Reason.MATERIALIZING, text, apply=children, delete=stale, run=0,
                     next_refresh_time=None, look_again=PROGRESS_INTERVAL)  # fmt: skip
    end = outcome(job, observed, "backoffLimit")
    if end is not None:
        return _first_ended(dataset, end, now, stale)
    reason, message = _running(dataset, observed, job)
    return _plan(dataset, now, "False", reason, message, delete=stale, look_again=PROGRESS_INTERVAL,
                 **_progress(observed))  # fmt: skip


def _first_ended(dataset: Dataset, end: Outcome, now: datetime, stale: tuple[Ref, ...]) -> Plan:
    if not end.succeeded:
        return _plan(dataset, now, "False", end.reason, end.message, delete=stale, look_again=_first_wait(dataset))
    report = _report(end)
    if report is None:
        message = "The pod ended well but its report is gone; edit the spec or delete and create the Dataset again"
        return _plan(dataset, now, "False", Reason.INTERNAL_ERROR, message, delete=stale)
    version = dataset.status.version + (report.fingerprint != dataset.status.fingerprint)
    return _plan(dataset, now, "True", Reason.MATERIALIZED, _sentence(version, report), delete=stale, version=version,
                 look_again=_first_wait(dataset), **_facts(report))  # fmt: skip


def _first_wait(dataset: Dataset) -> float | None:
    """Look again at once where a schedule has to be worked out."""
    return None if dataset.spec.refresh is None else 0.1


def _scheduled(dataset: Dataset, observed: Observed, now: datetime, settings: Settings) -> Plan:
    """Readings after the first: none, one that is due, or one that runs."""
    refresh, status = dataset.spec.refresh, dataset.status
    running = _refreshing(dataset)
    if refresh is None or dataset.spec.suspend:
        left = _all(observed) if running else _stale(dataset, observed, status.run)
        changes: dict[str, Any] = {"next_refresh_time": None}
        if running:
            changes["conditions"] = _refreshed(dataset, now, "False", Reason.SUSPENDED, "Suspended while it was read")
        return _status(dataset, delete=left, **changes)
    if running:
        return _refresh_under_way(dataset, observed, now, settings)
    due = status.next_refresh_time
    if due is None:
        try:
            due = schedule.next_time(refresh.schedule, refresh.time_zone, now)
        except ValueError as error:
            text = f"spec.refresh: {error}"
            conditions = _refreshed(dataset, now, "False", Reason.INVALID_PARAMETERS, text)
            return _status(dataset, delete=_stale(dataset, observed, status.run), conditions=conditions)
    if now < due:
        wait = min(LONGEST_WAIT, (due - now).total_seconds())
        changed = _status(dataset, delete=_stale(dataset, observed, status.run), next_refresh_time=due)
        return replace(changed, look_again=wait)
    run = status.run + 1
    conditions = _refreshed(dataset, now, "Unknown", Reason.REFRESHING, "Reading the sources on schedule")
    begun = _status(
        dataset, apply=_children(dataset, observed, settings, run), delete=_stale(dataset, observed, run),
        run=run, last_refresh_time=now, next_refresh_time=None, conditions=conditions,
    )  # fmt: skip
    return replace(begun, look_again=PROGRESS_INTERVAL)


def _refresh_under_way(dataset: Dataset, observed: Observed, now: datetime, settings: Settings) -> Plan:
    status = dataset.status
    stale = _stale(dataset, observed, status.run)
    job = _job(dataset, observed, status.run)
    if job is None:
        again = _status(dataset, apply=_children(dataset, observed, settings, status.run), delete=stale)
        return replace(again, look_again=PROGRESS_INTERVAL)
    end = outcome(job, observed, "backoffLimit")
    if end is None:
        _, message = _running(dataset, observed, job)
        conditions = _refreshed(dataset, now, "Unknown", Reason.REFRESHING, message)
        running = _status(dataset, delete=stale, conditions=conditions, **_progress(observed))
        return replace(running, look_again=PROGRESS_INTERVAL)
    report = _report(end)
    if not end.succeeded or report is None:
        reason = Reason.INTERNAL_ERROR if end.succeeded else end.reason
        message = f"{end.message.rstrip('.')}. Version {status.version} stays."
        conditions = _refreshed(dataset, now, "False", reason, message)
        return replace(_status(dataset, delete=stale, conditions=conditions), look_again=0.1)
    same = report.fingerprint == status.fingerprint
    version = status.version + (not same)
    made = _sentence(version, report)
    reason, text = (Reason.UNCHANGED, "The sources have not changed") if same else (Reason.MATERIALIZED, made)
    changed = dataset.model_copy(
        update={"status": status.model_copy(update={"conditions": _refreshed(dataset, now, "True", reason, text)})}
    )
    conditions = with_condition(
        changed, ConditionType.READY, "True", Reason.MATERIALIZED, _sentence(version, report), now
    )
    done = _status(dataset, delete=stale, version=version, conditions=conditions, **_facts(report))
    return replace(done, look_again=0.1)


def _missing_reference(dataset: Dataset, observed: Observed) -> str:
    """Why the Dataset that drift is measured against cannot be used yet."""
    name = reference_name(dataset)
    if name is None:
        return ""
    other = observed.dataset
    if other is None:
        return f"Dataset {name!r}, which spec.drift.datasetRef names, does not exist yet"
    return "" if other.status.uri else f"Dataset {name!r}, which spec.drift.datasetRef names, has no version yet"


def reference_name(dataset: Dataset) -> str | None:
    drift = dataset.spec.drift
    return drift.dataset_ref.name if drift is not None and drift.reference == "dataset" and drift.dataset_ref else None


def _report(end: Outcome) -> DatasetReport | None:
    report = end.progress.dataset if end.progress else None
    return report if report is not None and report.fingerprint and report.uri else None


def _sentence(version: int, report: DatasetReport) -> str:
    parts = [f"Version {version} has {report.rows} rows"]
    if report.classes_left_out:
        parts.append(f"{report.classes_left_out} more classes than the status shows")
    if report.bad_rows:
        parts.append(f"{report.bad_rows} bad rows were set aside")
    if report.dropped_rows:
        parts.append(f"{report.dropped_rows} rows were dropped by expectations")
    if report.expectations is not None and report.expectations.warned:
        warned = report.expectations.warned
        parts.append("1 expectation does not hold" if warned == 1 else f"{warned} expectations do not hold")
    if report.drift is not None and report.drift.drifted:
        drift = report.drift  # columns together may have drifted where none has by itself
        parts.append(f"the data has drifted, {drift.drifted_features} of {drift.features} columns by themselves")
    return "; ".join(parts)


def _facts(report: DatasetReport) -> dict[str, Any]:
    return {
        "fingerprint": report.fingerprint,
        "uri": report.uri,
        "rows": report.rows,
        "classes": report.classes,
        "bad_rows": report.bad_rows,
        "dropped_rows": report.dropped_rows,
        "rows_per_second": report.rows_per_second,
        "expectations": report.expectations,
        "drift": report.drift,
        "progress_percentage": 100,
    }


def _progress(observed: Observed) -> dict[str, Any]:
    report = observed.progress.dataset if observed.progress else None
    if report is None:
        return {}
    return {"progress_percentage": report.progress_percentage, "rows_per_second": report.rows_per_second}


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


def _children(dataset: Dataset, observed: Observed, settings: Settings, run: int) -> tuple[Manifest, ...]:
    meta, status = dataset.metadata, dataset.status
    own = DriftReference(uri=status.uri, name=f"version {status.version}") if status.uri else None
    other = observed.dataset
    named = reference_name(dataset)
    reference = DriftReference(uri=other.status.uri, name=named) if named and other and other.status.uri else own
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
        previous=own if run else None,  # an edit of the spec may change the schema; the data alone may not
        reference=reference if dataset.spec.drift is not None else None,
    )
    claim = settings.uses_claim and not observed.has_claim
    name = names.materialize(meta.name, meta.generation, run)
    return (
        *((artifacts_claim(meta.namespace, settings),) if claim else ()),
        configmap(dataset, name, ROLE_MATERIALIZE, config, stable_hash(config.to_wire())),
        materialize_job(dataset, run, settings),
    )


def _job(dataset: Dataset, observed: Observed, run: int) -> JobView | None:
    name = names.materialize(dataset.metadata.name, dataset.metadata.generation, run)
    return next((job for job in observed.jobs if job.ref.name == name), None)


def _all(observed: Observed) -> tuple[Ref, ...]:
    return (*(job.ref for job in observed.jobs), *observed.configs)


def _stale(dataset: Dataset, observed: Observed, run: int) -> tuple[Ref, ...]:
    """Jobs and configurations of earlier readings."""
    name = names.materialize(dataset.metadata.name, dataset.metadata.generation, run)
    return tuple(ref for ref in _all(observed) if ref.name != name)


def _refreshing(dataset: Dataset) -> bool:
    found = dataset.status.condition(ConditionType.REFRESHED)
    return found is not None and found.status == "Unknown" and found.observed_generation == dataset.metadata.generation


def _refreshed(dataset: Dataset, now: datetime, truth: Truth, reason: Reason, message: str) -> Any:
    return with_condition(dataset, ConditionType.REFRESHED, truth, reason, message, now)


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
    """A plan whose condition is Ready."""
    conditions = with_condition(dataset, ConditionType.READY, truth, reason, message, now)
    made = _status(dataset, apply=apply, delete=delete, conditions=conditions, **changes)
    return replace(made, look_again=look_again, status=made.status or dataset.status)


def _status(
    dataset: Dataset, *, apply: tuple[Manifest, ...] = (), delete: tuple[Ref, ...] = (), **changes: Any
) -> Plan:
    """A plan that writes the status only where it changes."""
    known = dataset.status
    wanted = {"observed_generation": dataset.metadata.generation, **changes}
    status = known.model_copy(update=wanted)
    events = events_of(dataset, status.conditions)
    return Plan(apply, delete=delete, status=None if status == known else status, events=events)
