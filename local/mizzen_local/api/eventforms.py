"""Events have two forms, of the core group and of events.k8s.io; the core form is stored, the other one converted."""

from __future__ import annotations

from mizzen_local.client import Object

GROUP = "events.k8s.io"
BUCKET = "/events"
# core name to the new one; all other fields have one name
_NAMES = {
    "involvedObject": "regarding",
    "message": "note",
    "reportingComponent": "reportingController",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
}
_CORE_NAMES = {new: core for core, new in _NAMES.items()}


def to_new(event: Object) -> Object:
    return {_NAMES.get(name, name): value for name, value in event.items()} | {"apiVersion": f"{GROUP}/v1"}


def to_core(event: Object) -> Object:
    """The stored form; it always has the fields that its schema asks for."""
    found = {_CORE_NAMES.get(name, name): value for name, value in event.items()} | {"apiVersion": "v1"}
    found.setdefault("involvedObject", {})
    return found
