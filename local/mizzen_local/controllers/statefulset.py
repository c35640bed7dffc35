"""StatefulSet: keeps numbered pods with their own claims, one after another; applies what `statefulplan` decides."""

from __future__ import annotations

from mizzen_local.client import ApiError, Client, Object
from mizzen_local.controllers import statefulplan
from mizzen_local.controllers.informer import Informers, Worker
from mizzen_local.objects import (
    Key,
    controller_of,
    controller_reference,
    key_of,
    meta,
    owned_by,
    selects,
    stable_hash,
    utc_now,
)
from mizzen_local.recorder import Recorder
from mizzen_local.resources import CLAIMS, PODS, REVISIONS, STATEFUL_SETS

_HASH = "controller.kubernetes.io/hash"


class StatefulSetController:
    def __init__(self, client: Client, informers: Informers) -> None:
        self.client, self.recorder = client, Recorder(client, "statefulset-controller")
        self.sets, self.pods = informers.of(STATEFUL_SETS), informers.of(PODS)
        self.revisions, self.claims = informers.of(REVISIONS), informers.of(CLAIMS)
        self.worker = Worker[Key]("statefulset", self.reconcile)
        self.sets.on_change(lambda stateful: self.worker.queue.add(key_of(stateful)))
        self.pods.on_change(self._pod_changed)

    def _pod_changed(self, pod: Object) -> None:
        owner = controller_of(pod)
        if owner and owner["kind"] == "StatefulSet":
            self.worker.queue.add((meta(pod)["namespace"], owner["name"]))

    async def reconcile(self, key: Key) -> float | None:
        stateful = self.sets.get(key)
        if stateful is None:
            return None
        deleting = bool(meta(stateful).get("deletionTimestamp"))
        owned = [pod for pod in self.pods.in_namespace(key[0]) if await self._ours(stateful, pod)]
        known = [item for item in self.revisions.in_namespace(key[0]) if owned_by(item, meta(stateful)["uid"])]
        update = None if deleting else await self._newest(stateful, known)
        update_name = meta(update)["name"] if update else (stateful.get("status") or {}).get("updateRevision", "")
        current_name = (stateful.get("status") or {}).get("currentRevision") or update_name
        if all(meta(item)["name"] != current_name for item in known):
            current_name = update_name
        decided = statefulplan.plan(stateful, owned, current_name, update_name, utc_now())
        try:
            for ordinal, revision in decided.create:
                item = next((item for item in known if meta(item)["name"] == revision), update)
                assert item is not None
                await self._create(stateful, ordinal, item)
            for pod in decided.delete:
                await self._delete(stateful, pod)
        finally:
            await self._write_status(stateful, decided.status)
        if not deleting:
            await self._forget_history(stateful, known, owned, {current_name, update_name})
        return decided.look_again

    async def _ours(self, stateful: Object, pod: Object) -> bool:
        """Whether the set controls the pod; it adopts what it means, and lets go what it means no more."""
        meant = selects(stateful["spec"].get("selector"), meta(pod).get("labels"))
        if statefulplan.ordinal_of(stateful, pod) is None or meta(stateful).get("deletionTimestamp"):
            return owned_by(pod, meta(stateful)["uid"])
        owners = meta(pod).get("ownerReferences") or []
        if meant and controller_of(pod) is None and not meta(pod).get("deletionTimestamp"):
            await self._own(pod, [*owners, controller_reference(stateful, "apps/v1", "StatefulSet")])
            return True
        if not meant and owned_by(pod, meta(stateful)["uid"]):
            await self._own(pod, [owner for owner in owners if owner["uid"] != meta(stateful)["uid"]])
            return False
        return owned_by(pod, meta(stateful)["uid"])

    async def _own(self, pod: Object, owners: list[Object]) -> None:
        patch = {"metadata": {"uid": meta(pod)["uid"], "ownerReferences": owners or None}}
        self.pods.observe(await self.client.patch(PODS, meta(pod)["name"], patch, meta(pod)["namespace"]))

    async def _newest(self, stateful: Object, known: list[Object]) -> Object:
        """The revision of the present template; an old one that it equals becomes the newest again."""
        template = stateful["spec"]["template"]
        data = {"spec": {"template": {**template, "$patch": "replace"}}}
        last = max((item["revision"] for item in known), default=0)
        same = next((item for item in known if item["data"] == data), None)
        namespace = meta(stateful)["namespace"]
        if same is None:
            digest = stable_hash(template)
            labels = (template.get("metadata") or {}).get("labels") or {}
            body = {
                "apiVersion": "apps/v1",
                "kind": "ControllerRevision",
                "metadata": {
                    "name": f"{meta(stateful)['name']}-{digest}",
                    "namespace": namespace,
                    "labels": {**labels, _HASH: digest},
                    "ownerReferences": [controller_reference(stateful, "apps/v1", "StatefulSet")],
                },
                "data": data,
                "revision": last + 1,
            }
            same = await self.client.create(REVISIONS, body, namespace)
            known.append(same)
        elif same["revision"] < last:
            same = await self.client.patch(REVISIONS, meta(same)["name"], {"revision": last + 1}, namespace)
        self.revisions.observe(same)
        return same

    async def _create(self, stateful: Object, ordinal: int, revision: Object) -> None:
        template = {key: value for key, value in revision["data"]["spec"]["template"].items() if key != "$patch"}
        pod = statefulplan.pod_of(stateful, ordinal, template, meta(revision)["name"])
        name, owner, namespace = meta(pod)["name"], meta(stateful)["name"], meta(stateful)["namespace"]
        try:
            for claim in statefulplan.claims_of(stateful, pod):
                if self.claims.get(key_of(claim)) is None:
                    self.claims.observe(await self.client.create(CLAIMS, claim, namespace))
                    text = f"create Claim {meta(claim)['name']} Pod {name} in StatefulSet {owner} success"
                    self._say(stateful, "SuccessfulCreate", text)
            self.pods.observe(await self.client.create(PODS, pod, namespace))
        except ApiError as error:
            text = f"create Pod {name} in StatefulSet {owner} failed error: {error}"
            self._say(stateful, "FailedCreate", text, warning=True)
            raise
        self._say(stateful, "SuccessfulCreate", f"create Pod {name} in StatefulSet {owner} successful")

    async def _delete(self, stateful: Object, pod: Object) -> None:
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
        text = f"delete Pod {name} in StatefulSet {meta(stateful)['name']} successful"
        self._say(stateful, "SuccessfulDelete", text)

    async def _write_status(self, stateful: Object, status: Object) -> None:
        before = stateful.get("status") or {}
        if all(before.get(key) == value for key, value in status.items()):
            return
        name, namespace = meta(stateful)["name"], meta(stateful)["namespace"]
        try:
            answer = await self.client.patch(STATEFUL_SETS, name, {"status": status}, namespace, subresource="status")
        except ApiError as error:
            if error.code != 404:
                raise
            return
        self.sets.observe(answer)

    async def _forget_history(self, stateful: Object, known: list[Object], pods: list[Object], live: set[str]) -> None:
        used = live | {statefulplan.revision_of(pod) for pod in pods}
        idle = sorted((item for item in known if meta(item)["name"] not in used), key=lambda item: item["revision"])
        limit = stateful["spec"].get("revisionHistoryLimit")
        for item in idle[: max(0, len(idle) - (10 if limit is None else limit))]:
            try:
                await self.client.delete(REVISIONS, meta(item)["name"], meta(item)["namespace"])
            except ApiError as error:
                if error.code != 404:
                    raise
            self.revisions.forget(item)

    def _say(self, stateful: Object, reason: str, message: str, *, warning: bool = False) -> None:
        kind = "Warning" if warning else "Normal"
        self.recorder.event(stateful, "StatefulSet", reason, message, api_version="apps/v1", type=kind)  # type: ignore[arg-type]
