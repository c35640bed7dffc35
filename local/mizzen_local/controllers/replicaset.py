"""ReplicaSet: between a Deployment and its pods, keeps as many pods of one template as asked for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mizzen_local.client import ApiError, Client, Object
from mizzen_local.controllers.informer import Informers, Worker
from mizzen_local.controllers.pods import available_in, deletion_rank, is_ready, pod_from_template
from mizzen_local.objects import (
    Key,
    condition,
    controller_of,
    controller_reference,
    is_active_pod,
    key_of,
    meta,
    owned_by,
    rfc3339,
    selects,
    utc_now,
)
from mizzen_local.recorder import Recorder
from mizzen_local.resources import PODS, REPLICA_SETS

_BURST = 500


@dataclass(frozen=True)
class Plan:
    create: int
    delete: tuple[Object, ...]
    status: Object
    look_again: float | None


def plan(rs: Object, pods: list[Object], now: datetime) -> Plan:
    """Pure: `pods` are those that this ReplicaSet controls."""
    spec = rs["spec"]
    wanted = spec.get("replicas", 1)
    active = [pod for pod in pods if is_active_pod(pod)]
    create = 0
    delete: tuple[Object, ...] = ()
    if not meta(rs).get("deletionTimestamp"):
        create = min(max(0, wanted - len(active)), _BURST)
        surplus = max(0, len(active) - wanted)
        delete = tuple(sorted(active, key=deletion_rank)[:surplus])
    waits = [available_in(pod, spec.get("minReadySeconds") or 0, now) for pod in active]
    template_labels = ((spec["template"].get("metadata") or {}).get("labels")) or {}
    labelled = [p for p in active if template_labels.items() <= (meta(p).get("labels") or {}).items()]
    status = {
        "replicas": len(active),
        "fullyLabeledReplicas": len(labelled),
        "readyReplicas": sum(is_ready(pod) for pod in active),
        "availableReplicas": sum(wait == 0.0 for wait in waits),
        "observedGeneration": meta(rs).get("generation", 1),
    }
    later = [wait for wait in waits if wait]
    return Plan(create, delete, status, min(later) if later else None)


class ReplicaSetController:
    def __init__(self, client: Client, informers: Informers) -> None:
        self.client, self.recorder = client, Recorder(client, "replicaset-controller")
        self.sets, self.pods = informers.of(REPLICA_SETS), informers.of(PODS)
        self.worker = Worker[Key]("replicaset", self.reconcile)
        self.sets.on_change(lambda rs: self.worker.queue.add(key_of(rs)))
        self.pods.on_change(self._pod_changed)

    def _pod_changed(self, pod: Object) -> None:
        owner = controller_of(pod)
        if owner and owner["kind"] == "ReplicaSet":
            self.worker.queue.add((meta(pod)["namespace"], owner["name"]))
        elif owner is None:
            for rs in self.sets.in_namespace(meta(pod)["namespace"]):
                if selects(rs["spec"].get("selector"), meta(pod).get("labels")):
                    self.worker.queue.add(key_of(rs))

    async def _adopt(self, rs: Object, pod: Object) -> None:
        patch = {
            "metadata": {
                "uid": meta(pod)["uid"],
                "ownerReferences": [
                    *(meta(pod).get("ownerReferences") or []),
                    controller_reference(rs, "apps/v1", "ReplicaSet"),
                ],
            }
        }
        self.pods.observe(await self.client.patch(PODS, meta(pod)["name"], patch, meta(pod)["namespace"]))

    async def _release(self, rs: Object, pod: Object) -> None:
        """A pod whose labels the selector no longer means is nobody's."""
        rest = [owner for owner in meta(pod)["ownerReferences"] if owner["uid"] != meta(rs)["uid"]]
        patch = {"metadata": {"uid": meta(pod)["uid"], "ownerReferences": rest or None}}
        try:
            answer = await self.client.patch(PODS, meta(pod)["name"], patch, meta(pod)["namespace"])
        except ApiError as error:
            if error.code not in (404, 409):
                raise
            return
        self.pods.observe(answer)

    async def reconcile(self, key: Key) -> float | None:
        rs = self.sets.get(key)
        if rs is None:
            return None
        for pod in self.pods.in_namespace(key[0]):
            if (
                controller_of(pod) is None
                and is_active_pod(pod)
                and not meta(rs).get("deletionTimestamp")
                and selects(rs["spec"].get("selector"), meta(pod).get("labels"))
            ):
                await self._adopt(rs, pod)
        owned = [pod for pod in self.pods.in_namespace(key[0]) if owned_by(pod, meta(rs)["uid"])]
        if not meta(rs).get("deletionTimestamp"):
            strangers = [p for p in owned if not selects(rs["spec"].get("selector"), meta(p).get("labels"))]
            for pod in strangers:
                await self._release(rs, pod)
            owned = [pod for pod in owned if pod not in strangers]
        decided = plan(rs, owned, utc_now())
        failure: dict[str, Any] | None = None
        try:
            for _ in range(decided.create):
                body = pod_from_template(rs["spec"]["template"], rs, "apps/v1", "ReplicaSet")
                pod = await self.client.create(PODS, body, key[0])
                self.pods.observe(pod)
                self._say(rs, "SuccessfulCreate", f"Created pod: {meta(pod)['name']}")
            for pod in decided.delete:
                await self._delete(rs, pod)
        except ApiError as error:
            if error.code != 404:
                # the first refusal stays: each names another pod, and a changed status would be looked at again at once
                failure = condition(rs, "ReplicaFailure") or {
                    "type": "ReplicaFailure",
                    "status": "True",
                    "lastTransitionTime": rfc3339(utc_now()),
                    "reason": "FailedCreate",
                    "message": str(error),
                }
                self._say(rs, "FailedCreate", f"Error creating: {error}", warning=True)
                raise
        finally:
            await self._write_status(rs, decided.status, failure)
        return decided.look_again

    async def _delete(self, rs: Object, pod: Object) -> None:
        name = meta(pod)["name"]
        try:
            answer = await self.client.delete(PODS, name, meta(pod)["namespace"], uid=meta(pod)["uid"])
        except ApiError as error:
            if error.code not in (404, 409):
                raise
            return
        if (answer.get("metadata") or {}).get("deletionTimestamp"):
            self.pods.observe(answer)
        else:
            self.pods.forget(pod)
        self._say(rs, "SuccessfulDelete", f"Deleted pod: {name}")

    async def _write_status(self, rs: Object, status: Object, failure: dict[str, Any] | None) -> None:
        before = rs.get("status") or {}
        new = {**status, "conditions": [failure] if failure else None}
        if {k: before.get(k) for k in new} == new or (
            failure is None and not before.get("conditions") and {k: before.get(k, 0) for k in status} == status
        ):
            return
        try:
            ns = meta(rs)["namespace"]
            self.sets.observe(
                await self.client.patch(REPLICA_SETS, meta(rs)["name"], {"status": new}, ns, subresource="status")
            )
        except ApiError as error:
            if error.code != 404:
                raise

    def _say(self, rs: Object, reason: str, message: str, *, warning: bool = False) -> None:
        self.recorder.event(
            rs, "ReplicaSet", reason, message, api_version="apps/v1", type="Warning" if warning else "Normal"
        )
