"""LimitRange admission: whether what pods and claims ask for lies within the bounds of their namespace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mizzen_local.api import status
from mizzen_local.client import Object
from mizzen_local.quantities import Amounts, Quantity, amounts
from mizzen_local.quotas import pod_total

if TYPE_CHECKING:
    from mizzen_local.api.machinery import Machinery

LIMIT_RANGES = "/limitranges"


def check_pod(machinery: Machinery, pod: Object, old: Object | None) -> None:
    if old is None:  # what a pod asks for stays as it was created
        _check(machinery, "pods", pod)


def check_claim(machinery: Machinery, claim: Object, old: Object | None) -> None:
    if old is None or "deletionTimestamp" not in old["metadata"]:
        _check(machinery, "persistentvolumeclaims", claim)


def _check(machinery: Machinery, plural: str, obj: Object) -> None:
    meta = obj["metadata"]
    for entry in machinery.store.entries(LIMIT_RANGES, meta["namespace"]):
        found = list(dict.fromkeys(problems(entry.obj["spec"].get("limits") or [], plural, obj["spec"])))
        if found:
            why = found[0] if len(found) == 1 else f"[{', '.join(found)}]"
            raise status.forbidden(plural, "", meta["name"], why)


def problems(limits: list[Object], plural: str, spec: Object) -> Iterator[str]:
    """Everything that breaks a bound, in the words of the real server."""
    for limit in limits:
        kind = limit.get("type")
        if plural == "persistentvolumeclaims":
            if kind == "PersistentVolumeClaim":
                requests = amounts((spec.get("resources") or {}).get("requests"))
                yield from _below(kind, limit, requests, {})
                yield from _storage_above(limit, requests)
        elif kind == "Container":
            for container in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
                given = container.get("resources") or {}
                yield from _bounds(kind, limit, amounts(given.get("requests")), amounts(given.get("limits")))
        elif kind == "Pod":
            yield from _bounds(kind, limit, pod_total(spec, "requests"), pod_total(spec, "limits"))


def _bounds(kind: str, limit: Object, requests: Amounts, limits: Amounts) -> Iterator[str]:
    yield from _below(kind, limit, requests, limits)
    yield from _above(kind, limit, requests, limits)
    for name, most in amounts(limit.get("maxLimitRequestRatio")).items():
        words = f"{name} max limit to request ratio per {kind} is {most}"
        if not requests.get(name, Quantity()).nanos:
            yield f"{words}, but no request is specified or request is 0"
        elif not limits.get(name, Quantity()).nanos:
            yield f"{words}, but no limit is specified or limit is 0"
        elif (ratio := limits[name].nanos / requests[name].nanos) * 10**9 > most.nanos:
            yield f"{words}, but provided ratio is {ratio:f}"


def _below(kind: str, limit: Object, requests: Amounts, limits: Amounts) -> Iterator[str]:
    for name, least in amounts(limit.get("min")).items():
        words = f"minimum {name} usage per {kind} is {least}"
        if name not in requests:
            yield f"{words}.  No request is specified"
        elif requests[name] < least:
            yield f"{words}, but request is {requests[name]}"
        elif name in limits and limits[name] < least:
            yield f"{words}, but limit is {limits[name]}"


def _above(kind: str, limit: Object, requests: Amounts, limits: Amounts) -> Iterator[str]:
    for name, most in amounts(limit.get("max")).items():
        words = f"maximum {name} usage per {kind} is {most}"
        if name not in limits:
            yield f"{words}.  No limit is specified"
        elif limits[name] > most:
            yield f"{words}, but limit is {limits[name]}"
        elif name in requests and requests[name] > most:
            yield f"{words}, but request is {requests[name]}"


def _storage_above(limit: Object, requests: Amounts) -> Iterator[str]:
    """Claims have requests alone."""
    for name, most in amounts(limit.get("max")).items():
        words = f"maximum {name} usage per PersistentVolumeClaim is {most}"
        if name not in requests:
            yield f"{words}.  No request is specified"
        elif requests[name] > most:
            yield f"{words}, but request is {requests[name]}"
