"""The table of built-in resources: what an embedded cluster needs of the Kubernetes API, one line each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Builtin:
    """One built-in resource; `generation` says whether metadata.generation counts changes of its spec."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    generation: bool = False
    virtual: bool = False
    verbs: tuple[str, ...] = ()  # all of them unless given; only `create` where it is virtual


def _core(plural: str, kind: str, short: str = "", **more: object) -> Builtin:
    return Builtin("", "v1", plural, kind, short_names=tuple(short.split()), **more)  # type: ignore[arg-type]


def _workload(group: str, version: str, plural: str, kind: str, short: str = "", subs: str = "status") -> Builtin:
    return Builtin(
        group, version, plural, kind,
        short_names=tuple(short.split()), categories=("all",), subresources=tuple(subs.split()), generation=True,
    )  # fmt: skip


ALL = ("all",)
STATUS = ("status",)
RBAC, AUTHZ, AUTHN = "rbac.authorization.k8s.io", "authorization.k8s.io", "authentication.k8s.io"
METRICS = "metrics.k8s.io"
NETWORKING, ADMISSION = "networking.k8s.io", "admissionregistration.k8s.io"

BUILTINS: tuple[Builtin, ...] = (
    _core("namespaces", "Namespace", "ns", namespaced=False, subresources=("finalize", "status")),
    _core(
        "pods", "Pod", "po", categories=ALL, generation=True,
        subresources=("log", "portforward", "exec", "attach", "status", "eviction", "binding"),
    ),
    _core("services", "Service", "svc", categories=ALL, subresources=STATUS),
    _core("endpoints", "Endpoints", "ep"),
    _core("configmaps", "ConfigMap", "cm"),
    _core("secrets", "Secret"),
    _core("serviceaccounts", "ServiceAccount", "sa", subresources=("token",)),
    _core("events", "Event", "ev"),
    _core("nodes", "Node", "no", namespaced=False, subresources=("status", "proxy")),
    _core("persistentvolumeclaims", "PersistentVolumeClaim", "pvc", subresources=STATUS),
    _core("persistentvolumes", "PersistentVolume", "pv", namespaced=False, subresources=STATUS),
    _core("limitranges", "LimitRange", "limits"),
    _core("resourcequotas", "ResourceQuota", "quota", subresources=STATUS),
    _core("podtemplates", "PodTemplate"),
    _workload("apps", "v1", "deployments", "Deployment", "deploy", "status scale"),
    _workload("apps", "v1", "replicasets", "ReplicaSet", "rs", "status scale"),
    _workload("apps", "v1", "statefulsets", "StatefulSet", "sts", "status scale"),
    _workload("apps", "v1", "daemonsets", "DaemonSet", "ds"),
    Builtin("apps", "v1", "controllerrevisions", "ControllerRevision"),
    _workload("batch", "v1", "jobs", "Job"),
    _workload("batch", "v1", "cronjobs", "CronJob", "cj"),
    Builtin(
        "autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler",
        short_names=("hpa",), categories=ALL, subresources=STATUS,
    ),
    Builtin(
        "policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget",
        short_names=("pdb",), subresources=STATUS, generation=True,
    ),
    Builtin(RBAC, "v1", "roles", "Role"),
    Builtin(RBAC, "v1", "rolebindings", "RoleBinding"),
    Builtin(RBAC, "v1", "clusterroles", "ClusterRole", namespaced=False),
    Builtin(RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
    Builtin("coordination.k8s.io", "v1", "leases", "Lease"),
    Builtin("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", generation=True),
    Builtin(
        NETWORKING, "v1", "networkpolicies", "NetworkPolicy", short_names=("netpol",), generation=True
    ),
    Builtin(
        NETWORKING, "v1", "ingresses", "Ingress", short_names=("ing",), subresources=STATUS, generation=True
    ),
    Builtin(NETWORKING, "v1", "ingressclasses", "IngressClass", namespaced=False, generation=True),
    Builtin(
        "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition",
        namespaced=False, short_names=("crd", "crds"), categories=("api-extensions",), subresources=STATUS,
        generation=True,
    ),
    Builtin("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False, short_names=("sc",)),
    Builtin("storage.k8s.io", "v1", "csidrivers", "CSIDriver", namespaced=False),
    Builtin("storage.k8s.io", "v1", "csinodes", "CSINode", namespaced=False),
    Builtin("storage.k8s.io", "v1", "volumeattachments", "VolumeAttachment", namespaced=False, subresources=STATUS),
    Builtin(
        "scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass",
        namespaced=False, short_names=("pc",), generation=True,
    ),
    Builtin(
        ADMISSION, "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration",
        namespaced=False, categories=("api-extensions",), generation=True,
    ),
    Builtin(
        ADMISSION, "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration",
        namespaced=False, categories=("api-extensions",), generation=True,
    ),
    Builtin("events.k8s.io", "v1", "events", "Event", short_names=("ev",)),
    Builtin(AUTHZ, "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False, virtual=True),
    Builtin(AUTHZ, "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", namespaced=False, virtual=True),
    Builtin(AUTHZ, "v1", "selfsubjectrulesreviews", "SelfSubjectRulesReview", namespaced=False, virtual=True),
    Builtin(AUTHZ, "v1", "localsubjectaccessreviews", "LocalSubjectAccessReview", virtual=True),
    Builtin(AUTHN, "v1", "tokenreviews", "TokenReview", namespaced=False, virtual=True),
    Builtin(AUTHN, "v1", "selfsubjectreviews", "SelfSubjectReview", namespaced=False, virtual=True),
    Builtin(METRICS, "v1beta1", "nodes", "NodeMetrics", namespaced=False, virtual=True, verbs=("get", "list")),
    Builtin(METRICS, "v1beta1", "pods", "PodMetrics", virtual=True, verbs=("get", "list")),
)  # fmt: skip
