"""What single kinds need between decoding and storing: addresses, generated selectors, system fields, admission."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import TYPE_CHECKING

from mizzen_local.api import crds, limitranges, podadmission, status
from mizzen_local.client import ApiError, Object
from mizzen_local.objects import qos_class, rfc3339, utc_now

if TYPE_CHECKING:
    from mizzen_local.api.machinery import Machinery

Hook = Callable[["Machinery", Object, Object | None], None]  # (machinery, new object, stored object)

_GATED: Object = {
    "type": "PodScheduled",
    "status": "False",
    "lastProbeTime": None,
    "reason": "SchedulingGated",
    "message": "Scheduling is blocked due to non-empty scheduling gates",
}
_TOKEN_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105


def _pod(machinery: Machinery, pod: Object, old: Object | None) -> None:
    spec = pod["spec"]
    if old is not None:
        podadmission.keep_priority(pod, old)
        podadmission.tolerate_lost_nodes(pod)
        return
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    # nobody owns what admission adds
    podadmission.apply_limits(machinery, pod)
    for key in ("serviceAccountName", "serviceAccount"):
        spec.setdefault(key, "default")
    account_name = spec["serviceAccountName"]
    account = machinery.store.get("/serviceaccounts", namespace, account_name)
    if account is None:
        why = f'error looking up service account {namespace}/{account_name}: serviceaccount "{account_name}" not found'
        raise status.forbidden("pods", "", name, why)
    automount = spec.get("automountServiceAccountToken", account.obj.get("automountServiceAccountToken", True))
    if automount:
        _mount_token(pod)
    podadmission.set_priority(machinery, pod)
    podadmission.tolerate_lost_nodes(pod)
    pod["status"] = {"phase": "Pending", "qosClass": qos_class(spec)}
    if spec.get("schedulingGates"):
        pod["status"]["conditions"] = [{**_GATED, "lastTransitionTime": rfc3339(utc_now())}]


def _mount_token(pod: Object) -> None:
    """The projected volume with token, CA and namespace that the ServiceAccount admission adds."""
    spec = pod["spec"]
    from mizzen_local.api.names import suffix

    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    needing = [c for c in containers if all(m.get("mountPath") != _TOKEN_MOUNT for m in c.get("volumeMounts") or [])]
    if not needing:
        return
    volume = f"kube-api-access-{suffix()}"
    namespace_item = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace_item]}},
    ]
    spec["volumes"] = [
        *(spec.get("volumes") or []),
        {"name": volume, "projected": {"defaultMode": 420, "sources": sources}},
    ]
    for container in needing:
        mount = {"name": volume, "readOnly": True, "mountPath": _TOKEN_MOUNT}
        container["volumeMounts"] = [*(container.get("volumeMounts") or []), mount]


def _service(machinery: Machinery, service: Object, old: Object | None) -> None:
    spec = service["spec"]
    name = service["metadata"]["name"]
    service.setdefault("status", {"loadBalancer": {}})
    if spec["type"] == "ExternalName":
        return
    spec.setdefault("ipFamilies", ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    before = (old or {}).get("spec", {}).get("clusterIP")
    if before and before != "None" and not spec.get("clusterIP"):
        spec["clusterIP"] = before
    if before and spec.get("clusterIP") != before:
        cause = status.invalid_value("spec.clusterIPs[0]", spec.get("clusterIP"), "may not change once set")
        raise status.invalid("Service", "", name, [cause])
    wanted = spec.get("clusterIP")
    if not wanted:
        spec["clusterIP"] = machinery.addresses.free()
    elif wanted != "None" and not before:
        if ipaddress.ip_address(wanted) not in machinery.addresses.network:
            why = f"failed to allocate IP {wanted}: the provided network does not match the current range"
            raise status.invalid("Service", "", name, [status.invalid_value("spec.clusterIPs", [wanted], why)])
        if wanted in machinery.addresses.used():
            why = f"failed to allocate IP {wanted}: provided IP is already allocated"
            raise status.invalid("Service", "", name, [status.invalid_value("spec.clusterIPs", [wanted], why)])
    spec["clusterIPs"] = [spec["clusterIP"]]


def _job(_: Machinery, job: Object, old: Object | None) -> None:
    _template_metadata(job)
    spec, uid = job["spec"], job["metadata"]["uid"]
    if old is not None:
        spec.setdefault("selector", old["spec"].get("selector"))
        return
    job["status"] = {}
    if spec.get("manualSelector"):
        return
    metadata = spec["template"].setdefault("metadata", {})
    labels = metadata["labels"] = dict(metadata.get("labels") or {})
    for prefix in ("", "batch.kubernetes.io/"):
        labels[f"{prefix}controller-uid"] = uid
        labels[f"{prefix}job-name"] = job["metadata"]["name"]
    spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    if not job["metadata"].get("labels"):  # the template's, by default
        job["metadata"]["labels"] = dict(labels)


def _namespace(_: Machinery, namespace: Object, old: Object | None) -> None:
    metadata = namespace["metadata"]
    metadata["labels"] = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": metadata["name"]}
    if old is None:
        namespace["spec"] = {"finalizers": ["kubernetes"]}
        namespace["status"] = {"phase": "Active"}
    else:
        namespace["spec"] = old.get("spec", {})


def _claim(_: Machinery, claim: Object, old: Object | None) -> None:
    if old is None:
        claim["status"] = {"phase": "Pending"}
        finalizers = claim["metadata"].get("finalizers") or []
        claim["metadata"]["finalizers"] = sorted({*finalizers})  # no protection: pods are processes here
        if not claim["metadata"]["finalizers"]:
            del claim["metadata"]["finalizers"]


def _volume(_: Machinery, volume: Object, old: Object | None) -> None:
    if old is None:
        volume["status"] = {"phase": "Pending"}


def _workload(_: Machinery, obj: Object, old: Object | None) -> None:
    _template_metadata(obj)
    if old is None:
        obj["status"] = {}


def _cron_job(_: Machinery, obj: Object, old: Object | None) -> None:
    template = obj["spec"]["jobTemplate"]
    template.setdefault("metadata", {})
    template["spec"]["template"].setdefault("metadata", {})
    if old is None:
        obj["status"] = {}


def _autoscaler(_: Machinery, obj: Object, old: Object | None) -> None:
    if old is None:
        obj["status"] = {"desiredReplicas": 0, "currentMetrics": None}


def _template_metadata(obj: Object) -> None:
    """A template always has metadata; nobody owns it, or the owner's next apply would take its labels along."""
    obj["spec"]["template"].setdefault("metadata", {})


