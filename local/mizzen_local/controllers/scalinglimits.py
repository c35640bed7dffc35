"""How fast an autoscaler may move: stabilization windows, rates of change, and its bounds. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from mizzen_local.client import Object

DOWNSCALE_STABILIZATION = 300  # seconds
_WITHIN = ("DesiredWithinRange", "the desired count is within the acceptable range")
_TOO_FEW = ("TooFewReplicas", "the desired replica count is less than the minimum replica count")
_TOO_MANY = ("TooManyReplicas", "the desired replica count is more than the maximum replica count")
_UP_LIMIT = ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate")
_DOWN_LIMIT = ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate")
_READY = ("ReadyForNewScale", "recommended size matches current size")
_UP_STABILIZED = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
)
_DOWN_STABILIZED = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
)
Change = tuple[datetime, int]


@dataclass(frozen=True)
class History:
    """What an autoscaler remembers between two looks: recommendations, and changes up and down with their sizes."""

    recommendations: tuple[Change, ...] = ()
    ups: tuple[Change, ...] = ()
    downs: tuple[Change, ...] = ()

    def recommended(self, replicas: int, now: datetime, window: float) -> History:
        kept = tuple(entry for entry in self.recommendations if entry[0] >= now - timedelta(seconds=window))
        return replace(self, recommendations=(*kept, (now, replicas)))

    def changed(self, behavior: Object | None, before: int, after: int, now: datetime) -> History:
        """Changes count only against the policies of a behavior."""
        if behavior is None:
            return self
        if after > before:
            return replace(self, ups=(*_recent(self.ups, behavior["scaleUp"], now), (now, after - before)))
        return replace(self, downs=(*_recent(self.downs, behavior["scaleDown"], now), (now, before - after)))


@dataclass(frozen=True)
class Limited:
    """The replicas allowed now; `able` and `why` are (reason, message) of AbleToScale and ScalingLimited."""

    replicas: int
    history: History
    able: tuple[str, str]
    limited: bool
    why: tuple[str, str]


def _recent(changes: tuple[Change, ...], rules: Object, now: datetime) -> tuple[Change, ...]:
    longest = max((policy["periodSeconds"] for policy in rules.get("policies") or []), default=0)
    return tuple(change for change in changes if change[0] >= now - timedelta(seconds=longest))


def limit(autoscaler: Object, current: int, desired: int, history: History, now: datetime) -> Limited:
    """From what the metrics want to what may be done now."""
    spec = autoscaler["spec"]
    least, most = spec.get("minReplicas", 1), spec["maxReplicas"]
    behavior = spec.get("behavior")
    if behavior is None:
        return _without_behavior(current, desired, least, most, history, now)
    up, down = behavior["scaleUp"], behavior["scaleDown"]
    stable, able, history = _stabilized(current, desired, up, down, history, now)
    allowed, why = _rated(current, stable, least, most, up, down, history, now)
    return Limited(allowed, history, _READY if stable == desired else able, allowed != stable, why)


def _without_behavior(current: int, desired: int, least: int, most: int, history: History, now: datetime) -> Limited:
    history = history.recommended(desired, now, DOWNSCALE_STABILIZATION)
    stable = max(replicas for _, replicas in history.recommendations)
    fastest = max(2 * current, 4)
    allowed, why = stable, _WITHIN
    if stable < least:
        allowed, why = least, _TOO_FEW
    elif stable > min(most, fastest):
        allowed, why = (fastest, _UP_LIMIT) if most > fastest else (most, _TOO_MANY)
    return Limited(allowed, history, _READY if stable == desired else _DOWN_STABILIZED, allowed != stable, why)


def _stabilized(
    current: int, desired: int, up: Object, down: Object, history: History, now: datetime
) -> tuple[int, tuple[str, str], History]:
    """Within the lowest recommendation of the window upwards and the highest of the window downwards."""
    up_window = up.get("stabilizationWindowSeconds", 0)
    down_window = down.get("stabilizationWindowSeconds", DOWNSCALE_STABILIZATION)
    lowest = highest = desired
    for at, replicas in history.recommendations:
        if at > now - timedelta(seconds=up_window):
            lowest = min(lowest, replicas)
        if at > now - timedelta(seconds=down_window):
            highest = max(highest, replicas)
    stable = min(max(current, lowest), highest)
    able = _UP_STABILIZED if desired >= current else _DOWN_STABILIZED
    return stable, able, history.recommended(desired, now, max(up_window, down_window))


def _rated(
    current: int, desired: int, least: int, most: int, up: Object, down: Object, history: History, now: datetime
) -> tuple[int, tuple[str, str]]:
    if desired > current:
        fastest = max(current, _up_limit(current, up, history, now))
        allowed, why = (fastest, _UP_LIMIT) if most > fastest else (most, _TOO_MANY)
        return (allowed, why) if desired > allowed else (desired, _WITHIN)
    if desired < current:
        slowest = min(current, _down_limit(current, down, history, now))
        allowed, why = (slowest, _DOWN_LIMIT) if least < slowest else (least, _TOO_FEW)
        return (allowed, why) if desired < allowed else (desired, _WITHIN)
    return desired, _WITHIN


def _at_period_start(current: int, policy: Object, history: History, now: datetime) -> int:
    cutoff = now - timedelta(seconds=policy["periodSeconds"])
    added = sum(size for at, size in history.ups if at > cutoff)
    removed = sum(size for at, size in history.downs if at > cutoff)
    return int(current - added + removed)


def _up_limit(current: int, rules: Object, history: History, now: datetime) -> int:
    if rules["selectPolicy"] == "Disabled":
        return current
    proposed: list[int] = []
    for policy in rules["policies"]:
        start = _at_period_start(current, policy, history, now)
        percent = math.ceil(start * (1 + policy["value"] / 100))
        proposed.append(start + policy["value"] if policy["type"] == "Pods" else percent)
    return min(proposed) if rules["selectPolicy"] == "Min" else max(proposed)


def _down_limit(current: int, rules: Object, history: History, now: datetime) -> int:
    if rules["selectPolicy"] == "Disabled":
        return current
    proposed: list[int] = []
    for policy in rules["policies"]:
        start = _at_period_start(current, policy, history, now)
        percent = int(start * (1 - policy["value"] / 100))
        proposed.append(start - policy["value"] if policy["type"] == "Pods" else percent)
    return max(proposed) if rules["selectPolicy"] == "Min" else min(proposed)
