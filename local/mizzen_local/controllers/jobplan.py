"""The rules of a Job: from its pods to which pods to create, which to delete and what its status says. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mizzen_local.client import Object
from mizzen_local.controllers import jobfailures, jobindexes
from mizzen_local.controllers.jobfailures import back_off_left, failure_action, is_failed, replaces_when_failed
from mizzen_local.controllers.jobindexes import Failures, format_indexes, index_of, parse_indexes
from mizzen_local.controllers.pods import deletion_rank, is_ready
from mizzen_local.objects import is_active_pod, is_true, meta, parse_time, rfc3339, with_condition

TRACKING = "batch.kubernetes.io/job-tracking"


@dataclass(frozen=True)
class Plan:
    status: Object
    create: tuple[int | None, ...] = ()
    delete: tuple[Object, ...] = ()
    look_again: float | None = None
    delete_job: bool = False
    events: tuple[tuple[str, str, str], ...] = field(default=())  # (type, reason, message)
    counts: bool = False  # whether the deleted pods count as failed
    failures: dict[int, Failures] = field(default_factory=dict)  # of the indexes whose pods are created


def finished(job: Object) -> bool:
    return is_true(job, "Complete") or is_true(job, "Failed")


@dataclass
class _Count:
    """The tally of finished pods: those already in the counts, and those still to be released by their finalizer."""

    succeeded: int
    failed: int
    uncounted_succeeded: list[str]
    uncounted_failed: list[str]
    completed: set[int]
    failed_indexes: set[int]
    fail_job: str = ""

    @property
    def all_succeeded(self) -> int:
        return self.succeeded + len(self.uncounted_succeeded)

    @property
    def all_failed(self) -> int:
        return self.failed + len(self.uncounted_failed)


def tally(job: Object, pods: list[Object]) -> _Count:
    status = job.get("status") or {}
    uncounted = status.get("uncountedTerminatedPods") or {}
    held = {meta(p)["uid"] for p in pods if TRACKING in (meta(p).get("finalizers") or [])}
    before_ok, before_failed = uncounted.get("succeeded") or [], uncounted.get("failed") or []
    count = _Count(
        succeeded=(status.get("succeeded") or 0) + sum(uid not in held for uid in before_ok),
        failed=(status.get("failed") or 0) + sum(uid not in held for uid in before_failed),
        uncounted_succeeded=[uid for uid in before_ok if uid in held],
        uncounted_failed=[uid for uid in before_failed if uid in held],
        completed=parse_indexes(status.get("completedIndexes") or ""),
        failed_indexes=parse_indexes(status.get("failedIndexes") or ""),
    )
    known = {*before_ok, *before_failed}
    indexed = job["spec"].get("completionMode") == "Indexed"
    per_index = "backoffLimitPerIndex" in job["spec"]
    for pod in pods:
        uid = meta(pod)["uid"]
        if uid not in held or uid in known:
            continue
        phase = (pod.get("status") or {}).get("phase")
        index = index_of(pod)
        if phase == "Succeeded":
            if indexed and (index is None or index in count.completed):
                continue
            if index is not None:
                count.completed.add(index)
            count.uncounted_succeeded.append(uid)
        elif is_failed(job, pod):
            action, message = failure_action(job, pod)
            if action == "FailJob":
                count.fail_job = count.fail_job or message
            if action != "Ignore":
                count.uncounted_failed.append(uid)
            if per_index and index is not None and jobfailures.index_failed(job, pod):
                count.failed_indexes.add(index)
    return count


def releasable(job: Object, pods: list[Object]) -> list[Object]:
    """Pods whose outcome the status now holds (or that do not count): their finalizer may go."""
    uncounted = (job.get("status") or {}).get("uncountedTerminatedPods") or {}
    noted = {*(uncounted.get("succeeded") or []), *(uncounted.get("failed") or [])}
    done = finished(job)
    return [
        pod
        for pod in pods
        if TRACKING in (meta(pod).get("finalizers") or [])
        and (meta(pod)["uid"] in noted or done or (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"))
    ]


def _failure(job: Object, pods: list[Object], count: _Count, now: datetime) -> tuple[str, str] | None:
    spec, status = job["spec"], job.get("status") or {}
    if count.fail_job:
        return "PodFailurePolicy", count.fail_job
    limit = spec.get("backoffLimit")
    limit = 6 if limit is None else limit
    restarts = 0
    if spec["template"]["spec"].get("restartPolicy") == "OnFailure":
        restarts = sum(
            s.get("restartCount", 0)
            for p in pods
            if is_active_pod(p)
            for s in (p.get("status") or {}).get("containerStatuses") or []
        )
    if count.all_failed > limit or (restarts and restarts > max(limit - 1, 0)):
        return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    deadline = spec.get("activeDeadlineSeconds")
    started = status.get("startTime")
    if deadline is not None and started and (now - parse_time(started)).total_seconds() >= deadline:
        return "DeadlineExceeded", "Job was active longer than specified deadline"
    if "backoffLimitPerIndex" in spec:
        return jobindexes.failed_enough(job, count.completed, count.failed_indexes)
    return None


def _success(job: Object, active: int, count: _Count) -> tuple[str, str] | None:
    completions = job["spec"].get("completions")
    if job["spec"].get("completionMode") == "Indexed":
        met = jobindexes.success_policy(job, count.completed)
        if met:
            return "SuccessPolicy", met
    done = count.all_succeeded > 0 and active == 0 if completions is None else count.all_succeeded >= completions
    return ("CompletionsReached", "Reached expected number of succeeded pods") if done else None


def _noted(conditions: list[Object], kind: str) -> tuple[str, str] | None:
    """What an interim condition says, which stays the verdict."""
    found = (c for c in conditions if c["type"] == kind and c["status"] == "True")
    return next(((c["reason"], c["message"]) for c in found), None)


def plan(job: Object, pods: list[Object], now: datetime, backoff_base: float = 1.0) -> Plan:
    """`pods` are those that this Job controls."""
    spec = job["spec"]
    before = job.get("status") or {}
    count = tally(job, pods)
    active = [p for p in pods if is_active_pod(p)]
    ending = [p for p in pods if meta(p).get("deletionTimestamp") and not _terminal(p)]
    stamp = rfc3339(now)
    conditions = list(before.get("conditions") or [])
    status: dict[str, Any] = {
        "active": len(active) or None,  # nought is left out, as Go writes it
        "ready": sum(is_ready(p) for p in active),
        "terminating": len(ending),
        "succeeded": count.succeeded or None,
        "failed": count.failed or None,
        "uncountedTerminatedPods": {"succeeded": count.uncounted_succeeded, "failed": count.uncounted_failed},
        "startTime": before.get("startTime"),
        "completionTime": before.get("completionTime"),
        "conditions": conditions,
    }
    if spec.get("completionMode") == "Indexed":
        status["completedIndexes"] = format_indexes(count.completed) or None
        if "backoffLimitPerIndex" in spec:
            status["failedIndexes"] = format_indexes(count.failed_indexes)
    if finished(job):
        return _after(job, status, now)
    if spec.get("suspend"):
        return _suspended(job, status, active, stamp)
    events: list[tuple[str, str, str]] = []
    if is_true(job, "Suspended"):
        conditions = _with_condition(conditions, "Suspended", "False", "JobResumed", "Job resumed", stamp)
        events.append(("Normal", "Resumed", "Job resumed"))
    status["conditions"] = conditions
    if not status["startTime"] or is_true(job, "Suspended"):
        status["startTime"] = stamp
    success = _noted(conditions, "SuccessCriteriaMet")
    failure = None if success else _noted(conditions, "FailureTarget") or _failure(job, pods, count, now)
    if failure:
        return _ending(status, active, ending, "FailureTarget", "Failed", failure, stamp)
    success = success or _success(job, len(active), count)
    if success:
        return _ending(status, active, ending, "SuccessCriteriaMet", "Complete", success, stamp)
    return _keep_going(job, pods, status, active, ending, count, events, now, backoff_base)


def _with_condition(
    conditions: list[Object], kind: str, status: str, reason: str, message: str, now: str
) -> list[Object]:
    """A Job's conditions also say when they were looked at, which is when they were set."""
    found = with_condition(conditions, kind, status, reason, message, now)
    return [{**entry, "lastProbeTime": entry.get("lastProbeTime") or entry["lastTransitionTime"]} for entry in found]


