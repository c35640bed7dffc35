"""The rules of a Job: from its pods to which pods to create, which to delete and what its status says. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mizzen_local.client import Object
from mizzen_local.controllers.pods import deletion_rank, is_ready
from mizzen_local.objects import is_active_pod, is_true, meta, parse_time, rfc3339, with_condition

TRACKING = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
BACKOFF_MAX = 360.0


@dataclass(frozen=True)
class Plan:
    status: Object
    create: tuple[int | None, ...] = ()
    delete: tuple[Object, ...] = ()
    look_again: float | None = None
    delete_job: bool = False
    events: tuple[tuple[str, str, str], ...] = field(default=())  # (type, reason, message)


def parse_indexes(text: str) -> set[int]:
    """`"0-2,4"` is {0, 1, 2, 4}."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def format_indexes(indexes: set[int]) -> str:
    parts: list[str] = []
    start = previous = None
    for index in [*sorted(indexes), None]:
        if start is not None and previous is not None and index != previous + 1:
            parts.append(str(start) if start == previous else f"{start}-{previous}")
            start = None
        if start is None:
            start = index
        previous = index
    return ",".join(parts)


def index_of(pod: Object) -> int | None:
    text = (meta(pod).get("annotations") or {}).get(INDEX)
    return int(text) if text is not None and text.isdigit() else None


def finished(job: Object) -> bool:
    return is_true(job, "Complete") or is_true(job, "Failed")


def _finish_time(pod: Object) -> datetime | None:
    times = [
        parse_time(s["state"]["terminated"]["finishedAt"])
        for s in (pod.get("status") or {}).get("containerStatuses") or []
        if (s.get("state") or {}).get("terminated", {}).get("finishedAt")
    ]
    if times:
        return max(times)
    stamp = meta(pod).get("deletionTimestamp") or meta(pod).get("creationTimestamp")
    return parse_time(stamp) if stamp else None


def failure_action(job: Object, pod: Object) -> tuple[str, str]:
    """(Ignore | FailJob | Count, message) by the first rule of podFailurePolicy that matches."""
    for number, rule in enumerate((job["spec"].get("podFailurePolicy") or {}).get("rules") or []):
        wanted = rule.get("onExitCodes")
        if wanted:
            for status in (pod.get("status") or {}).get("containerStatuses") or []:
                code = (status.get("state") or {}).get("terminated", {}).get("exitCode")
                named = wanted.get("containerName") in (None, status["name"])
                inside = code in wanted["values"]
                if code and named and (inside if wanted["operator"] == "In" else not inside):
                    return rule["action"], (
                        f"Container {status['name']} for pod {meta(pod)['namespace']}/{meta(pod)['name']} failed with "
                        f"exit code {code} matching {rule['action']} rule at index {number}"
                    )
        for pattern in rule.get("onPodConditions") or []:
            for found in (pod.get("status") or {}).get("conditions") or []:
                if found["type"] == pattern["type"] and found["status"] == pattern.get("status", "True"):
                    return rule["action"], (
                        f"Pod {meta(pod)['namespace']}/{meta(pod)['name']} has condition {found['type']} "
                        f"matching {rule['action']} rule at index {number}"
                    )
    return "Count", ""


@dataclass
class _Count:
    """The tally of finished pods: those already in the counts, and those still to be released by their finalizer."""

    succeeded: int
    failed: int
    uncounted_succeeded: list[str]
    uncounted_failed: list[str]
    completed: set[int]
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
    )
    known = {*before_ok, *before_failed}
    indexed = job["spec"].get("completionMode") == "Indexed"
    waits = _replaces_when_failed(job)
    for pod in pods:
        uid = meta(pod)["uid"]
        if uid not in held or uid in known:
            continue
        phase = (pod.get("status") or {}).get("phase")
        terminating = bool(meta(pod).get("deletionTimestamp"))
        if phase == "Succeeded":
            index = index_of(pod)
            if indexed and (index is None or index in count.completed):
                continue
            if index is not None:
                count.completed.add(index)
            count.uncounted_succeeded.append(uid)
        elif phase == "Failed" or (terminating and not waits):
            action, message = failure_action(job, pod)
            if action == "FailJob":
                count.fail_job = count.fail_job or message
            if action != "Ignore":
                count.uncounted_failed.append(uid)
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


