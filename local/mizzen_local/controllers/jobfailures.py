"""What a failed pod means for its Job: whether it counts, and how long its successor waits. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from mizzen_local.client import Object
from mizzen_local.controllers.jobindexes import Failures, index_of, noted
from mizzen_local.objects import condition, is_active_pod, meta, parse_time

BACKOFF_MAX = 360.0


def replaces_when_failed(job: Object) -> bool:
    """Whether a pod has to have ended, not only to be ending, before it counts and is replaced."""
    default = "Failed" if job["spec"].get("podFailurePolicy") else "TerminatingOrFailed"
    return (job["spec"].get("podReplacementPolicy") or default) == "Failed"


def is_failed(job: Object, pod: Object) -> bool:
    phase = (pod.get("status") or {}).get("phase")
    ending = bool(meta(pod).get("deletionTimestamp")) and phase != "Succeeded"
    return phase == "Failed" or (ending and not replaces_when_failed(job))


def finish_time(pod: Object) -> datetime | None:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    times = [((s.get("state") or {}).get("terminated") or {}).get("finishedAt") for s in statuses]
    if times and all(times):
        return max(parse_time(text) for text in times if text)
    ready = condition(pod, "Ready")
    if ready is not None and ready["status"] == "False" and ready.get("lastTransitionTime"):
        return parse_time(ready["lastTransitionTime"])
    if meta(pod).get("deletionTimestamp"):
        grace = timedelta(seconds=meta(pod).get("deletionGracePeriodSeconds") or 0)
        return parse_time(meta(pod)["deletionTimestamp"]) - grace
    stamp = meta(pod).get("creationTimestamp")
    return parse_time(stamp) if stamp else None


def failure_action(job: Object, pod: Object) -> tuple[str, str]:
    """(Ignore | FailJob | FailIndex | Count, message) by the first rule of podFailurePolicy that matches."""
    status = pod.get("status") or {}
    name = f"{meta(pod)['namespace']}/{meta(pod)['name']}"
    for number, rule in enumerate((job["spec"].get("podFailurePolicy") or {}).get("rules") or []):
        matching = f"matching {rule['action']} rule at index {number}"
        if rule.get("onExitCodes"):
            for entry in [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]:
                code = ((entry.get("state") or {}).get("terminated") or {}).get("exitCode")
                if code and _exit_code_matches(rule["onExitCodes"], entry["name"], code):
                    told = f"Container {entry['name']} for pod {name} failed with exit code {code} {matching}"
                    return rule["action"], told
            continue
        for found in status.get("conditions") or []:
            for pattern in rule.get("onPodConditions") or []:
                if found["type"] == pattern["type"] and found["status"] == pattern.get("status", "True"):
                    return rule["action"], f"Pod {name} has condition {found['type']} {matching}"
    return "Count", ""


def _exit_code_matches(wanted: Object, container: str, code: int) -> bool:
    if wanted.get("containerName") not in (None, container):
        return False
    inside: bool = code in wanted["values"]
    return inside if wanted["operator"] == "In" else not inside


def index_failed(job: Object, pod: Object) -> bool:
    """Whether this failure was the last that its index may have."""
    action, _ = failure_action(job, pod)
    if action == "FailIndex":
        return True
    limit: int = job["spec"]["backoffLimitPerIndex"]
    return action != "Ignore" and noted(pod)[0] >= limit


def failures_of(job: Object, pods: list[Object], index: int) -> tuple[Failures, Object | None]:
    """How often an index has failed by its last failed pod, and that pod."""
    ended = [pod for pod in pods if index_of(pod) == index and is_failed(job, pod)]
    last = max(ended, key=lambda pod: (sum(noted(pod)), finish_time(pod) or datetime.min), default=None)
    if last is None:
        return (0, 0), None
    counted, ignored = noted(last)
    return ((counted, ignored + 1) if failure_action(job, last)[0] == "Ignore" else (counted + 1, ignored)), last


def delay(base: float, failures: int) -> float:
    """`base` doubled with each failure after the first."""
    return min(base * 2.0 ** min(failures - 1, 30), BACKOFF_MAX)


def index_back_off_left(pods_failures: Failures, last: Object | None, base: float, now: datetime) -> float:
    """Seconds before the next pod of an index may start."""
    ended = finish_time(last) if last is not None else None
    if ended is None:
        return 0.0
    return max(0.0, delay(base, sum(pods_failures)) - (now - ended).total_seconds())


def back_off_left(pods: list[Object], base: float, now: datetime) -> float:
    """Seconds before the next pod may start: `base` doubled with each failure since the last success."""
    ended = [(finish_time(p), (p.get("status") or {}).get("phase")) for p in pods if not is_active_pod(p)]
    good = [t for t, phase in ended if t and phase == "Succeeded"]
    since = max(good) if good else None
    bad = [t for t, phase in ended if t and phase == "Failed" and (since is None or t > since)]
    if not bad:
        return 0.0
    return max(0.0, delay(base, len(bad)) - (now - max(bad)).total_seconds())