def _replica_set(_: Machinery, obj: Object, old: Object | None) -> None:
    _template_metadata(obj)
    if old is None:
        obj["status"] = {"replicas": 0}


HOOKS: dict[str, Hook] = {
    "/pods": _pod,
    "/services": _service,
    "/namespaces": _namespace,
    "/persistentvolumeclaims": _claim,
    "/persistentvolumes": _volume,
    "batch/jobs": _job,
    "apps/deployments": _workload,
    "apps/replicasets": _replica_set,
    "apps/statefulsets": _replica_set,
    "apps/daemonsets": _workload,
    "batch/cronjobs": _cron_job,
    "autoscaling/horizontalpodautoscalers": _autoscaler,
    "apiextensions.k8s.io/customresourcedefinitions": crds.prepare,
}


# hooks that come before validation, as admission that changes objects does
FIRST = frozenset({"/pods", "batch/jobs"})
# what may still refuse a valid object
GATES: dict[str, Hook] = {
    "/pods": limitranges.check_pod,
    "/persistentvolumeclaims": limitranges.check_claim,
    podadmission.PRIORITY_CLASSES: podadmission.check_priority_class,
}


class Addresses:
    """Cluster IPs of Services: the lowest address of the range that no stored Service has."""

    def __init__(self, machinery: Machinery, service_range: str) -> None:
        self.network = ipaddress.ip_network(service_range)
        self._machinery = machinery
        self._next = 10  # the first addresses are for the API server and DNS

    def used(self) -> set[str]:
        entries = self._machinery.store.entries("/services")
        return {entry.obj["spec"].get("clusterIP", "") for entry in entries}

    def free(self) -> str:
        used = self.used()
        size = self.network.num_addresses
        for _ in range(size):
            candidate = str(self.network[self._next])
            self._next = self._next + 1 if self._next + 2 < size else 10
            if candidate not in used:
                return candidate
        raise ApiError(500, "InternalError", "failed to allocate a serviceIP: range is full")