def _replaces_when_failed(job: Object) -> bool:
    default = "Failed" if job["spec"].get("podFailurePolicy") else "TerminatingOrFailed"
    return (job["spec"].get("podReplacementPolicy") or default) == "Failed"


def back_off_left(pods: list[Object], base: float, now: datetime) -> float:
    """Seconds before the next pod may start: `base` doubled with each failure since the last success."""
    ended = [(_finish_time(p), (p.get("status") or {}).get("phase")) for p in pods if not is_active_pod(p)]
    good = [t for t, phase in ended if t and phase == "Succeeded"]
    since = max(good) if good else None
    bad = [t for t, phase in ended if t and phase == "Failed" and (since is None or t > since)]
    if not bad:
        return 0.0
    delay = min(base * 2.0 ** (len(bad) - 1), BACKOFF_MAX)
    return max(0.0, delay - (now - max(bad)).total_seconds())


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
    return None


def _succeeded(job: Object, active: int, count: _Count) -> bool:
    completions = job["spec"].get("completions")
    if completions is None:
        return count.all_succeeded > 0 and active == 0
    return count.all_succeeded >= int(completions)


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
        "active": len(active),
        "ready": sum(is_ready(p) for p in active),
        "terminating": len(ending),
        "succeeded": count.succeeded,
        "failed": count.failed,
        "uncountedTerminatedPods": {"succeeded": count.uncounted_succeeded, "failed": count.uncounted_failed},
        "startTime": before.get("startTime"),
        "completionTime": before.get("completionTime"),
        "conditions": conditions,
    }
    if spec.get("completionMode") == "Indexed":
        status["completedIndexes"] = format_indexes(count.completed)
    if finished(job):
        return _after(job, status, now)
    if spec.get("suspend"):
        return _suspended(job, status, active, stamp)
    events: list[tuple[str, str, str]] = []
    if is_true(job, "Suspended"):
        conditions = with_condition(conditions, "Suspended", "False", "JobResumed", "Job resumed", stamp)
        events.append(("Normal", "Resumed", "Job resumed"))
    status["conditions"] = conditions
    if not status["startTime"] or is_true(job, "Suspended"):
        status["startTime"] = stamp
    failure = next(
        ((c["reason"], c["message"]) for c in conditions if c["type"] == "FailureTarget" and c["status"] == "True"),
        None,
    ) or _failure(job, pods, count, now)
    if failure:
        return _ending(status, active, ending, "FailureTarget", "Failed", failure, stamp)
    if is_true(job, "SuccessCriteriaMet") or _succeeded(job, len(active), count):
        reached = ("CompletionsReached", "Reached expected number of succeeded pods")
        return _ending(status, active, ending, "SuccessCriteriaMet", "Complete", reached, stamp)
    return _keep_going(job, pods, status, active, ending, count, events, now, backoff_base)


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
        status["conditions"] = with_condition(
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
    status["conditions"] = with_condition(status["conditions"], first, "True", reason, message, stamp)
    uncounted = status["uncountedTerminatedPods"]
    if active or ending or uncounted["succeeded"] or uncounted["failed"]:
        return Plan(status, delete=tuple(active))
    status["conditions"] = with_condition(status["conditions"], last, "True", reason, message, stamp)
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
        wanted = min(parallelism, completions - count.all_succeeded)
    else:
        wanted = len(active) if count.all_succeeded else parallelism
        wanted = min(wanted, parallelism)
    present = len(active) + (len(ending) if _replaces_when_failed(job) else 0)
    surplus = tuple(sorted(active, key=deletion_rank)[: max(0, len(active) - wanted)])
    missing = max(0, wanted - present)
    look_again: float | None = None
    if missing:
        look_again = back_off_left(pods, backoff_base, now) or None
        missing = 0 if look_again else missing
    create: tuple[int | None, ...] = (None,) * missing
    if spec.get("completionMode") == "Indexed" and missing:
        taken = count.completed | {i for p in [*active, *ending] if (i := index_of(p)) is not None}
        free = [i for i in range(completions or 0) if i not in taken]
        create = tuple(free[:missing])
    if spec.get("activeDeadlineSeconds") is not None:
        spent = (now - parse_time(status["startTime"])).total_seconds()
        left = max(0.05, spec["activeDeadlineSeconds"] - spent + 0.05)
        look_again = left if look_again is None else min(left, look_again)
    return Plan(status, create, surplus, look_again, events=tuple(events))
