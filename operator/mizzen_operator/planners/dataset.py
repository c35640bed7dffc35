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
from mizzen_api.workload import DatasetReport
from mizzen_operator import schedule
from mizzen_operator.observed import JobView, Observed
from mizzen_operator.plan import Manifest, Plan, Ref
from mizzen_operator.planners import reading
from mizzen_operator.planners.conditions import Truth, events_of, with_condition
from mizzen_operator.planners.failures import Outcome, last_words, outcome, stuck
from mizzen_operator.settings import Settings

PROGRESS_INTERVAL = 3.0
SECRET_INTERVAL = 10.0  # Secrets are not watched
# Reasons of a Ready that is False while a first reading is still to come to its end.
_UNDER_WAY = {Reason.MATERIALIZING, Reason.PENDING, Reason.WORKERS_PENDING, Reason.SUSPENDED}
LONGEST_WAIT = 3600.0  # clocks are set anew sometimes; a look an hour costs nothing


def plan(dataset: Dataset, observed: Observed, now: datetime, settings: Settings) -> Plan:
    """Decide what a Dataset needs next. Pure: the same inputs give the same plan."""
    if not _settled(dataset):
        return _first_reading(dataset, observed, now, settings)
    planned = _scheduled(dataset, observed, now, settings)
    return replace(planned, patch=reading.times_to_live(dataset, observed)) if not _refreshing(dataset) else planned


def _settled(dataset: Dataset) -> bool:
    """This generation's first reading came to its end, for good or for bad; the next edit begins anew."""
    ready = dataset.status.condition(ConditionType.READY)
    if ready is None or ready.observed_generation != dataset.metadata.generation:
        return False
    return ready.status == "True" or ready.reason not in _UNDER_WAY


def _first_reading(dataset: Dataset, observed: Observed, now: datetime, settings: Settings) -> Plan:
    stale = reading.leftovers(dataset, observed, 0, running=True)
    if dataset.spec.suspend:
        return _suspended(dataset, observed, now)
    job = reading.job(dataset, observed, 0)
    waiting = _waiting(dataset, observed, settings) if job is None or not job.ended else None
    if waiting is not None:
        look_again = SECRET_INTERVAL if observed.missing_secrets else None
        return _plan(dataset, now, "False", *waiting, delete=stale, look_again=look_again)
    if job is None:
        text = "Reading the sources" if dataset.status.version == 0 else "Reading the sources of the edited spec"
        children = reading.children(dataset, observed, settings, 0)
        return _plan(dataset, now, "False", Reason.MATERIALIZING, text, apply=children, delete=stale, run=0,
                     next_refresh_time=None, look_again=PROGRESS_INTERVAL)  # fmt: skip
    end = outcome(job, observed, "backoffLimit")
    if end is not None:
        return _first_ended(dataset, end, now, reading.leftovers(dataset, observed, 0))
    reason, message = _running(dataset, observed, job, 0)
    workers = reading.workers(dataset, observed, settings, 0)
    return _plan(dataset, now, "False", reason, message, apply=workers, delete=stale, look_again=PROGRESS_INTERVAL,
                 **_progress(observed))  # fmt: skip


def _suspended(dataset: Dataset, observed: Observed, now: datetime) -> Plan:
    """Nothing is read. A version that is there can be used, so the Dataset is Ready."""
    there = bool(dataset.status.uri)
    stays = f"Version {dataset.status.version} stays. " if there else ""
    text = f"{stays}Suspended: set spec.suspend to false to read the sources"
    return _plan(dataset, now, "True" if there else "False", Reason.SUSPENDED, text,
                 delete=reading.everything(observed), run=0, next_refresh_time=None)  # fmt: skip


def _first_ended(dataset: Dataset, end: Outcome, now: datetime, stale: tuple[Ref, ...]) -> Plan:
    if not end.succeeded:
        return _plan(dataset, now, "False", end.reason, end.message, delete=stale, look_again=_first_wait(dataset))
    report = _report(end)
    if report is None:
        message = "The pod ended well but its report is gone; edit the spec or delete and create the Dataset again"
        return _plan(dataset, now, "False", Reason.INTERNAL_ERROR, message, delete=stale)
    version = dataset.status.version + (report.fingerprint != dataset.status.fingerprint)
    done = _drift_told(dataset, report, now)
    ready = with_condition(done, ConditionType.READY, "True", Reason.MATERIALIZED, _sentence(version, report), now)
    made = _status(dataset, delete=stale, version=version, conditions=ready, **_facts(report))
    return replace(made, look_again=_first_wait(dataset))


def _drift_told(dataset: Dataset, report: DatasetReport, now: datetime) -> Dataset:
    """The Dataset with its condition DriftMeasured; without one where there is nothing to compare with."""
    kind = ConditionType.DRIFT_MEASURED
    if report.drift_note:
        text = f"The version was published without: {report.drift_note}. The next reading measures again"
        return _with(dataset, kind, "False", Reason.REFERENCE_UNAVAILABLE, text, now)
    if report.drift is not None:
        found = report.drift
        text = f"{found.drifted_features} of {found.features} columns have drifted from {found.reference or 'before'}"
        return _with(dataset, kind, "True", Reason.MEASURED, text, now)
    conditions = [condition for condition in dataset.status.conditions if condition.type != kind]
    return dataset.model_copy(update={"status": dataset.status.model_copy(update={"conditions": conditions})})


