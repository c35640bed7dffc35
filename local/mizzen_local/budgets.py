"""The arithmetic of a PodDisruptionBudget: from pods and controllers to its status, and what an eviction may. Pure.

The disruption controller writes the status; the eviction subresource spends from it and the scheduler's preemption
tries to. Rules and words are those of kube-controller-manager and kube-apiserver.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from mizzen_local.client import Object
from mizzen_local.objects import condition, is_finished_pod, is_true, meta, parse_time, rfc3339, with_condition

DELETION_TIMEOUT = timedelta(minutes=2)  # an eviction whose pod is not deleted by then counts no more


@dataclass(frozen=True)
class Scale:
    """A pod's controller and how many pods it is to have."""

    uid: str
    replicas: int


class CannotCountError(Exception):
    """The budget needs to know how many pods are expected, and a pod's controller does not tell."""


@dataclass(frozen=True)
class Verdict:
    status: Object
    unmanaged: bool = False  # bare pods were left out of a count that needs controllers
    overdue: tuple[str, ...] = ()  # evicted pods that nobody deleted
    look_again: float | None = None


def scaled(value: int | str, total: int) -> int:
    """A number, or a percentage of `total` rounded up."""
    if isinstance(value, str) and value.endswith("%"):
        return math.ceil(int(value[:-1]) * total / 100)
    return int(value)


def expected(budget: Object, pods: list[Object], scale_of: Callable[[Object], Scale | None]) -> tuple[int, int, bool]:
    """(pods expected, healthy pods desired, whether bare pods were left out).

    `scale_of` is asked for pods with a controller; a whole number of minAvailable needs no controllers at all.
    """
    spec = budget["spec"]
    least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
    if most is None and not isinstance(least, str):
        return len(pods), int(least or 0), False
    scales: dict[str, int] = {}
    unmanaged = False
    for pod in pods:
        if not any(owner.get("controller") for owner in meta(pod).get("ownerReferences") or []):
            unmanaged = True
            continue
        found = scale_of(pod)
        if found is None:
            raise CannotCountError(f'found no controllers for pod "{meta(pod)["name"]}"')
        scales[found.uid] = found.replicas
    total = sum(scales.values())
    if most is not None:
        return total, max(0, total - scaled(most, total)), unmanaged
    return total, scaled(least or 0, total), unmanaged


def judge(budget: Object, pods: list[Object], scale_of: Callable[[Object], Scale | None], now: datetime) -> Verdict:
    """The budget's status; `pods` are those that it selects. Raises CannotCountError."""
    wanted, desired, unmanaged = expected(budget, pods, scale_of)
    disrupted, overdue, look_again = _still_disrupted(budget, pods, now)
    healthy = sum(
        is_true(pod, "Ready") and not meta(pod).get("deletionTimestamp") and meta(pod)["name"] not in disrupted
        for pod in pods
    )
    allowed = max(0, healthy - desired) if wanted > 0 else 0
    status: Object = {
        "observedGeneration": meta(budget).get("generation", 1),
        "disruptionsAllowed": allowed,
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "expectedPods": wanted,
        **({"disruptedPods": disrupted} if disrupted else {}),
        "conditions": allowed_condition(budget, allowed, now),
    }
    return Verdict(status, unmanaged, overdue, look_again)


def uncounted(budget: Object, why: str, now: datetime) -> Object:
    """The status while the pods cannot be counted: nothing may be evicted."""
    conditions = _conditions(budget, "False", "SyncFailed", why, now)
    before = budget.get("status") or {}
    counts = {key: before.get(key, 0) for key in ("currentHealthy", "desiredHealthy", "expectedPods")}
    observed = before.get("observedGeneration")
    seen = {} if observed is None else {"observedGeneration": observed}
    return {**before, **counts, **seen, "disruptionsAllowed": 0, "conditions": conditions}


def allowed_condition(budget: Object, allowed: int, now: datetime) -> list[Object]:
    """The budget's conditions with DisruptionAllowed as the number says."""
    if allowed > 0:
        return _conditions(budget, "True", "SufficientPods", "", now)
    return _conditions(budget, "False", "InsufficientPods", "", now)


def _conditions(budget: Object, value: str, reason: str, message: str, now: datetime) -> list[Object]:
    before = (budget.get("status") or {}).get("conditions")
    found = with_condition(before, "DisruptionAllowed", value, reason, message, rfc3339(now))
    generation = meta(budget).get("generation", 1)
    return [{**c, "observedGeneration": generation} if c["type"] == "DisruptionAllowed" else c for c in found]


def _still_disrupted(
    budget: Object, pods: list[Object], now: datetime
) -> tuple[dict[str, str], tuple[str, ...], float | None]:
    """Evictions that the pods do not show yet, those that waited in vain, and when the next one expires."""
    evicted = (budget.get("status") or {}).get("disruptedPods") or {}
    kept: dict[str, str] = {}
    overdue: list[str] = []
    waits: list[float] = []
    for pod in pods:
        name = meta(pod)["name"]
        if meta(pod).get("deletionTimestamp") or name not in evicted:
            continue
        left = (parse_time(evicted[name]) + DELETION_TIMEOUT - now).total_seconds()
        if left <= 0:
            overdue.append(name)
        else:
            kept[name] = evicted[name]
            waits.append(left)
    return kept, tuple(overdue), min(waits, default=None)


def needs_no_budget(pod: Object) -> bool:
    """Pods that have ended, never started or are being deleted may go whatever a budget says."""
    pending = (pod.get("status") or {}).get("phase") == "Pending"
    return pending or is_finished_pod(pod) or bool(meta(pod).get("deletionTimestamp"))


def unhealthy_may_go(budget: Object, pod: Object) -> bool:
    """Whether `unhealthyPodEvictionPolicy` lets a pod that is not ready go without asking for a disruption."""
    if is_true(pod, "Ready"):
        return False
    if budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    status = budget.get("status") or {}
    desired: int = status.get("desiredHealthy", 0)
    return desired > 0 and status.get("currentHealthy", 0) >= desired


def spent(budget: Object, pod_name: str, now: datetime) -> Object:
    """The budget's status after one more eviction."""
    status = budget["status"]
    allowed = status["disruptionsAllowed"] - 1
    return {
        **status,
        "disruptionsAllowed": allowed,
        "disruptedPods": {**(status.get("disruptedPods") or {}), pod_name: rfc3339(now)},
        **({} if allowed else {"conditions": allowed_condition(budget, 0, now)}),
    }


def unchanged(before: Object | None, after: Object) -> bool:
    return {k: v for k, v in (before or {}).items() if v} == {k: v for k, v in after.items() if v} and (
        before is not None and condition({"status": before}, "DisruptionAllowed") is not None
    )
