"""The arithmetic of an autoscaler's metric: from pods and what they use to how many pods there should be. Pure.

Amounts are whole thousandths, as kube-controller-manager counts them, so that both round alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from mizzen_local.client import Object
from mizzen_local.objects import condition, is_true, meta, parse_time, quantity

CPU_INITIALIZATION = timedelta(minutes=5)  # a starting pod burns CPU that says nothing of its load
INITIAL_READINESS_DELAY = timedelta(seconds=30)


class NoProposalError(Exception):
    """Why a metric says nothing, in the words of the condition."""


@dataclass(frozen=True)
class Sample:
    """What one pod uses, in thousandths, measured over `window` seconds until `at`."""

    value: int
    at: datetime
    window: float


Samples = dict[str, Sample]  # by the pod's name


@dataclass(frozen=True)
class Tolerances:
    down: float = 0.1
    up: float = 0.1

    def hold(self, ratio: float) -> bool:
        return 1.0 - self.down <= ratio <= 1.0 + self.up


@dataclass(frozen=True)
class Proposal:
    """`utilization` is a percentage of what the pods request, None where the target is an amount."""

    replicas: int
    average: int
    utilization: int | None = None


@dataclass(frozen=True)
class _Groups:
    ready: int
    unready: frozenset[str]
    missing: frozenset[str]
    ignored: frozenset[str]


def milli(value: str | float) -> int:
    """A quantity in thousandths, rounded up."""
    return math.ceil(round(quantity(value) * 1000, 6))


def by_utilization(
    pods: list[Object],
    samples: Samples,
    current: int,
    target: int,
    resource: str,
    container: str,
    tolerances: Tolerances,
    now: datetime,
) -> Proposal:
    """Towards `target` per cent of the requests. Raises NoProposalError."""
    groups, counted = _grouped(pods, samples, resource, now)
    requests = {meta(pod)["name"]: _requested(pod, container, resource) for pod in pods}

    def measure(values: dict[str, int]) -> tuple[float, int, int]:
        known = {name: value for name, value in values.items() if name in requests}
        total = sum(requests[name] for name in known)
        if not total:
            raise NoProposalError("no metrics returned matched known pods")
        percent = sum(known.values()) * 100 // total
        return percent / target, percent, sum(known.values()) // len(known)

    ratio, percent, average = measure(counted)
    # what is unknown counts against the change: as idle when scaling up, as busy when scaling down
    busy = {name: requests[name] * max(100, target) // 100 for name in groups.missing}
    filled = _filled(counted, groups, ratio, busy)
    again = None if filled is None else (measure(filled)[0], len(filled))
    return Proposal(_replicas(ratio, again, groups.ready, current, tolerances), average, percent)


def by_amount(
    pods: list[Object],
    samples: Samples,
    current: int,
    target: int,
    resource: str,
    tolerances: Tolerances,
    now: datetime,
) -> Proposal:
    """Towards an average of `target` thousandths. Raises NoProposalError."""
    groups, counted = _grouped(pods, samples, resource, now)
    average = sum(counted.values()) // len(counted)
    ratio = average / target
    filled = _filled(counted, groups, ratio, dict.fromkeys(groups.missing, target))
    again = None if filled is None else (sum(filled.values()) // len(filled) / target, len(filled))
    return Proposal(_replicas(ratio, again, groups.ready, current, tolerances), average)


def _grouped(pods: list[Object], samples: Samples, resource: str, now: datetime) -> tuple[_Groups, dict[str, int]]:
    if not pods:
        raise NoProposalError("no pods returned by selector while calculating replica count")
    groups = group(pods, samples, resource, now)
    left_out = groups.ignored | groups.unready
    counted = {name: sample.value for name, sample in samples.items() if name not in left_out}
    if not counted:
        raise NoProposalError("did not receive metrics for targeted pods (pods might be unready)")
    return groups, counted


def group(pods: list[Object], samples: Samples, resource: str, now: datetime) -> _Groups:
    """Who counts as ready, unready, missing or not at all."""
    ready, unready, missing, ignored = 0, set(), set(), set()
    for pod in pods:
        name, phase = meta(pod)["name"], (pod.get("status") or {}).get("phase")
        if meta(pod).get("deletionTimestamp") or phase == "Failed":
            ignored.add(name)
        elif phase == "Pending":
            unready.add(name)
        elif name not in samples:
            missing.add(name)
        elif resource == "cpu" and _warming(pod, samples[name], now):
            unready.add(name)
        else:
            ready += 1
    return _Groups(ready, frozenset(unready), frozenset(missing), frozenset(ignored))


def _warming(pod: Object, sample: Sample, now: datetime) -> bool:
    """Whether a pod's use of CPU does not tell its load yet."""
    found, started = condition(pod, "Ready"), (pod.get("status") or {}).get("startTime")
    if found is None or not started:
        return True
    since, start = parse_time(found.get("lastTransitionTime") or started), parse_time(started)
    if start + CPU_INITIALIZATION > now:
        return not is_true(pod, "Ready") or sample.at < since + timedelta(seconds=sample.window)
    return not is_true(pod, "Ready") and start + INITIAL_READINESS_DELAY > since


def _filled(counted: dict[str, int], groups: _Groups, ratio: float, busy: dict[str, int]) -> dict[str, int] | None:
    """The amounts with guesses for pods that have none; None where there is nothing to guess."""
    scale_up_with_unready = bool(groups.unready) and ratio > 1.0
    if not scale_up_with_unready and not groups.missing:
        return None
    filled = dict(counted)
    if ratio < 1.0:
        filled.update(busy)
    elif ratio > 1.0:
        filled.update(dict.fromkeys(groups.missing, 0))
    if scale_up_with_unready:
        filled.update(dict.fromkeys(groups.unready, 0))
    return filled


def _replicas(ratio: float, again: tuple[float, int] | None, ready: int, current: int, tolerances: Tolerances) -> int:
    if again is None:
        return current if tolerances.hold(ratio) else math.ceil(ratio * ready)
    second, count = again
    if tolerances.hold(second) or (ratio < 1.0 < second) or (second < 1.0 < ratio):
        return current  # guesses never turn the direction
    wanted = math.ceil(second * count)
    turned = (second < 1.0 and wanted > current) or (second > 1.0 and wanted < current)
    return current if turned else wanted


def _requested(pod: Object, container: str, resource: str) -> int:
    """Thousandths that a pod, or one of its containers, requests. Raises NoProposalError."""
    spec = pod["spec"]
    name = meta(pod)["name"]
    whole = (spec.get("resources") or {}).get("requests")
    if whole and not container:
        if resource not in whole:
            raise NoProposalError(f"missing pod-level request for {resource} in Pod {name}")
        return milli(whole[resource])
    sidecars = [c for c in spec.get("initContainers") or [] if c.get("restartPolicy") == "Always"]
    found = [c for c in [*(spec.get("containers") or []), *sidecars] if container in ("", c["name"])]
    if container and not found:
        raise NoProposalError(f"container {container} not found in Pod {name}")
    total = 0
    for entry in found:
        amount = ((entry.get("resources") or {}).get("requests") or {}).get(resource)
        if amount is None:
            raise NoProposalError(f"missing request for {resource} in container {entry['name']} of Pod {name}")
        total += milli(amount)
    return total
