"""Deployment: keeps one ReplicaSet for each pod template and moves replicas from the old ones to the newest."""

from __future__ import annotations

import copy

from mizzen_local.client import ApiError, Client, Object
from mizzen_local.controllers import rollout
from mizzen_local.controllers.informer import Informers, Worker
from mizzen_local.objects import (
    Key,
    controller_of,
    controller_reference,
    is_finished_pod,
    key_of,
    meta,
    owned_by,
    selects,
    stable_hash,
    utc_now,
)
from mizzen_local.recorder import Recorder
from mizzen_local.resources import DEPLOYMENTS, PODS, REPLICA_SETS

_HASH = "pod-template-hash"
_HISTORY = "deployment.kubernetes.io/revision-history"
_HISTORY_LENGTH = 2000  # characters of earlier revisions that a ReplicaSet remembers
_NOT_COPIED = (
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    _HISTORY,
    rollout.REVISION,
    rollout.DESIRED,
    rollout.MOST,
)


def annotations_for(deployment: Object) -> dict[str, str]:
    """What a Deployment's newest ReplicaSet takes over from it, such as the cause of the change."""
    return {k: v for k, v in (meta(deployment).get("annotations") or {}).items() if k not in _NOT_COPIED}


def new_replica_set(deployment: Object, revision: int) -> Object:
    """The ReplicaSet of the present template, with no replicas yet."""
    spec = deployment["spec"]
    digest = stable_hash(spec["template"])
    template = copy.deepcopy(spec["template"])
    labels = {**((template.get("metadata") or {}).get("labels") or {}), _HASH: digest}
    template["metadata"] = {**(template.get("metadata") or {}), "labels": labels}
    selector = copy.deepcopy(spec["selector"])
    selector["matchLabels"] = {**(selector.get("matchLabels") or {}), _HASH: digest}
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{meta(deployment)['name']}-{digest}",
            "namespace": meta(deployment)["namespace"],
            "labels": labels,
            "annotations": {
                **annotations_for(deployment),
                **rollout.size_notes(deployment),
                rollout.REVISION: str(revision),
            },
            "ownerReferences": [controller_reference(deployment, "apps/v1", "Deployment")],
        },
        "spec": {
            "replicas": 0,
            "selector": selector,
            "template": template,
            "minReadySeconds": spec.get("minReadySeconds") or 0,
        },
    }


def annotation_changes(deployment: Object, rs: Object, revision: int) -> dict[str, str]:
    """What the newest ReplicaSet's annotations lack; after a roll-back also the revisions that it was before."""
    present = meta(rs).get("annotations") or {}
    wanted = annotations_for(deployment)
    before = revision_of(rs)
    if before < revision:
        wanted[rollout.REVISION] = str(revision)
        if before:
            earlier = [*filter(None, present.get(_HISTORY, "").split(",")), str(before)]
            while len(",".join(earlier)) > _HISTORY_LENGTH:
                earlier.pop(0)
            wanted[_HISTORY] = ",".join(earlier)
    return {key: value for key, value in wanted.items() if present.get(key) != value}


def revision_of(obj: Object) -> int:
    text = (meta(obj).get("annotations") or {}).get(rollout.REVISION, "0")
    return int(text) if text.isdigit() else 0


