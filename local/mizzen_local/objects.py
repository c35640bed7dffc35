"""Small pure helpers over Kubernetes objects as JSON, shared by the controllers and the node agent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from mizzen_local.client import Object

Key = tuple[str, str]  # (namespace, name); the namespace of a cluster-scoped object is empty

_SUFFIXES = {
    "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60,
}  # fmt: skip
_NAME_LETTERS = "bcdfghjklmnpqrstvwxz2456789"  # the letters of Kubernetes' generated names: no vowels, no look-alikes


def key_of(obj: Object) -> Key:
    meta = obj["metadata"]
    return meta.get("namespace") or "", meta["name"]


def meta(obj: Object) -> Object:
    found: Object = obj["metadata"]
    return found


def rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def utc_now() -> datetime:
    return datetime.now(UTC)


def quantity(value: str | int | float) -> float:
    """A resource quantity as a number: `quantity("250m") == 0.25`, `quantity("1Gi") == 2**30`."""
    text = str(value).strip()
    for suffix in (text[-2:], text[-1:]):
        if suffix in _SUFFIXES:
            return float(text[: -len(suffix)]) * _SUFFIXES[suffix]
    return float(text)


def controller_of(obj: Object) -> Object | None:
    """The owner reference with `controller: true`, if there is one."""
    for reference in meta(obj).get("ownerReferences") or []:
        if reference.get("controller"):
            found: Object = reference
            return found
    return None


def owned_by(obj: Object, uid: str) -> bool:
    owner = controller_of(obj)
    return owner is not None and owner["uid"] == uid


def controller_reference(owner: Object, api_version: str, kind: str) -> Object:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def requirement_holds(requirement: Object, labels: dict[str, str]) -> bool:  # noqa: PLR0911
    """One `matchExpressions` entry of a label selector or of a node selector term."""
    key, values = requirement["key"], requirement.get("values") or []
    found = labels.get(key)
    match requirement["operator"]:
        case "In":
            return found in values
        case "NotIn":
            return found not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case "Gt":
            return found is not None and int(found) > int(values[0])
        case "Lt":
            return found is not None and int(found) < int(values[0])
    return False


def selects(selector: Object | None, labels: dict[str, str] | None) -> bool:
    """Whether a LabelSelector matches; an absent selector matches nothing, an empty one everything."""
    if selector is None:
        return False
    have = labels or {}
    wanted = selector.get("matchLabels") or {}
    return all(have.get(k) == v for k, v in wanted.items()) and all(
        requirement_holds(r, have) for r in selector.get("matchExpressions") or []
    )


def condition(obj: Object, kind: str) -> Object | None:
    for entry in (obj.get("status") or {}).get("conditions") or []:
        if entry["type"] == kind:
            found: Object = entry
            return found
    return None


def is_true(obj: Object, kind: str) -> bool:
    found = condition(obj, kind)
    return found is not None and found["status"] == "True"


def with_condition(
    conditions: Iterable[Object] | None, kind: str, status: str, reason: str, message: str, now: str
) -> list[Object]:
    """The list with one condition set; `lastTransitionTime` moves only with the status."""
    result, before = [], None
    for entry in conditions or []:
        if entry["type"] == kind:
            before = entry
        else:
            result.append(entry)
    moved = before is None or before["status"] != status
    new: Object = {
        "type": kind,
        "status": status,
        "lastTransitionTime": now if moved else (before or {}).get("lastTransitionTime", now),
        "reason": reason,
        "message": message,
    }
    return [*result, new]


def is_finished_pod(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def is_active_pod(pod: Object) -> bool:
    return not is_finished_pod(pod) and not meta(pod).get("deletionTimestamp")


def pod_qos(pod: Object) -> str:
    """The quality-of-service class: what the status says, else what the resources make of it."""
    known: str | None = (pod.get("status") or {}).get("qosClass")
    return known or qos_class(pod["spec"])


def qos_class(spec: Object) -> str:
    """Guaranteed, Burstable or BestEffort, by CPU and memory alone."""
    whole = spec.get("resources")
    holders = [spec] if whole else [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    sums: dict[str, dict[str, float]] = {"requests": {}, "limits": {}}
    guaranteed = True
    for holder in holders:
        for kind, total in sums.items():
            given = (holder.get("resources") or {}).get(kind) or {}
            found = {name: quantity(given[name]) for name in ("cpu", "memory") if name in given}
            for name, amount in found.items():
                if amount > 0:
                    total[name] = total.get(name, 0.0) + amount
            if kind == "limits" and not all(found.get(name) for name in ("cpu", "memory")):
                guaranteed = False
    if not sums["requests"] and not sums["limits"]:
        return "BestEffort"
    return "Guaranteed" if guaranteed and sums["requests"] == sums["limits"] else "Burstable"


def stable_hash(value: Any, length: int = 10) -> str:
    """A short name-safe hash of a JSON value, the same in every process."""
    digest = hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).digest()
    return "".join(_NAME_LETTERS[byte % len(_NAME_LETTERS)] for byte in digest[:length])


def pod_requests(pod: Object) -> dict[str, float]:
    """What the scheduler reserves: all containers and sidecars, or the largest init container if that is more."""
    spec = pod["spec"]
    total: dict[str, float] = {}
    peak: dict[str, float] = {}

    def add(into: dict[str, float], requests: dict[str, float]) -> None:
        for name, amount in requests.items():
            into[name] = into.get(name, 0.0) + amount

    for container in spec.get("containers") or []:
        add(total, container_requests(container))
    sidecars: dict[str, float] = {}
    for container in spec.get("initContainers") or []:
        requests = container_requests(container)
        if container.get("restartPolicy") == "Always":
            add(sidecars, requests)
        else:
            together = dict(sidecars)
            add(together, requests)
            for name, amount in together.items():
                peak[name] = max(peak.get(name, 0.0), amount)
    add(total, sidecars)
    for name, amount in peak.items():
        total[name] = max(total.get(name, 0.0), amount)
    add(total, {k: quantity(v) for k, v in (spec.get("overhead") or {}).items()})
    return total


def container_requests(container: Object) -> dict[str, float]:
    """Requests of one container; a limit stands for a request that is not given."""
    resources = container.get("resources") or {}
    merged = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {name: quantity(amount) for name, amount in merged.items()}
