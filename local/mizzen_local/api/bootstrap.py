"""What every cluster has from its first moment: namespaces, roles, the `kubernetes` Service, and default accounts."""

from __future__ import annotations

from mizzen_local.api.limitchecks import SYSTEM_CLASSES
from mizzen_local.api.machinery import Machinery, WriteOptions
from mizzen_local.api.rbac import GROUP
from mizzen_local.api.registry import ResourceInfo
from mizzen_local.client import Object

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
_MANAGER = "kube-apiserver"
_READ = ["get", "list", "watch"]
_WRITE = ["create", "delete", "deletecollection", "patch", "update"]
_PUBLIC = ["/healthz", "/livez", "/readyz", "/version", "/version/"]
_DISCOVERY = [
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/healthz",
    "/livez",
    "/openapi",
    "/openapi/*",
    "/readyz",
    "/version",
    "/version/",
]
_SYSTEM_CLASSES = {
    "system-cluster-critical": (
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."
    ),
    "system-node-critical": "Used for system critical pods that must not be moved from their current node.",
}
# what namespaced roles for people reach; custom resources join by the aggregation labels
_EVERYDAY: list[tuple[list[str], list[str]]] = [
    (
        [""],
        [
            "pods", "pods/log", "pods/status", "services", "services/status", "endpoints", "configmaps", "events",
            "persistentvolumeclaims", "persistentvolumeclaims/status", "serviceaccounts", "namespaces",
            "resourcequotas", "limitranges",
        ],
    ),
    (["apps"], ["deployments", "replicasets", "statefulsets", "daemonsets", "deployments/scale", "statefulsets/scale"]),
    (["batch"], ["jobs", "cronjobs"]),
    (["autoscaling"], ["horizontalpodautoscalers"]),
    (["policy"], ["poddisruptionbudgets"]),
    (["networking.k8s.io"], ["ingresses", "networkpolicies"]),
    (["discovery.k8s.io"], ["endpointslices"]),
]  # fmt: skip


def populate(machinery: Machinery, address: str, port: int) -> None:
    """Create what is missing; objects that exist are left as they are."""
    for name in NAMESPACES:
        _create(machinery, "", "namespaces", "", {"metadata": {"name": name}})
    for name, role in _cluster_roles().items():
        labels = {"kubernetes.io/bootstrapping": "rbac-defaults", **role.pop("labels", {})}
        _create(machinery, GROUP, "clusterroles", "", {"metadata": {"name": name, "labels": labels}, **role})
    for name, group in (
        ("cluster-admin", "system:masters"),
        ("system:discovery", "system:authenticated"),
        ("system:basic-user", "system:authenticated"),
        ("system:public-info-viewer", "system:authenticated"),
    ):
        subject = {"kind": "Group", "name": group, "apiGroup": GROUP}
        reference = {"kind": "ClusterRole", "name": name, "apiGroup": GROUP}
        body = {"metadata": {"name": name}, "subjects": [subject], "roleRef": reference}
        _create(machinery, GROUP, "clusterrolebindings", "", body)
    for name, use in _SYSTEM_CLASSES.items():
        system_class: Object = {"metadata": {"name": name}, "value": SYSTEM_CLASSES[name], "description": use}
        _create(machinery, "scheduling.k8s.io", "priorityclasses", "", system_class)
    labels = {"component": "apiserver", "provider": "kubernetes"}
    ports = [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}]
    spec = {"type": "ClusterIP", "clusterIP": address, "ports": ports}
    service = {"metadata": {"name": "kubernetes", "labels": labels}, "spec": spec}
    _create(machinery, "", "services", "default", service)


def _create(machinery: Machinery, group: str, plural: str, namespace: str, body: Object) -> None:
    info = _info(machinery, group, plural)
    if machinery.store.get(info.bucket, namespace, body["metadata"]["name"]) is None:
        machinery.create(info, namespace, body, WriteOptions(_MANAGER, metered=False))