def _with(dataset: Dataset, kind: ConditionType, truth: Truth, reason: Reason, message: str, now: datetime) -> Dataset:
    """The Dataset with one more condition, for the next one to be added to."""
    conditions = with_condition(dataset, kind, truth, reason, message, now)
    return dataset.model_copy(update={"status": dataset.status.model_copy(update={"conditions": conditions})})


def _first_wait(dataset: Dataset) -> float | None:
    """Look again at once where a schedule has to be worked out."""
    return None if dataset.spec.refresh is None else 0.1


def _scheduled(dataset: Dataset, observed: Observed, now: datetime, settings: Settings) -> Plan:
    """Readings after the first: none, one that is due, or one that runs."""
    refresh, status = dataset.spec.refresh, dataset.status
    running = _refreshing(dataset)
    if refresh is None or dataset.spec.suspend:
        left = reading.everything(observed) if running else reading.leftovers(dataset, observed, status.run)
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
            return _status(dataset, delete=reading.leftovers(dataset, observed, status.run), conditions=conditions)
    if now < due:
        wait = min(LONGEST_WAIT, (due - now).total_seconds())
        changed = _status(dataset, delete=reading.leftovers(dataset, observed, status.run), next_refresh_time=due)
        return replace(changed, look_again=wait)
    run = status.run + 1
    conditions = _refreshed(dataset, now, "Unknown", Reason.REFRESHING, "Reading the sources on schedule")
    begun = _status(
        dataset, apply=reading.children(dataset, observed, settings, run),
        delete=reading.leftovers(dataset, observed, run, running=True),
        run=run, last_refresh_time=now, next_refresh_time=None, conditions=conditions,
    )  # fmt: skip
    return replace(begun, look_again=PROGRESS_INTERVAL)


def _refresh_under_way(dataset: Dataset, observed: Observed, now: datetime, settings: Settings) -> Plan:
    status = dataset.status
    stale = reading.leftovers(dataset, observed, status.run, running=True)
    job = reading.job(dataset, observed, status.run)
    if job is None:
        again = _status(dataset, apply=reading.children(dataset, observed, settings, status.run), delete=stale)
        return replace(again, look_again=PROGRESS_INTERVAL)
    end = outcome(job, observed, "backoffLimit")
    if end is None:
        message = _missing_secret(observed, settings) or _running(dataset, observed, job, status.run)[1]
        conditions = _refreshed(dataset, now, "Unknown", Reason.REFRESHING, message)
        workers = reading.workers(dataset, observed, settings, status.run)
        running = _status(dataset, apply=workers, delete=stale, conditions=conditions, **_progress(observed))
        return replace(running, look_again=PROGRESS_INTERVAL)
    stale = reading.leftovers(dataset, observed, status.run)
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
    changed = _with(_drift_told(dataset, report, now), ConditionType.REFRESHED, "True", reason, text, now)
    conditions = with_condition(
        changed, ConditionType.READY, "True", Reason.MATERIALIZED, _sentence(version, report), now
    )
    done = _status(dataset, delete=stale, version=version, conditions=conditions, **_facts(report))
    return replace(done, look_again=0.1)


def _waiting(dataset: Dataset, observed: Observed, settings: Settings) -> tuple[Reason, str] | None:
    """What must be there before anything is read, and is not."""
    name, other = reading.reference_name(dataset), observed.dataset
    if name is not None and other is None:
        return Reason.PENDING, f"Dataset {name!r}, which spec.drift.datasetRef names, does not exist yet"
    if name is not None and other is not None and not other.status.uri:
        return Reason.PENDING, f"Dataset {name!r}, which spec.drift.datasetRef names, has no version yet"
    secret = _missing_secret(observed, settings)
    return (Reason.PENDING, secret) if secret else None


def _missing_secret(observed: Observed, settings: Settings) -> str:
    """Empty where all are there. The pod would wait for one without a word."""
    for missing in observed.missing_secrets:
        store = missing == settings.datasets_secret
        who = "artifacts.datasets.secretName in the chart's values names" if store else "spec.sources names"
        return f"There is no Secret {missing!r} in this namespace, which {who}: create it"
    return ""


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
    if report.mlflow_note:
        parts.append(f"its report is not in MLflow, which the next reading tries again: {report.mlflow_note}")
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
        **({"engine": report.engine} if report.engine else {}),  # nothing was made where nothing had changed
        "mlflow_run": report.mlflow_run,
        "progress_percentage": 100,
    }


def _progress(observed: Observed) -> dict[str, Any]:
    report = observed.progress.dataset if observed.progress else None
    if report is None:
        return {}
    told = {"progress_percentage": report.progress_percentage, "rows_per_second": report.rows_per_second}
    return told | ({"engine": report.engine} if report.engine else {})


def _running(dataset: Dataset, observed: Observed, job: JobView, run: int) -> tuple[Reason, str]:
    pods = observed.pods_of_job(job)
    why = stuck(pods)
    if why:
        return Reason.PENDING, why[:1].upper() + why[1:]
    missing = reading.workers_missing(dataset, observed, run)
    if missing:
        return Reason.WORKERS_PENDING, missing
    if observed.progress is not None:
        return Reason.MATERIALIZING, observed.progress.message or "Reading the sources"
    failed = [pod for pod in pods if pod.phase == "Failed"]
    if failed:
        tries = f"Attempt {len(failed) + 1} of {dataset.spec.backoff_limit + 1}"
        return Reason.MATERIALIZING, f"{tries}; the last one failed: {last_words(failed[-1])}"
    return Reason.MATERIALIZING, "Reading the sources"


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
