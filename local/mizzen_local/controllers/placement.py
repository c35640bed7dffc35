"""Where a pod may go: nodes with what is left on them, and the filters of kube-scheduler with their words. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from mizzen_local.client import Object
from mizzen_local.controllers import podaffinity
from mizzen_local.objects import is_true, meta, pod_requests, quantity, requirement_holds

_ANY = "0.0.0.0"  # noqa: S104 - of a pod's port, not of ours
_SPARE = 1e-9  # sums of decimal fractions are not exact


@dataclass
class Room:
    """A node, its pods, and what is left on it."""

    node: Object
    free: dict[str, float] = field(default_factory=dict)
    pods: list[Object] = field(default_factory=list)

    @classmethod
    def of(cls, node: Object, pods: Iterable[Object]) -> Room:
        room = cls(node, dict(allocatable(node)))
        for pod in pods:
            room.take(pod)
        return room

    def take(self, pod: Object) -> None:
        self.pods.append(pod)
        self._move(pod, -1)

    def release(self, pod: Object) -> None:
        """As if the pod were not there."""
        self.pods = [other for other in self.pods if meta(other)["uid"] != meta(pod)["uid"]]
        self._move(pod, 1)

    def _move(self, pod: Object, sign: int) -> None:
        for name, amount in {**pod_requests(pod), "pods": 1.0}.items():
            self.free[name] = self.free.get(name, 0.0) + sign * amount


class Misfit(NamedTuple):
    """Why a pod cannot go to a node; `helpless` where no other pod's leaving would change that."""

    reasons: list[str]
    helpless: bool


def allocatable(node: Object) -> dict[str, float]:
    found = (node.get("status") or {}).get("allocatable") or {}
    return {name: quantity(amount) for name, amount in found.items()}


def tolerates(pod: Object, taint: Object) -> bool:
    for entry in pod["spec"].get("tolerations") or []:
        if entry.get("effect") and entry["effect"] != taint["effect"]:
            continue
        if entry.get("operator", "Equal") == "Exists":
            if entry.get("key") in (None, "", taint["key"]):
                return True
        elif entry.get("key") == taint["key"] and (entry.get("value") or "") == (taint.get("value") or ""):
            return True
    return False


def taints(node: Object) -> list[Object]:
    """The node's taints, and those that a node lifecycle controller would give it for its state."""
    found = list((node.get("spec") or {}).get("taints") or [])
    if not is_true(node, "Ready") and all(taint["key"] != "node.kubernetes.io/not-ready" for taint in found):
        found.append({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"})
    return found


def affinity_holds(pod: Object, node: Object) -> bool:
    labels = meta(node).get("labels") or {}
    if not (pod["spec"].get("nodeSelector") or {}).items() <= labels.items():
        return False
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    names = {"metadata.name": meta(node)["name"]}
    return any(
        all(requirement_holds(r, labels) for r in term.get("matchExpressions") or [])
        and all(requirement_holds(r, names) for r in term.get("matchFields") or [])
        for term in required["nodeSelectorTerms"]
        if term.get("matchExpressions") or term.get("matchFields")
    )


def _unschedulable(pod: Object, room: Room, _: list[Room]) -> Misfit | None:
    taint = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    if (room.node.get("spec") or {}).get("unschedulable") and not tolerates(pod, taint):
        return Misfit(["node(s) were unschedulable"], True)
    return None


def _tainted(pod: Object, room: Room, _: list[Room]) -> Misfit | None:
    hard = [taint for taint in taints(room.node) if taint["effect"] in ("NoSchedule", "NoExecute")]
    if (room.node.get("spec") or {}).get("unschedulable"):
        hard = [taint for taint in hard if taint["key"] != "node.kubernetes.io/unschedulable"]
    if all(tolerates(pod, taint) for taint in hard):
        return None
    return Misfit(["node(s) had untolerated taint(s)"], True)


def _elsewhere(pod: Object, room: Room, _: list[Room]) -> Misfit | None:
    if affinity_holds(pod, room.node):
        return None
    return Misfit(["node(s) didn't match Pod's node affinity/selector"], True)


def _ports_taken(pod: Object, room: Room, _: list[Room]) -> Misfit | None:
    wanted = host_ports(pod)
    if wanted and any(_clash(one, other) for one in wanted for there in room.pods for other in host_ports(there)):
        return Misfit(["node(s) didn't have free ports for the requested pod ports"], False)
    return None


def host_ports(pod: Object) -> list[tuple[str, str, int]]:
    """(address, protocol, port) on the node that the pod's containers want."""
    spec = pod["spec"]
    return [
        (port.get("hostIP") or _ANY, port.get("protocol", "TCP"), port["hostPort"])
        for container in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]
        for port in container.get("ports") or []
        if port.get("hostPort")
    ]


def _clash(one: tuple[str, str, int], other: tuple[str, str, int]) -> bool:
    anywhere = _ANY in (one[0], other[0])
    return one[1:] == other[1:] and (anywhere or one[0] == other[0])


def _too_large(pod: Object, room: Room, _: list[Room]) -> Misfit | None:
    reasons = ["Too many pods"] if room.free.get("pods", 0.0) < 1 else []
    whole = allocatable(room.node)
    helpless = False
    for name, amount in pod_requests(pod).items():
        if amount and amount > room.free.get(name, 0.0) + _SPARE:
            reasons.append(f"Insufficient {name}")
            helpless = helpless or amount > whole.get(name, 0.0) + _SPARE
    return Misfit(reasons, helpless) if reasons else None


def _spread(pod: Object, room: Room, rooms: list[Room]) -> Misfit | None:
    eligible = [other for other in rooms if affinity_holds(pod, other.node)]
    reason = podaffinity.spread_problem(pod, _place(room), [_place(other) for other in eligible])
    return Misfit([reason], reason.endswith("(missing required label)")) if reason else None


def _apart(pod: Object, room: Room, rooms: list[Room]) -> Misfit | None:
    reason = podaffinity.affinity_problem(pod, _place(room), [_place(other) for other in rooms])
    return Misfit([reason], reason == podaffinity.NOT_NEAR) if reason else None


def _place(room: Room) -> podaffinity.Place:
    return podaffinity.Place(meta(room.node).get("labels") or {}, room.pods)


# in kube-scheduler's order: the first that fails tells why
_FILTERS: tuple[Callable[[Object, Room, list[Room]], Misfit | None], ...] = (
    _unschedulable, _tainted, _elsewhere, _ports_taken, _too_large, _spread, _apart,
)  # fmt: skip


def misfit(pod: Object, room: Room, rooms: list[Room]) -> Misfit | None:
    """Why the pod cannot go there, None when it can."""
    return next((found for each in _FILTERS if (found := each(pod, room, rooms)) is not None), None)


def summary(rooms: int, reasons: Iterable[str]) -> str:
    """`0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable.`"""
    listed = ", ".join(sorted(f"{count} {reason}" for reason, count in Counter(reasons).items()))
    return f"0/{rooms} nodes are available: {listed}."


def choose(pod: Object, rooms: list[Room]) -> tuple[Room | None, dict[str, Misfit]]:
    """The emptiest node that fits, or why none does, by the node's name."""
    misfits: dict[str, Misfit] = {}
    fitting = []
    for room in rooms:
        why = misfit(pod, room, rooms)
        if why is None:
            fitting.append(room)
        else:
            misfits[meta(room.node)["name"]] = why
    nominated = (pod.get("status") or {}).get("nominatedNodeName")
    best = max(
        fitting,
        key=lambda room: (meta(room.node)["name"] == nominated, room.free.get("cpu", 0.0)),
        default=None,
    )
    return best, misfits
