"""Scheduler: between a pending pod and a node, places pods by what they request; what fits nowhere stays pending."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from mizzen_local.client import ApiError, Client, Object
from mizzen_local.controllers.informer import Informers, Worker
from mizzen_local.objects import (
    Key,
    condition,
    is_finished_pod,
    is_true,
    key_of,
    meta,
    pod_requests,
    quantity,
    requirement_holds,
    rfc3339,
    utc_now,
    with_condition,
)
from mizzen_local.recorder import Recorder
from mizzen_local.resources import NODES, PODS


@dataclass
class Room:
    """A node and what is left on it."""

    node: Object
    free: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, node: Object, pods: Iterable[Object]) -> Room:
        allocatable = (node.get("status") or {}).get("allocatable") or {}
        room = cls(node, {name: quantity(amount) for name, amount in allocatable.items()})
        for pod in pods:
            room.take(pod)
        return room

    def take(self, pod: Object) -> None:
        for name, amount in {**pod_requests(pod), "pods": 1.0}.items():
            self.free[name] = self.free.get(name, 0.0) - amount


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
    )


def misfits(pod: Object, room: Room) -> list[str]:
    """Why the pod cannot go there, in the words of kube-scheduler; nothing when it can."""
    if (room.node.get("spec") or {}).get("unschedulable"):
        return ["node(s) were unschedulable"]
    if not is_true(room.node, "Ready"):
        return ["node(s) were not ready"]
    for taint in (room.node.get("spec") or {}).get("taints") or []:
        if taint["effect"] in ("NoSchedule", "NoExecute") and not tolerates(pod, taint):
            return [f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value') or ''}}}"]
    if not affinity_holds(pod, room.node):
        return ["node(s) didn't match Pod's node affinity/selector"]
    wanted = pod_requests(pod)
    missing = [f"Insufficient {n}" for n, amount in wanted.items() if amount and amount > room.free.get(n, 0.0) + 1e-9]
    return missing + (["Too many pods"] if room.free.get("pods", 0.0) < 1 else [])


def choose(pod: Object, rooms: list[Room]) -> tuple[Room | None, str]:
    """The emptiest node that fits, or the message of the FailedScheduling event."""
    reasons: Counter[str] = Counter()
    fitting = []
    for room in rooms:
        why = misfits(pod, room)
        reasons.update(why)
        if not why:
            fitting.append(room)
    if fitting:
        return max(fitting, key=lambda room: room.free.get("cpu", 0.0)), ""
    if not rooms:
        return None, "no nodes available to schedule pods"
    listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    return None, f"0/{len(rooms)} nodes are available: {listed}."


def order(pod: Object) -> tuple[int, str, str]:
    return -(pod["spec"].get("priority") or 0), meta(pod).get("creationTimestamp") or "", meta(pod)["name"]


class Scheduler:
    """One pass over all pending pods whenever a pod or a node changed: small clusters, simple code."""

    def __init__(self, client: Client, informers: Informers, name: str = "default-scheduler") -> None:
        self.client, self.name, self.recorder = client, name, Recorder(client, name)
        self.pods, self.nodes = informers.of(PODS), informers.of(NODES)
        self.worker = Worker[str]("scheduler", self.reconcile, workers=1)
        self._seen: dict[str, str] = {}
        self._told: dict[Key, str] = {}
        self.pods.on_change(self._pod_changed, deleted=lambda _: self.worker.queue.add("all"))
        self.nodes.on_change(self._node_changed, deleted=lambda _: self.worker.queue.add("all"))

    def _pod_changed(self, pod: Object) -> None:
        if is_finished_pod(pod) or not pod["spec"].get("nodeName"):
            self.worker.queue.add("all")

    def _node_changed(self, node: Object) -> None:
        """Heartbeats change nothing that matters here."""
        digest = repr(
            (
                node.get("spec"),
                (node.get("status") or {}).get("allocatable"),
                meta(node).get("labels"),
                is_true(node, "Ready"),
            )
        )
        if self._seen.get(meta(node)["name"]) != digest:
            self._seen[meta(node)["name"]] = digest
            self.worker.queue.add("all")

    def _waits(self, pod: Object) -> bool:
        spec = pod["spec"]
        return (
            not spec.get("nodeName")
            and not is_finished_pod(pod)
            and not meta(pod).get("deletionTimestamp")
            and not spec.get("schedulingGates")
            and spec.get("schedulerName", self.name) == self.name
        )

    async def reconcile(self, _: str) -> float | None:
        pending = sorted((pod for pod in self.pods.cache.values() if self._waits(pod)), key=order)
        if not pending:
            return None
        placed: dict[str, list[Object]] = {}
        for pod in self.pods.cache.values():
            if pod["spec"].get("nodeName") and not is_finished_pod(pod):
                placed.setdefault(pod["spec"]["nodeName"], []).append(pod)
        rooms = [Room.of(node, placed.get(meta(node)["name"], [])) for node in self.nodes.cache.values()]
        for pod in pending:
            room, why = choose(pod, rooms)
            try:
                if room is not None:
                    await self._bind(pod, meta(room.node)["name"])
                    room.take(pod)
                else:
                    await self._explain(pod, why)
            except ApiError as error:
                if error.code not in (404, 409):
                    raise
        return None

    async def _bind(self, pod: Object, node: str) -> None:
        namespace, name = key_of(pod)
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": meta(pod)["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        await self.client.create(PODS, binding, namespace, name=name, subresource="binding")
        self._told.pop(key_of(pod), None)
        try:
            self.pods.observe(await self.client.get(PODS, name, namespace))
        except ApiError as error:
            if error.code != 404:
                raise
        self.recorder.event(pod, "Pod", "Scheduled", f"Successfully assigned {namespace}/{name} to {node}")

    async def _explain(self, pod: Object, why: str) -> None:
        if self._told.get(key_of(pod)) == why:
            return
        self._told[key_of(pod)] = why
        before = condition(pod, "PodScheduled")
        if before is None or before.get("message") != why or before["status"] != "False":
            found = (pod.get("status") or {}).get("conditions")
            conditions = with_condition(found, "PodScheduled", "False", "Unschedulable", why, rfc3339(utc_now()))
            namespace, name = key_of(pod)
            patch = {"status": {"conditions": conditions}}
            self.pods.observe(await self.client.patch(PODS, name, patch, namespace, subresource="status"))
        self.recorder.event(pod, "Pod", "FailedScheduling", why, type="Warning")