def _terminal(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _after(job: Object, status: Object, now: datetime) -> Plan:
    """A finished Job waits for its time to live."""
    ttl = job["spec"].get("ttlSecondsAfterFinished")
    if ttl is None or meta(job).get("deletionTimestamp"):
        return Plan(status)
    moments = [c["lastTransitionTime"] for c in status["conditions"] if c["type"] in ("Complete", "Failed")]
    left = ttl - (now - parse_time(max(moments))).total_seconds()
    return Plan(status, delete_job=True) if left <= 0 else Plan(status, look_again=left + 0.05)


def _suspended(job: Object, status: Object, active: list[Object], stamp: str) -> Plan:
    events: tuple[tuple[str, str, str], ...] = ()
    if not is_true(job, "Suspended"):
        status["conditions"] = _with_condition(
            status["conditions"], "Suspended", "True", "JobSuspended", "Job suspended", stamp
        )
        events = (("Normal", "Suspended", "Job suspended"),)
    status["startTime"] = None
    return Plan(status, delete=tuple(active), events=events)


def _ending(
    status: Object, active: list[Object], ending: list[Object], first: str, last: str, why: tuple[str, str], stamp: str
) -> Plan:
    """The interim condition is set at once, the final one when no pod runs any more."""
    reason, message = why
    status["conditions"] = _with_condition(status["conditions"], first, "True", reason, message, stamp)
    uncounted = status["uncountedTerminatedPods"]
    if active or ending or uncounted["succeeded"] or uncounted["failed"]:
        return Plan(status, delete=tuple(active), counts=last == "Failed")
    status["conditions"] = _with_condition(status["conditions"], last, "True", reason, message, stamp)
    if last == "Complete":
        status["completionTime"] = stamp
        return Plan(status, events=(("Normal", "Completed", "Job completed"),))
    return Plan(status, events=(("Warning", reason, message),))


def _keep_going(  # noqa: PLR0913, PLR0917
    job: Object,
    pods: list[Object],
    status: Object,
    active: list[Object],
    ending: list[Object],
    count: _Count,
    events: list[tuple[str, str, str]],
    now: datetime,
    backoff_base: float,
) -> Plan:
    spec = job["spec"]
    parallelism = spec.get("parallelism")
    parallelism = 1 if parallelism is None else parallelism
    completions = spec.get("completions")
    if completions is not None:
        wanted = min(parallelism, completions - count.all_succeeded - len(count.failed_indexes))
    else:
        wanted = len(active) if count.all_succeeded else parallelism
        wanted = min(wanted, parallelism)
    present = len(active) + (len(ending) if replaces_when_failed(job) else 0)
    surplus = tuple(sorted(active, key=deletion_rank)[: max(0, len(active) - wanted)])
    missing = max(0, wanted - present)
    create: tuple[int | None, ...] = (None,) * missing
    failures: dict[int, Failures] = {}
    look_again: float | None = None
    if spec.get("completionMode") == "Indexed":
        busy = [*active, *ending] if replaces_when_failed(job) else active
        taken = count.completed | count.failed_indexes | {i for p in busy if (i := index_of(p)) is not None}
        create = tuple(index for index in range(completions or 0) if index not in taken)[:missing]
    if "backoffLimitPerIndex" in spec:
        failures, look_again = _after_failures(job, pods, create, backoff_base, now)
        create = tuple(failures)
    elif create:
        look_again = back_off_left(pods, backoff_base, now) or None
        create = () if look_again else create
    if spec.get("activeDeadlineSeconds") is not None:
        spent = (now - parse_time(status["startTime"])).total_seconds()
        left = max(0.05, spec["activeDeadlineSeconds"] - spent + 0.05)
        look_again = left if look_again is None else min(left, look_again)
    return Plan(status, create, surplus, look_again, events=tuple(events), failures=failures)


def _after_failures(
    job: Object, pods: list[Object], wanted: tuple[int | None, ...], base: float, now: datetime
) -> tuple[dict[int, Failures], float | None]:
    """Which indexes may start now, with how often they have failed, and when the next of the others may."""
    ready: dict[int, Failures] = {}
    waits = []
    for index in wanted:
        assert index is not None
        failures, last = jobfailures.failures_of(job, pods, index)
        left = jobfailures.index_back_off_left(failures, last, base, now)
        if left:
            waits.append(left)
        else:
            ready[index] = failures
    return ready, min(waits, default=None)
