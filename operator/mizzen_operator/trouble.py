"""Rounds that fail before a plan is made: what reconcile.py then writes into the resource itself. Pure.

Works on JSON: the resource may be one that its model does not take.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from mizzen_api.conditions import USER_ERRORS, ConditionType, Reason
from mizzen_operator.errors import InvalidResource
from mizzen_operator.plan import Key, Manifest
from mizzen_operator.planners.conditions import rfc3339, shortened

_SHOWN = 5
_JOBS = ("SearchJob", "TrainingJob")


@dataclass(frozen=True)
class Told:
    """What a resource was told of its trouble, so that it is told once."""

    generation: int
    reason: Reason
    message: str


def invalid(key: Key, error: ValidationError) -> InvalidResource:
    """The fields that are wrong, in the words of the model."""
    found = error.errors(include_url=False, include_context=False)
    fields = [f"{_path(each['loc'])}: {each['msg']}" for each in found[:_SHOWN]]
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    users = any(each["loc"][:1] == ("spec",) for each in found)
    reason = Reason.INVALID_PARAMETERS if users else Reason.INTERNAL_ERROR
    return InvalidResource(reason, f"{key} cannot be understood: {'; '.join(fields)}{more}")


def internal(key: Key, error: Exception) -> str:
    """For what nobody foresaw."""
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"The operator failed on this {key.kind} and tries again ({what}); its log says where. Please report it"


def status(found: Manifest, told: Told, now: datetime) -> dict[str, Any] | None:
    """The status with the trouble in its condition; None where that would hide an outcome which still holds.

    The condition names no generation: the planners take up what they have not seen yet.
    """
    job = found["kind"] in _JOBS
    kind = ConditionType.SUCCEEDED if job else ConditionType.READY
    present: dict[str, Any] = found.get("status") or {}
    conditions: list[dict[str, Any]] = present.get("conditions") or []
    old = next((condition for condition in conditions if condition.get("type") == kind), None)
    if old is not None and _holds(old, job, told.generation):
        return None
    truth = "Unknown" if job else "False"
    moved = old is None or old.get("status") != truth
    new = {
        "type": kind.value,
        "status": truth,
        "reason": told.reason.value,
        "message": shortened(told.message),
        "lastTransitionTime": rfc3339(now) if moved else (old or {})["lastTransitionTime"],
    }
    kept = [condition for condition in conditions if condition.get("type") != kind]
    return {**present, "conditions": sorted([*kept, new], key=lambda condition: str(condition["type"]))}


def _holds(condition: dict[str, Any], job: bool, generation: int) -> bool:
    """A job that has ended stays so; of the others, what this very generation came to."""
    if job:
        return bool(condition["status"] != "Unknown")
    ended = condition["status"] == "True" or condition["reason"] in USER_ERRORS
    return ended and condition.get("observedGeneration") == generation


def _path(location: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
