"""PodDisruptionBudget: counts the healthy pods of each budget, so that evictions know how many may go."""

from __future__ import annotations

from mizzen_local import budgets
from mizzen_local.budgets import CannotCountError, Scale
from mizzen_local.client import Client, Object, Resource
from mizzen_local.controllers.informer import Informers, Worker
from mizzen_local.objects import Key, controller_of, key_of, meta, selects, utc_now
from mizzen_local.recorder import Recorder
from mizzen_local.resources import BUDGETS, CRDS, DEPLOYMENTS, PODS, REPLICA_SETS, STATEFUL_SETS

_UNMANAGED = (
    "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the status of"
    " the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please"
    ' set ".spec.minAvailable" field of the PDB to an integer value.'
)
_RETRY = 5.0  # a controller that was not found may not be in the cache yet
_SCALED = {"ReplicaSet": REPLICA_SETS, "Deployment": DEPLOYMENTS, "StatefulSet": STATEFUL_SETS}
_UNSCALED = {"Job": "jobs.batch", "DaemonSet": "daemonsets.apps", "Node": "nodes"}


class DisruptionController:
    def __init__(self, client: Client, informers: Informers) -> None:
        self.client, self.informers, self.recorder = client, informers, Recorder(client, "controllermanager")
        self.budgets, self.pods = informers.of(BUDGETS), informers.of(PODS)
        self.definitions = informers.of(CRDS)
        self.worker = Worker[Key]("disruption", self.reconcile)
        self.budgets.on_change(lambda budget: self.worker.queue.add(key_of(budget)))
        self.pods.on_change(self._pod_changed)
        for resource in _SCALED.values():
            informers.of(resource).on_change(self._owner_changed)

    def _pod_changed(self, pod: Object) -> None:
        for budget in self.budgets.in_namespace(meta(pod)["namespace"]):
            if selects(budget["spec"].get("selector"), meta(pod).get("labels")):
                self.worker.queue.add(key_of(budget))

    def _owner_changed(self, owner: Object) -> None:
        for budget in self.budgets.in_namespace(meta(owner)["namespace"]):
            self.worker.queue.add(key_of(budget))

    async def reconcile(self, key: Key) -> float | None:
        budget = self.budgets.get(key)
        if budget is None or meta(budget).get("deletionTimestamp"):
            return None
        selector = budget["spec"].get("selector")
        pods = [pod for pod in self.pods.in_namespace(key[0]) if selects(selector, meta(pod).get("labels"))]
        if not pods:
            self._say(budget, "NoPods", "No matching pods found")
        try:
            verdict = budgets.judge(budget, pods, self._scale, utc_now())
        except CannotCountError as error:
            why = f"Failed to calculate the number of expected pods: {error}"
            self._say(budget, "CalculateExpectedPodCountFailed", why, warning=True)
            await self._write(budget, budgets.uncounted(budget, str(error), utc_now()))
            return _RETRY
        if verdict.unmanaged:
            self._say(budget, "UnmanagedPods", _UNMANAGED.format(selector), warning=True)
        for name in verdict.overdue:
            why = f"Pod was expected by PDB {key[0]}/{key[1]} to be deleted but it wasn't"
            pod = self.pods.get((key[0], name))
            if pod is not None:
                self.recorder.event(pod, "Pod", "NotDeleted", why, type="Warning")
        await self._write(budget, verdict.status)
        return verdict.look_again

    async def _write(self, budget: Object, status: Object) -> None:
        """Over exactly the version that was judged: an eviction in between must not be forgotten."""
        if not budgets.unchanged(budget.get("status"), status):
            body = {**budget, "status": status}
            self.budgets.observe(await self.client.update(BUDGETS, body, key_of(budget)[0], subresource="status"))

    def _scale(self, pod: Object) -> Scale | None:
        owner = controller_of(pod)
        if owner is None:
            return None
        if owner["kind"] in _UNSCALED:
            raise CannotCountError(f"{_UNSCALED[owner['kind']]} does not implement the scale subresource")
        namespace = meta(pod)["namespace"]
        found = self._builtin(owner, namespace)
        if found is None:
            return self._custom(owner, namespace)
        above = controller_of(found)
        if owner["kind"] == "ReplicaSet" and above is not None:
            found = self._builtin(above, namespace) or found
        return Scale(meta(found)["uid"], found["spec"].get("replicas", 1))

    def _builtin(self, owner: Object, namespace: str) -> Object | None:
        resource = _SCALED.get(owner["kind"])
        found = self.informers.of(resource).get((namespace, owner["name"])) if resource else None
        return found if found is not None and meta(found)["uid"] == owner["uid"] else None

    def _custom(self, owner: Object, namespace: str) -> Scale | None:
        """The scale of a custom resource, where its definition has one."""
        group, _, version = owner["apiVersion"].rpartition("/")
        for crd in self.definitions.cache.values():
            spec = crd["spec"]
            if spec["group"] != group or spec["names"]["kind"] != owner["kind"]:
                continue
            served: Object = next((v for v in spec["versions"] if v["name"] == version), {})
            path = ((served.get("subresources") or {}).get("scale") or {}).get("specReplicasPath")
            if not path:
                plural = f"{spec['names']['plural']}.{group}"
                raise CannotCountError(f"{plural} does not implement the scale subresource")
            value = self.informers.of(Resource(group, _stored(spec), spec["names"]["plural"])).get(
                (namespace, owner["name"])
            )
            for part in path.strip(".").split(".") if value is not None else []:
                value = value.get(part) if isinstance(value, dict) else None
            return Scale(owner["uid"], value) if isinstance(value, int) else None
        return None

    def _say(self, budget: Object, reason: str, message: str, *, warning: bool = False) -> None:
        kind = "Warning" if warning else "Normal"
        self.recorder.event(budget, "PodDisruptionBudget", reason, message, api_version="policy/v1", type=kind)  # type: ignore[arg-type]


def _stored(spec: Object) -> str:
    """The version that the catalog watches, too: one informer for both."""
    return str(next((v["name"] for v in spec["versions"] if v.get("storage")), spec["versions"][0]["name"]))