def _info(machinery: Machinery, group: str, plural: str) -> ResourceInfo:
    found = machinery.registry.get(group, "v1", plural)
    assert found is not None
    return found


def _cluster_roles() -> dict[str, Object]:
    everything = [
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
        {"nonResourceURLs": ["*"], "verbs": ["*"]},
    ]
    reviews = {
        "apiGroups": ["authorization.k8s.io"],
        "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
        "verbs": ["create"],
    }
    self_review = {"apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"], "verbs": ["create"]}
    view = [{"apiGroups": groups, "resources": resources, "verbs": _READ} for groups, resources in _EVERYDAY]
    edit = [{"apiGroups": groups, "resources": resources, "verbs": _WRITE} for groups, resources in _EVERYDAY]
    extra = [
        {
            "apiGroups": [""],
            "resources": ["secrets", "pods/exec", "pods/portforward", "pods/eviction", "serviceaccounts/token"],
            "verbs": [*_READ, *_WRITE],
        }
    ]
    grant = [{"apiGroups": [GROUP], "resources": ["roles", "rolebindings"], "verbs": [*_READ, *_WRITE]}]

    metrics = [{"apiGroups": ["metrics.k8s.io"], "resources": ["pods", "nodes"], "verbs": _READ}]

    def label(role: str) -> Object:
        return {f"rbac.authorization.k8s.io/aggregate-to-{role}": "true"}

    def gather(role: str) -> Object:
        return {"clusterRoleSelectors": [{"matchLabels": label(role)}]}

    return {
        "cluster-admin": {"rules": everything},
        "system:discovery": {"rules": [{"nonResourceURLs": _DISCOVERY, "verbs": ["get"]}]},
        "system:public-info-viewer": {"rules": [{"nonResourceURLs": _PUBLIC, "verbs": ["get"]}]},
        "system:basic-user": {"rules": [reviews, self_review]},
        "system:aggregated-metrics-reader": {
            "rules": metrics,
            "labels": {**label("view"), **label("edit"), **label("admin")},
        },
        "system:aggregate-to-view": {"rules": view, "labels": label("view")},
        "system:aggregate-to-edit": {"rules": [*edit, *extra], "labels": label("edit")},
        "system:aggregate-to-admin": {"rules": grant, "labels": label("admin")},
        "view": {"aggregationRule": gather("view"), "labels": label("edit")},
        "edit": {"aggregationRule": gather("edit"), "labels": label("admin")},
        "admin": {"aggregationRule": gather("admin")},
    }


class NamespaceDefaults:
    """Keeps `serviceaccount/default` and `configmap/kube-root-ca.crt` in every namespace that is not ending."""

    def __init__(self, machinery: Machinery, ca: str) -> None:
        self._machinery, self._ca = machinery, ca
        for entry in list(machinery.store.entries("/namespaces")):
            self._ensure(entry.obj)
        for bucket in ("/namespaces", "/serviceaccounts", "/configmaps"):
            machinery.store.listen(bucket, self._changed)

    def _changed(self, event: object) -> None:
        from mizzen_local.api.store import Event

        assert isinstance(event, Event)
        obj = event.entry.obj
        if obj["kind"] == "Namespace":
            if event.type == "ADDED":
                self._ensure(obj)
        elif event.type == "DELETED" and obj["metadata"]["name"] in ("default", "kube-root-ca.crt"):
            home = self._machinery.store.get("/namespaces", "", obj["metadata"]["namespace"])
            if home is not None:
                self._ensure(home.obj)

    def _ensure(self, namespace: Object) -> None:
        if "deletionTimestamp" in namespace["metadata"]:
            return
        name = namespace["metadata"]["name"]
        if self._machinery.store.get("/serviceaccounts", name, "default") is None:
            _create(self._machinery, "", "serviceaccounts", name, {"metadata": {"name": "default"}})
        roots = {"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": self._ca}}
        existing = self._machinery.store.get("/configmaps", name, "kube-root-ca.crt")
        if existing is None:
            _create(self._machinery, "", "configmaps", name, roots)
