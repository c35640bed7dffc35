"""The arithmetic of a Deployment: from its ReplicaSets to how large each should be, and to its status. Pure."""

from __future__ import annotations

import math
from datetime import datetime

from mizzen_local.client import Object
from mizzen_local.objects import condition, meta, parse_time, rfc3339, with_condition

REVISION = "deployment.kubernetes.io/revision"
DESIRED, MOST = "deployment.kubernetes.io/desired-replicas", "deployment.kubernetes.io/max-replicas"


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


def size_notes(deployment: Object) -> dict[str, str]:
    """What a ReplicaSet notes of the Deployment's size, so that a later change of it is seen."""
    wanted = int(deployment["spec"].get("replicas", 1))
    recreate = (deployment["spec"].get("strategy") or {}).get("type") == "Recreate"
    return {DESIRED: str(wanted), MOST: str(wanted + (0 if recreate else bounds(deployment)[0]))}


def _noted(rs: Object, key: str) -> int | None:
    text = (meta(rs).get("annotations") or {}).get(key, "")
    return int(text) if text.isdigit() else None


def was_resized(deployment: Object, sets: list[Object]) -> bool:
    """Whether `replicas` changed since the active ReplicaSets were sized."""
    wanted = int(deployment["spec"].get("replicas", 1))
    return any(_size(rs) and _noted(rs, DESIRED) not in (None, wanted) for rs in sets)


def sizes(deployment: Object, new: Object | None, old: list[Object], old_pods_remain: bool) -> dict[str, int]:
    """How many replicas each ReplicaSet should have now, by name; only those that change."""
    wanted = int(deployment["spec"].get("replicas", 1))
    active = [rs for rs in old if _size(rs)]
    if new is None or deployment["spec"].get("paused") or was_resized(deployment, [new, *old]):
        return _resized(deployment, new, old)
    name = new["metadata"]["name"]
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


def _resized(deployment: Object, new: Object | None, old: list[Object]) -> dict[str, int]:
    """After `replicas` alone changed: each ReplicaSet of a rollout keeps its share."""
    wanted = int(deployment["spec"].get("replicas", 1))
    sets = [*([new] if new else []), *old]
    active = [rs for rs in sets if _size(rs)]
    if len(active) <= 1:
        only = active[0] if active else new or max(old, key=_created, default=None)
        return {meta(only)["name"]: wanted} if only is not None and _size(only) != wanted else {}
    if new is not None and _size(new) == wanted == _count(new, "availableReplicas"):
        return {meta(rs)["name"]: 0 for rs in old if _size(rs)}
    if (deployment["spec"].get("strategy") or {}).get("type") == "Recreate":
        return {}
    allowed = wanted + bounds(deployment)[0] if wanted else 0
    missing = allowed - sum(map(_size, active))
    newest_first = sorted(active, key=_created, reverse=missing > 0)
    ranked = sorted(newest_first, key=_size, reverse=True)
    shares: dict[str, int] = {}
    added = 0
    for rs in ranked:
        fraction = _fraction(deployment, rs, wanted, allowed)
        left = missing - added
        share = min(fraction, left) if missing > 0 else max(fraction, left)
        shares[meta(rs)["name"]] = _size(rs) + (share if missing else 0)
        added += share if missing else 0
    if ranked and missing:
        first = meta(ranked[0])["name"]
        shares[first] = max(0, shares[first] + missing - added)
    return {name: size for name, size in shares.items() if size != _size(_named(active, name))}


def _named(sets: list[Object], name: str) -> Object:
    return next(rs for rs in sets if meta(rs)["name"] == name)


def _created(rs: Object) -> str:
    return str(meta(rs).get("creationTimestamp") or "")


def _fraction(deployment: Object, rs: Object, wanted: int, allowed: int) -> int:
    """How much a ReplicaSet's size changes if its share of all pods stays."""
    if not wanted:
        return -_size(rs)
    before = _noted(rs, MOST) or (deployment.get("status") or {}).get("replicas") or allowed
    return math.floor(_size(rs) * allowed / before + 0.5) - _size(rs)


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
    elif before is not None and before["reason"] == "DeploymentPaused":
        verdict = ("Unknown", "DeploymentResumed", "Deployment is resumed")
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