class DeploymentController:
    def __init__(self, client: Client, informers: Informers) -> None:
        self.client, self.recorder = client, Recorder(client, "deployment-controller")
        self.deployments = informers.of(DEPLOYMENTS)
        self.sets, self.pods = informers.of(REPLICA_SETS), informers.of(PODS)
        self.worker = Worker[Key]("deployment", self.reconcile)
        self.deployments.on_change(lambda d: self.worker.queue.add(key_of(d)))
        self.sets.on_change(self._set_changed)
        self.pods.on_change(lambda _: None, deleted=self._pod_gone)

    def _set_changed(self, rs: Object) -> None:
        owner = controller_of(rs)
        if owner and owner["kind"] == "Deployment":
            self.worker.queue.add((meta(rs)["namespace"], owner["name"]))

    def _pod_gone(self, pod: Object) -> None:
        """Recreate waits for the last old pod to be gone, which no ReplicaSet shows."""
        for deployment in self.deployments.in_namespace(meta(pod)["namespace"]):
            if selects(deployment["spec"].get("selector"), meta(pod).get("labels")):
                self.worker.queue.add(key_of(deployment))

    async def reconcile(self, key: Key) -> float | None:
        deployment = self.deployments.get(key)
        if deployment is None or meta(deployment).get("deletionTimestamp"):
            return None
        owned = [rs for rs in self.sets.in_namespace(key[0]) if owned_by(rs, meta(deployment)["uid"])]
        new, old = await self._newest(deployment, owned)
        sets = [*([new] if new else []), *old]
        changes = rollout.sizes(deployment, new, old, self._old_pods_remain(key[0], old))
        for rs in sets:
            await self._scale(deployment, rs, changes.get(meta(rs)["name"]))
        known = [self.sets.get(key_of(rs)) or rs for rs in sets]
        await self._write_status(deployment, known[0] if new else None, known[1:] if new else known)
        await self._forget_history(deployment, old)
        return rollout.deadline_left(self.deployments.get(key) or deployment, utc_now())

    async def _newest(self, deployment: Object, owned: list[Object]) -> tuple[Object | None, list[Object]]:
        """The ReplicaSet of the present template, which a paused Deployment may lack, and the others."""
        digest = stable_hash(deployment["spec"]["template"])
        found = next((rs for rs in owned if (meta(rs).get("labels") or {}).get(_HASH) == digest), None)
        old = [rs for rs in owned if found is None or meta(rs)["uid"] != meta(found)["uid"]]
        last = max(map(revision_of, old), default=0)
        if found is None and deployment["spec"].get("paused"):
            return None, old
        if found is None:
            body = new_replica_set(deployment, last + 1)
            found = await self.client.create(REPLICA_SETS, body, meta(deployment)["namespace"])
            self.sets.observe(found)
        elif changes := annotation_changes(deployment, found, last + 1):
            found = await self._patch_set(found, {"metadata": {"annotations": changes}})
        if found["spec"].get("minReadySeconds", 0) != (deployment["spec"].get("minReadySeconds") or 0):
            wait = deployment["spec"].get("minReadySeconds") or 0
            found = await self._patch_set(found, {"spec": {"minReadySeconds": wait}})
        if revision_of(deployment) != revision_of(found):
            patch = {"metadata": {"annotations": {rollout.REVISION: str(revision_of(found))}}}
            name, namespace = meta(deployment)["name"], meta(deployment)["namespace"]
            self.deployments.observe(await self.client.patch(DEPLOYMENTS, name, patch, namespace))
        return found, old

    def _old_pods_remain(self, namespace: str, old: list[Object]) -> bool:
        uids = {meta(rs)["uid"] for rs in old}
        return any(
            (controller_of(pod) or {}).get("uid") in uids and not is_finished_pod(pod)
            for pod in self.pods.in_namespace(namespace)
        )

    async def _scale(self, deployment: Object, rs: Object, replicas: int | None) -> None:
        """Give it that size, if any, and note the Deployment's."""
        before = rs["spec"].get("replicas", 0)
        replicas = before if replicas is None else replicas
        notes = rollout.size_notes(deployment)
        current = (meta(rs).get("annotations") or {}).items()
        if replicas == before:
            if before and not notes.items() <= current:
                await self._patch_set(rs, {"metadata": {"annotations": notes}})
            return
        way = "up" if replicas > before else "down"
        await self._patch_set(rs, {"metadata": {"annotations": notes}, "spec": {"replicas": replicas}})
        self.recorder.event(
            deployment,
            "Deployment",
            "ScalingReplicaSet",
            f"Scaled {way} replica set {meta(rs)['name']} from {before} to {replicas}",
            api_version="apps/v1",
        )

    async def _patch_set(self, rs: Object, patch: Object) -> Object:
        answer = await self.client.patch(REPLICA_SETS, meta(rs)["name"], patch, meta(rs)["namespace"])
        self.sets.observe(answer)
        return answer

    async def _write_status(self, deployment: Object, new: Object | None, old: list[Object]) -> None:
        current = self.deployments.get(key_of(deployment)) or deployment
        status = rollout.status(current, new, old, utc_now())
        before = current.get("status") or {}
        counts = {k: v for k, v in status.items() if k != "conditions"}
        if {k: before.get(k, 0) for k in counts} == counts and before.get("conditions") == status["conditions"]:
            return
        name, namespace = meta(deployment)["name"], meta(deployment)["namespace"]
        written = {key: value or None for key, value in status.items()}  # nought is left out, as Go writes it
        self.deployments.observe(
            await self.client.patch(DEPLOYMENTS, name, {"status": written}, namespace, subresource="status")
        )

    async def _forget_history(self, deployment: Object, old: list[Object]) -> None:
        limit = deployment["spec"].get("revisionHistoryLimit")
        idle = [rs for rs in old if not rs["spec"].get("replicas") and not (rs.get("status") or {}).get("replicas")]
        surplus = len(idle) - (10 if limit is None else limit)
        for rs in sorted(idle, key=revision_of)[: max(0, surplus)]:
            try:
                await self.client.delete(REPLICA_SETS, meta(rs)["name"], meta(rs)["namespace"], uid=meta(rs)["uid"])
            except ApiError as error:
                if error.code not in (404, 409):
                    raise
