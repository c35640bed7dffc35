"""Which kinds exist: the built-in ones and those of CustomResourceDefinitions, for who must see them all."""

from __future__ import annotations

from collections.abc import Callable

from mizzen_local import resources as r
from mizzen_local.client import Object, Resource
from mizzen_local.controllers.informer import Informer, Informers
from mizzen_local.objects import is_true

_NAMESPACED = {
    r.PODS: "Pod",
    r.SERVICES: "Service",
    r.ENDPOINTS: "Endpoints",
    r.CONFIG_MAPS: "ConfigMap",
    r.SECRETS: "Secret",
    r.SERVICE_ACCOUNTS: "ServiceAccount",
    r.CLAIMS: "PersistentVolumeClaim",
    r.DEPLOYMENTS: "Deployment",
    r.REPLICA_SETS: "ReplicaSet",
    r.JOBS: "Job",
    r.ENDPOINT_SLICES: "EndpointSlice",
    r.LEASES: "Lease",
    r.STATEFUL_SETS: "StatefulSet",
    r.REVISIONS: "ControllerRevision",
    r.CRON_JOBS: "CronJob",
    Resource("autoscaling", "v2", "horizontalpodautoscalers"): "HorizontalPodAutoscaler",
    r.BUDGETS: "PodDisruptionBudget",
    Resource("networking.k8s.io", "v1", "networkpolicies"): "NetworkPolicy",
    Resource("networking.k8s.io", "v1", "ingresses"): "Ingress",
    Resource("rbac.authorization.k8s.io", "v1", "roles"): "Role",
    Resource("rbac.authorization.k8s.io", "v1", "rolebindings"): "RoleBinding",
    r.QUOTAS: "ResourceQuota",
    Resource("", "v1", "limitranges"): "LimitRange",
}
_CLUSTER_SCOPED = {
    r.VOLUMES: "PersistentVolume",
    r.NODES: "Node",
    r.NAMESPACES: "Namespace",
    Resource("rbac.authorization.k8s.io", "v1", "clusterroles"): "ClusterRole",
    Resource("rbac.authorization.k8s.io", "v1", "clusterrolebindings"): "ClusterRoleBinding",
}


class Catalog:
    """`on_kind` tells of every kind that is or becomes known; events are left out: they expire on their own."""

    def __init__(self, informers: Informers) -> None:
        self.informers = informers
        self.kinds: dict[Resource, tuple[str, bool]] = {
            **{resource: (kind, True) for resource, kind in _NAMESPACED.items()},
            **{resource: (kind, False) for resource, kind in _CLUSTER_SCOPED.items()},
        }
        self._listeners: list[Callable[[Resource, Informer], None]] = []
        self._custom: dict[str, Resource] = {}
        informers.of(r.CRDS).on_change(self._definition_changed, deleted=self._definition_gone)

    def on_kind(self, listener: Callable[[Resource, Informer], None]) -> None:
        self._listeners.append(listener)
        for resource in list(self.kinds):
            listener(resource, self.informers.of(resource))

    def namespaced(self) -> list[Resource]:
        return [resource for resource, (_, inside) in self.kinds.items() if inside]

    def find(self, api_version: str, kind: str) -> tuple[Resource, bool] | None:
        """The resource of an owner reference, in whichever version we watch its group."""
        group = api_version.partition("/")[0] if "/" in api_version else ""
        for resource, (known, inside) in self.kinds.items():
            if known == kind and resource.group == group:
                return resource, inside
        return None

    def _definition_changed(self, crd: Object) -> None:
        name = crd["metadata"]["name"]
        if name in self._custom or not is_true(crd, "Established"):
            return
        spec = crd["spec"]
        version = next((v["name"] for v in spec["versions"] if v.get("storage")), spec["versions"][0]["name"])
        resource = Resource(spec["group"], version, spec["names"]["plural"])
        self._custom[name] = resource
        self.kinds[resource] = (spec["names"]["kind"], spec["scope"] == "Namespaced")
        for listener in self._listeners:
            listener(resource, self.informers.of(resource))

    def _definition_gone(self, crd: Object) -> None:
        resource = self._custom.pop(crd["metadata"]["name"], None)
        if resource is not None:
            self.kinds.pop(resource, None)
            self.informers.drop(resource)
