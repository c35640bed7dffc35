"""Scheduler: between a pending pod and a node, places pods by what they request; what fits nowhere stays pending."""

from __future__ import annotations

from mizzen_local.client import ApiError, Client, Object
from mizzen_local.controllers import preemption
from mizzen_local.controllers.informer import Informers, Worker
from mizzen_local.controllers.placement import Misfit, Room, choose, summary
from mizzen_local.controllers.preemption import Candidate, priority
from mizzen_local.objects import (
    Key,
    condition,
    is_finished_pod,
    is_true,
    key_of,
    meta,
    rfc3339,
    utc_now,
    with_condition,
)
from mizzen_local.recorder import Recorder
from mizzen_local.resources import BUDGETS, NODES, PODS

_NO_NODES = "no nodes available to schedule pods"
_NO_CLAIMS = "no new claims to deallocate"  # what the plugin of dynamic resources tells of every pod without any


def order(pod: Object) -> tuple[int, str, str]:
    return -priority(pod), meta(pod).get("creationTimestamp") or "", meta(pod)["name"]


class Scheduler:
    """One pass over all pending pods whenever a pod or a node changed: small clusters, simple code."""

    def __init__(self, client: Client, informers: Informers, name: str = "default-scheduler") -> None:
        self.client, self.name, self.recorder = client, name, Recorder(client, name)
        self.pods, self.nodes, self.budgets = informers.of(PODS), informers.of(NODES), informers.of(BUDGETS)
        self.worker = Worker[str]("scheduler", self.reconcile, workers=1)
        self._seen: dict[str, str] = {}
        self._told: dict[Key, str] = {}
        self.pods.on_change(self._pod_changed, deleted=self._pod_gone)
        self.nodes.on_change(self._node_changed, deleted=lambda _: self.worker.queue.add("all"))

    def _pod_changed(self, pod: Object) -> None:
        if is_finished_pod(pod) or not pod["spec"].get("nodeName"):
            self.worker.queue.add("all")

    def _pod_gone(self, pod: Object) -> None:
        self._told.pop(key_of(pod), None)
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
            try:
                await self._place(pod, rooms)
            except ApiError as error:
                if error.code not in (404, 409):
                    raise
        return None

    async def _place(self, pod: Object, rooms: list[Room]) -> None:
        if not rooms:
            await self._explain(pod, _NO_NODES)
            return
        room, misfits = choose(pod, rooms)
        if room is not None:
            await self._bind(pod, meta(room.node)["name"])
            room.take(pod)
            return
        await self._make_room(pod, rooms, misfits)

    async def _make_room(self, pod: Object, rooms: list[Room], misfits: dict[str, Misfit]) -> None:
        """Preempt, or tell why not. A node that waits for its victims to go is taken already."""
        why = summary(len(rooms), [reason for found in misfits.values() for reason in found.reasons])
        candidate, reason = preemption.preempt(pod, rooms, misfits, self.budgets.cache.values())
        if candidate is not None:
            await self._preempt(pod, candidate)
            await self._explain(pod, why, meta(candidate.room.node)["name"])
            candidate.room.take(pod)
            return
        nominated = (pod.get("status") or {}).get("nominatedNodeName")
        waiting = reason.endswith("nominated node.")
        for room in rooms if waiting else []:
            if meta(room.node)["name"] == nominated:
                room.take(pod)
        if not waiting:  # while its victims go, the pod goes on saying what it lacks
            why = f"{why} {_NO_CLAIMS}, preemption: {reason}"
        await self._explain(pod, why, nominated if waiting else None)

    async def _preempt(self, pod: Object, candidate: Candidate) -> None:
        node = meta(candidate.room.node)["name"]
        for other in list(self.pods.cache.values()):
            nominated = (other.get("status") or {}).get("nominatedNodeName")
            if nominated == node and self._waits(other) and priority(other) < priority(pod):
                await self._patch_status(other, {"status": {"nominatedNodeName": None}})
        for victim in candidate.victims:
            if meta(victim).get("deletionTimestamp"):
                continue
            try:
                await self._patch_status(victim, preemption.marked(victim, self.name, utc_now()))
                namespace, name = key_of(victim)
                answer = await self.client.delete(PODS, name, namespace, uid=meta(victim)["uid"])
            except ApiError as error:
                if error.code not in (404, 409):
                    raise
                continue
            if (answer.get("metadata") or {}).get("deletionTimestamp"):
                self.pods.observe(answer)
            else:
                self.pods.forget(victim)
            self.recorder.event(victim, "Pod", "Preempted", f"Preempted by pod {meta(pod)['uid']} on node {node}")

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

    async def _explain(self, pod: Object, why: str, nominated: str | None = None) -> None:
        """Say once why the pod waits, and on which node it will run when its victims have gone."""
        current = self.pods.get(key_of(pod)) or pod
        before = condition(current, "PodScheduled")
        status: Object = {}
        if ((current.get("status") or {}).get("nominatedNodeName") or None) != nominated:
            status["nominatedNodeName"] = nominated
        if before is None or before.get("message") != why or before["status"] != "False":
            found = (current.get("status") or {}).get("conditions")
            now = rfc3339(utc_now())
            status["conditions"] = with_condition(found, "PodScheduled", "False", "Unschedulable", why, now)
        if status:
            await self._patch_status(current, {"status": status})
        if self._told.get(key_of(pod)) != why:
            self._told[key_of(pod)] = why
            self.recorder.event(pod, "Pod", "FailedScheduling", why, type="Warning")

    async def _patch_status(self, pod: Object, patch: Object) -> None:
        namespace, name = key_of(pod)
        patch = {"metadata": {"uid": meta(pod)["uid"]}, **patch}
        self.pods.observe(await self.client.patch(PODS, name, patch, namespace, subresource="status"))
