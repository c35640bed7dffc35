"""Conditions by the Kubernetes API conventions: how planners write them, and the events that their changes make."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

from mizzen_api.conditions import ConditionType, Reason
from mizzen_api.meta import Condition
from mizzen_operator.plan import Event, Resource

Truth = Literal["True", "False", "Unknown"]
# Reasons that a person should look at; `kubectl describe` marks their events.
_WORRYING = frozenset(Reason) - {
    Reason.PENDING,
    Reason.SUSPENDED,
    Reason.RUNNING,
    Reason.SUCCEEDED,
    Reason.MATERIALIZING,
    Reason.MATERIALIZED,
    Reason.REFRESHING,
    Reason.UNCHANGED,
    Reason.MEASURED,
    Reason.GOAL_REACHED,
    Reason.DEPLOYING,
    Reason.AVAILABLE,
    Reason.DATASET_NOT_READY,
    Reason.SEARCH_JOB_NOT_FINISHED,
    Reason.QUEUED,
    Reason.RESIZED,
    Reason.RECOVERED,
    Reason.CHECKPOINTED,
}
_MESSAGE_LIMIT = 1500


def with_condition(
    resource: Resource, kind: ConditionType, status: Truth, reason: Reason, message: str, now: datetime
) -> list[Condition]:
    """The resource's conditions with this one in its place; the transition time moves only with the status."""
    old = resource.status.condition(kind)
    new = Condition(
        type=kind.value,
        status=status,
        reason=reason.value,
        message=shortened(message),
        last_transition_time=old.last_transition_time if old and old.status == status else now,
        observed_generation=resource.metadata.generation,
    )
    kept = [c for c in resource.status.conditions if c.type != kind]
    return sorted([*kept, new], key=lambda c: c.type)


def events_of(resource: Resource, conditions: Sequence[Condition]) -> tuple[Event, ...]:
    """One event for each condition whose status or reason is new."""

    def is_new(condition: Condition) -> bool:
        old = resource.status.condition(condition.type)
        return old is None or (old.status, old.reason) != (condition.status, condition.reason)

    return tuple(
        Event("Warning" if c.reason in _WORRYING else "Normal", c.reason, c.message) for c in conditions if is_new(c)
    )


def shortened(text: str) -> str:
    """The end of a long text: of a traceback, the last lines say what happened."""
    return text if len(text) <= _MESSAGE_LIMIT else "… " + text[-_MESSAGE_LIMIT:]


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """JSON has no NaN; a metric that diverged is left out."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def rfc3339(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
