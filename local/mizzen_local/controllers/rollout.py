"""The arithmetic of a Deployment: from its ReplicaSets to how large each should be, and to its status. Pure."""

from __future__ import annotations

import math
from datetime import datetime

from mizzen_local.client import Object
from mizzen_local.objects import condition, meta, parse_time, rfc3339, with_condition

REVISION = "deployment.kubernetes.io/revision"


def resolve(value: int | str | None, total: int, *, up: bool, default: int | str = "25%") -> int:
    """`maxSurge` rounds up, `maxUnavailable` down."""
    value = default if value is None else value
    if isinstance(value, str) and value.endswith("%"):
        share = int(value[:-1]) * total / 100
        return math.ceil(share) if up else math.floor(share)
    return int(value)


def bounds(deployment: Object) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) in pods; both zero would never move, so then one may be unavailable."""
    spec = deployment["spec"]
    wanted = spec.get("replicas", 1)
    strategy = spec.get("strategy") or {}
    if strategy.get("type") == "Recreate":
        return 0, wanted
    rolling = strategy.get("rollingUpdate") or {}
    surge = resolve(rolling.get("maxSurge"), wanted, up=True)
    unavailable = resolve(rolling.get("maxUnavailable"), wanted, up=False)
    return surge, min(wanted, unavailable if surge or unavailable else 1)


def _size(rs: Object) -> int:
    return int(rs["spec"].get("replicas", 1))


def _count(rs: Object, field: str) -> int:
    return int((rs.get("status") or {}).get(field) or 0)


def sizes(deployment: Object, new: Object, old: list[Object], old_pods_remain: bool) -> dict[str, int]:
    """How many replicas each ReplicaSet should have now, by name; only those that change."""
    wanted = int(deployment["spec"].get("replicas", 1))
    active = [rs for rs in old if _size(rs)]
    name = new["metadata"]["name"]
    if deployment["spec"].get("paused"):
        return _scaled_in_proportion(wanted, new, active)
    if (deployment["spec"].get("strategy") or {}).get("type") == "Recreate":
        result = {rs["metadata"]["name"]: 0 for rs in active}
        if not old_pods_remain and _size(new) != wanted:
            result[name] = wanted
        return result
    surge, unavailable = bounds(deployment)
    total = sum(map(_size, [new, *active]))
    if _size(new) > wanted:
        return {name: wanted}
    if _size(new) < wanted:
        grown = min(wanted, _size(new) + max(0, wanted + surge - total))
        if grown != _size(new):
            return {name: grown}
    return _shrink_old(new, active, wanted - unavailable, total)


def _shrink_old(new: Object, active: list[Object], min_available: int, total: int) -> dict[str, int]:
    """First old pods that never became available, then as many as the others can spare."""
    new_unavailable = max(0, _size(new) - _count(new, "availableReplicas"))
    spare = total - min_available - new_unavailable
    result: dict[str, int] = {}
    left = {rs["metadata"]["name"]: _size(rs) for rs in active}
    for rs in sorted(active, key=lambda rs: meta(rs).get("creationTimestamp") or ""):
        unhealthy = max(0, _size(rs) - _count(rs, "availableReplicas"))
        cut = min(max(spare, 0), unhealthy)
        if cut:
            left[rs["metadata"]["name"]] -= cut
            result[rs["metadata"]["name"]] = left[rs["metadata"]["name"]]
            spare -= cut
    available = sum(_count(rs, "availableReplicas") for rs in [new, *active])
    spare = min(spare, available - min_available)
    for rs in sorted(active, key=lambda rs: meta(rs).get("creationTimestamp") or ""):
        cut = min(max(spare, 0), left[rs["metadata"]["name"]])
        if cut:
            left[rs["metadata"]["name"]] -= cut
            result[rs["metadata"]["name"]] = left[rs["metadata"]["name"]]
            spare -= cut
    return result


def _scaled_in_proportion(wanted: int, new: Object, active: list[Object]) -> dict[str, int]:
    """A paused Deployment only follows `replicas`: the largest set takes the difference."""
    sets = [rs for rs in [new, *active] if _size(rs)] or [new]
    difference = wanted - sum(map(_size, sets))
    if not difference:
        return {}
    largest = max(sets, key=_size)
    return {largest["metadata"]["name"]: max(0, _size(largest) + difference)}


def status(deployment: Object, new: Object | None, old: list[Object], now: datetime) -> Object:
    sets = [*([new] if new else []), *old]
    wanted = int(deployment["spec"].get("replicas", 1))
    total = sum(_count(rs, "replicas") for rs in sets)
    available = sum(_count(rs, "availableReplicas") for rs in sets)
    updated = _count(new, "replicas") if new else 0
    result: Object = {
        "observedGeneration": meta(deployment).get("generation", 1),
        "replicas": total,
        "updatedReplicas": updated,
        "readyReplicas": sum(_count(rs, "readyReplicas") for rs in sets),
        "availableReplicas": available,
        "unavailableReplicas": max(0, sum(map(_size, sets)) - available),
    }
    stamp = rfc3339(now)
    conditions = (deployment.get("status") or {}).get("conditions")
    _, unavailable = bounds(deployment)
    if available >= wanted - unavailable:
        verdict = ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    else:
        verdict = ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    conditions = with_condition(conditions, "Available", *verdict, stamp)
    conditions = [*(c for c in conditions if c["type"] != "ReplicaFailure"), *_failures(new, old)]
    result["conditions"] = _progressing(deployment, new, result, conditions, now)
    return result


def _failures(new: Object | None, old: list[Object]) -> list[Object]:
    """Why a ReplicaSet cannot create its pods; of the new one first."""
    found = [condition(rs, "ReplicaFailure") for rs in ([new] if new else []) + old]
    return [failure for failure in found if failure is not None][:1]


def _progressing(
    deployment: Object, new: Object | None, counts: Object, conditions: list[Object], now: datetime
) -> list[Object]:
    wanted = int(deployment["spec"].get("replicas", 1))
    before = condition(deployment, "Progressing")
    name = new["metadata"]["name"] if new else ""
    stamp = rfc3339(now)
    updated_at = (before or {}).get("lastUpdateTime") or stamp
    complete = counts["updatedReplicas"] == counts["replicas"] == counts["availableReplicas"] == wanted
    old_counts = deployment.get("status") or {}
    moved = any(
        counts[field] != (old_counts.get(field) or 0)
        for field in ("updatedReplicas", "readyReplicas", "availableReplicas")
    ) or counts["observedGeneration"] != old_counts.get("observedGeneration")
    deadline = deployment["spec"].get("progressDeadlineSeconds") or 600
    if deployment["spec"].get("paused"):
        verdict = ("Unknown", "DeploymentPaused", "Deployment is paused")
    elif complete:
        verdict = ("True", "NewReplicaSetAvailable", f'ReplicaSet "{name}" has successfully progressed.')
    elif moved or before is None:
        verdict = ("True", "ReplicaSetUpdated", f'ReplicaSet "{name}" is progressing.')
        updated_at = stamp
    elif before["reason"] != "NewReplicaSetAvailable" and (now - parse_time(updated_at)).total_seconds() > deadline:
        verdict = ("False", "ProgressDeadlineExceeded", f'ReplicaSet "{name}" has timed out progressing.')
    else:
        verdict = (before["status"], before["reason"], before["message"])
    result = with_condition(conditions, "Progressing", *verdict, stamp)
    if before is None or before["reason"] != verdict[1]:
        updated_at = stamp
    return [
        {**c, "lastUpdateTime": updated_at if c["type"] == "Progressing" else c["lastTransitionTime"]} for c in result
    ]


def deadline_left(deployment: Object, now: datetime) -> float | None:
    """Seconds until an unfinished rollout misses its deadline."""
    found = condition(deployment, "Progressing")
    if found is None or found["reason"] in ("NewReplicaSetAvailable", "ProgressDeadlineExceeded", "DeploymentPaused"):
        return None
    seconds = deployment["spec"].get("progressDeadlineSeconds") or 600
    return max(1.0, float(seconds) - (now - parse_time(found["lastUpdateTime"])).total_seconds() + 1)
