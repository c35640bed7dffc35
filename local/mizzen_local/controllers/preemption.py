"""Preemption: which pods of lower priority have to go so that a pending pod fits, and on which node. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from mizzen_local.client import Object
from mizzen_local.controllers.placement import Misfit, Room, misfit, summary
from mizzen_local.objects import condition, meta, rfc3339, selects

BY_SCHEDULER = "PreemptionByScheduler"
_HELPLESS = "Preemption is not helpful for scheduling"
_NO_VICTIMS = "No preemption victims found for incoming pod"
_OFFSET = 2**31  # makes every victim's priority count as positive, so that fewer victims are better


@dataclass(frozen=True)
class Candidate:
    """A node on which the pod would fit without the victims, the most important of them first."""

    room: Room
    victims: tuple[Object, ...]
    violations: int  # of disruption budgets


def priority(pod: Object) -> int:
    return int(pod["spec"].get("priority") or 0)


def started(pod: Object) -> str:
    return str((pod.get("status") or {}).get("startTime") or "9999")


def _importance(pod: Object) -> tuple[int, str]:
    """Sorts the more important first: by priority, then those that have run longer."""
    return -priority(pod), started(pod)


def not_eligible(pod: Object, rooms: list[Room]) -> str:
    """Why the pod may not preempt at all; empty when it may."""
    if pod["spec"].get("preemptionPolicy") == "Never":
        return "not eligible due to preemptionPolicy=Never."
    nominated = (pod.get("status") or {}).get("nominatedNodeName")
    for room in rooms:
        if meta(room.node)["name"] == nominated and any(_goes_for(other, pod) for other in room.pods):
            return "not eligible due to a terminating pod on the nominated node."
    return ""


def _goes_for(victim: Object, pod: Object) -> bool:
    found = condition(victim, "DisruptionTarget") or {}
    preempted = found.get("status") == "True" and found.get("reason") == BY_SCHEDULER
    return bool(meta(victim).get("deletionTimestamp")) and preempted and priority(victim) < priority(pod)


def preempt(
    pod: Object, rooms: list[Room], misfits: dict[str, Misfit], budgets: Iterable[Object]
) -> tuple[Candidate | None, str]:
    """The best candidate, or what the FailedScheduling event tells after `preemption: `."""
    why = not_eligible(pod, rooms)
    if why:
        return None, why
    candidates: list[Candidate] = []
    reasons: list[str] = []
    listed = list(budgets)
    for room in rooms:
        if misfits[meta(room.node)["name"]].helpless:
            reasons.append(_HELPLESS)
            continue
        found = _victims(pod, room, rooms, listed)
        if isinstance(found, Candidate):
            candidates.append(found)
        else:
            reasons += found
    if not candidates:
        return None, summary(len(rooms), reasons)
    return min(candidates, key=_cost), ""


def _cost(candidate: Candidate) -> tuple[int, int, int, int, tuple[int, ...]]:
    """Fewest broken budgets, least important victims, fewest of them, the latest start of the most important."""
    victims = candidate.victims
    highest = priority(victims[0]) if victims else 0
    since = min((started(victim) for victim in victims if priority(victim) == highest), default="")
    total = sum(priority(victim) + _OFFSET for victim in victims)
    return candidate.violations, highest, total, len(victims), tuple(-ord(letter) for letter in since)


def _victims(pod: Object, room: Room, rooms: list[Room], budgets: list[Object]) -> Candidate | list[str]:
    """All lower pods away, does it fit? Then as many as possible may stay, the important ones first."""
    lower = sorted((other for other in room.pods if priority(other) < priority(pod)), key=_importance)
    if not lower:
        return [_NO_VICTIMS]
    trial = Room(room.node, dict(room.free), list(room.pods))
    around = [trial if other is room else other for other in rooms]
    for other in lower:
        trial.release(other)
    found = misfit(pod, trial, around)
    if found is not None:
        return found.reasons
    guarded, free = _guarded(lower, budgets)
    victims: list[Object] = []
    violations = 0
    for other in [*guarded, *free]:
        trial.take(other)
        if misfit(pod, trial, around) is not None:
            trial.release(other)
            victims.append(other)
            violations += any(other is each for each in guarded)
    return Candidate(room, tuple(sorted(victims, key=_importance)), violations)


def _guarded(pods: list[Object], budgets: list[Object]) -> tuple[list[Object], list[Object]]:
    """Pods whose leaving would break a budget, and the others."""
    allowed = [(budget.get("status") or {}).get("disruptionsAllowed", 0) for budget in budgets]
    guarded: list[Object] = []
    free: list[Object] = []
    for pod in pods:
        broken = False
        for index, budget in enumerate(budgets):
            name, evicted = meta(pod)["name"], (budget.get("status") or {}).get("disruptedPods") or {}
            selector = budget["spec"].get("selector")
            chosen = bool(selector) and selects(selector, meta(pod).get("labels"))
            if meta(budget)["namespace"] != meta(pod)["namespace"] or not chosen or name in evicted:
                continue
            allowed[index] -= 1
            broken = broken or allowed[index] < 0
        (guarded if broken else free).append(pod)
    return guarded, free


def marked(victim: Object, scheduler: str, now: datetime) -> Object:
    """The victim's conditions with the one that tells its owner and its readers why it goes."""
    before = [c for c in (victim.get("status") or {}).get("conditions") or [] if c["type"] != "DisruptionTarget"]
    new = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": BY_SCHEDULER,
        "message": f"{scheduler}: preempting to accommodate a higher priority pod",
        "lastTransitionTime": rfc3339(now),
    }
    return {"status": {"conditions": [*before, new]}}
