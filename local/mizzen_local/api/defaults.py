"""What the real server fills into built-in objects: small tables and one function for each kind that needs more."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from mizzen_local.client import Object

_POD: Object = {
    "restartPolicy": "Always",
    "terminationGracePeriodSeconds": 30,
    "dnsPolicy": "ClusterFirst",
    "schedulerName": "default-scheduler",
}
_PROBE: Object = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
_SOURCE_MODES = ("configMap", "secret", "projected", "downwardAPI")


def _fill(target: Object, values: Object) -> None:
    for name, value in values.items():
        if name not in target:
            target[name] = value


def pod_spec(spec: Object) -> None:
    _fill(spec, _POD)
    spec.setdefault("securityContext", {})
    if "serviceAccount" in spec or "serviceAccountName" in spec:
        name = spec.get("serviceAccountName") or spec.get("serviceAccount")
        spec["serviceAccountName"] = spec["serviceAccount"] = name
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        _container(container)
    for volume in spec.get("volumes") or []:
        _volume(volume)


def _container(container: Object) -> None:
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    container.setdefault("resources", {})
    if "imagePullPolicy" not in container:
        tail = str(container.get("image", "")).rsplit("/", 1)[-1]
        latest = "@" not in tail and (":" not in tail or tail.endswith(":latest"))
        container["imagePullPolicy"] = "Always" if latest else "IfNotPresent"
    for port in container.get("ports") or []:
        port.setdefault("protocol", "TCP")
    for kind in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(kind)
        if probe is not None:
            _fill(probe, _PROBE)
            _handler(probe)
    for hook in (container.get("lifecycle") or {}).values():
        if isinstance(hook, dict):
            _handler(hook)
    for variable in container.get("env") or []:
        reference = (variable.get("valueFrom") or {}).get("fieldRef")
        if reference is not None:
            reference.setdefault("apiVersion", "v1")


def _handler(handler: Object) -> None:
    if "httpGet" in handler:
        handler["httpGet"].setdefault("path", "/")
        handler["httpGet"].setdefault("scheme", "HTTP")
    if "grpc" in handler:
        handler["grpc"].setdefault("service", "")


def _volume(volume: Object) -> None:
    if len(volume) == 1:
        volume["emptyDir"] = {}
    for kind in _SOURCE_MODES:
        if kind in volume:
            volume[kind].setdefault("defaultMode", 420)
    if "hostPath" in volume:
        volume["hostPath"].setdefault("type", "")
    for source in (volume.get("projected") or {}).get("sources") or []:
        if "serviceAccountToken" in source:
            source["serviceAccountToken"].setdefault("expirationSeconds", 3600)
        for item in (source.get("downwardAPI") or {}).get("items") or []:
            (item.get("fieldRef") or {}).setdefault("apiVersion", "v1")
    for item in (volume.get("downwardAPI") or {}).get("items") or []:
        (item.get("fieldRef") or {}).setdefault("apiVersion", "v1")


def _template(spec: Object) -> None:
    template = spec.setdefault("template", {})
    pod_spec(template.setdefault("spec", {}))


def _pod(obj: Object) -> None:
    """What templates are spared, too: requests are the limits where they are not given."""
    spec = obj["spec"]
    pod_spec(spec)
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        resources = container["resources"]
        for name, limit in (resources.get("limits") or {}).items():
            resources.setdefault("requests", {}).setdefault(name, limit)
    _fill(obj["spec"], {"enableServiceLinks": True})


def _deployment(obj: Object) -> None:
    spec = obj["spec"]
    _fill(spec, {"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600})
    strategy = spec.setdefault("strategy", {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        _fill(rolling, {"maxUnavailable": "25%", "maxSurge": "25%"})
    _template(spec)


def _replica_set(obj: Object) -> None:
    obj["spec"].setdefault("replicas", 1)
    _template(obj["spec"])


def _stateful_set(obj: Object) -> None:
    spec = obj["spec"]
    _fill(spec, {"replicas": 1, "revisionHistoryLimit": 10, "podManagementPolicy": "OrderedReady"})
    strategy = spec.setdefault("updateStrategy", {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        strategy.setdefault("rollingUpdate", {}).setdefault("partition", 0)
    spec.setdefault("persistentVolumeClaimRetentionPolicy", {"whenDeleted": "Retain", "whenScaled": "Retain"})
    _template(spec)
    for claim in spec.get("volumeClaimTemplates") or []:
        _fill(claim, {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "status": {"phase": "Pending"}})
        _claim(claim)


def _daemon_set(obj: Object) -> None:
    spec = obj["spec"]
    spec.setdefault("revisionHistoryLimit", 10)
    strategy = spec.setdefault("updateStrategy", {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        _fill(strategy.setdefault("rollingUpdate", {}), {"maxUnavailable": 1, "maxSurge": 0})
    _template(spec)


def job_spec(spec: Object) -> None:
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    _fill(spec, {"parallelism": 1, "completionMode": "NonIndexed", "suspend": False, "manualSelector": False})
    if "backoffLimitPerIndex" not in spec:
        spec.setdefault("backoffLimit", 6)
    else:
        spec.setdefault("backoffLimit", 2147483647)
    spec.setdefault("podReplacementPolicy", "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed")
    _template(spec)


def _job(obj: Object) -> None:
    job_spec(obj["spec"])
    labels = (obj["spec"]["template"].get("metadata") or {}).get("labels")
    if labels and not obj["metadata"].get("labels"):
        obj["metadata"]["labels"] = dict(labels)


def _cron_job(obj: Object) -> None:
    spec = obj["spec"]
    _fill(spec, {"concurrencyPolicy": "Allow", "suspend": False})
    _fill(spec, {"successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1})
    template = spec.setdefault("jobTemplate", {})
    _template(template.setdefault("spec", {}))


def _service(obj: Object) -> None:
    spec = obj["spec"]
    _fill(spec, {"sessionAffinity": "None", "type": "ClusterIP"})
    if spec["type"] != "ExternalName":
        _fill(spec, {"internalTrafficPolicy": "Cluster"})
    if spec["type"] in ("LoadBalancer", "NodePort"):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    for port in spec.get("ports") or []:
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port"))


def _claim(obj: Object) -> None:
    obj.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")


def _volume_object(obj: Object) -> None:
    _fill(obj["spec"], {"volumeMode": "Filesystem", "persistentVolumeReclaimPolicy": "Retain"})


def _autoscaler(obj: Object) -> None:
    spec = obj["spec"]
    spec.setdefault("minReplicas", 1)
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": 80}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    behavior = spec.get("behavior")
    if behavior is not None:
        percent: Object = {"type": "Percent", "value": 100, "periodSeconds": 15}
        few: Object = {"type": "Pods", "value": 4, "periodSeconds": 15}
        up, down = behavior.setdefault("scaleUp", {}), behavior.setdefault("scaleDown", {})
        _fill(up, {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [few, dict(percent)]})
        _fill(down, {"selectPolicy": "Max", "policies": [percent]})


def _secret(obj: Object) -> None:
    plain_secret(obj)
    obj.setdefault("type", "Opaque")


def plain_secret(obj: Object) -> None:
    """What was given as text is kept as data."""
    plain = obj.pop("stringData", None)
    if plain:
        encoded = {key: base64.b64encode(str(value).encode()).decode() for key, value in plain.items()}
        obj["data"] = {**(obj.get("data") or {}), **encoded}


def _endpoint_slice(obj: Object) -> None:
    for port in obj.get("ports") or []:
        _fill(port, {"name": "", "protocol": "TCP"})


def _network_policy(obj: Object) -> None:
    spec = obj.get("spec")
    if spec is not None and "policyTypes" not in spec:
        spec["policyTypes"] = ["Ingress", *(["Egress"] if "egress" in spec else [])]
    for rule in [*((spec or {}).get("ingress") or []), *((spec or {}).get("egress") or [])]:
        for port in rule.get("ports") or []:
            port.setdefault("protocol", "TCP")


def _storage_class(obj: Object) -> None:
    _fill(obj, {"reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"})


def _priority_class(obj: Object) -> None:
    _fill(obj, {"value": 0, "preemptionPolicy": "PreemptLowerPriority"})


def _limit_range(obj: Object) -> None:
    """The bounds of containers are also what those without get."""
    for limit in obj["spec"].get("limits") or []:
        if limit.get("type") == "Container":
            most = {**(limit.get("max") or {}), **(limit.get("default") or {})}
            wanted = {**(limit.get("min") or {}), **most, **(limit.get("defaultRequest") or {})}
            limit.update({key: value for key, value in (("default", most), ("defaultRequest", wanted)) if value})


def _binding(obj: Object) -> None:
    obj.get("roleRef", {}).setdefault("apiGroup", "rbac.authorization.k8s.io")
    for subject in obj.get("subjects") or []:
        if subject.get("kind") in ("User", "Group"):
            subject.setdefault("apiGroup", "rbac.authorization.k8s.io")


def _definition(obj: Object) -> None:
    spec = obj["spec"]
    names = spec.setdefault("names", {})
    kind: str = names.get("kind", "")
    _fill(names, {"singular": kind.lower(), "listKind": f"{kind}List"})
    spec.setdefault("conversion", {"strategy": "None"})


_BY_BUCKET: dict[str, Callable[[Object], None]] = {
    "/pods": _pod,
    "/services": _service,
    "/secrets": _secret,
    "/persistentvolumeclaims": _claim,
    "/persistentvolumes": _volume_object,
    "/limitranges": _limit_range,
    "apps/deployments": _deployment,
    "apps/replicasets": _replica_set,
    "apps/statefulsets": _stateful_set,
    "apps/daemonsets": _daemon_set,
    "batch/jobs": _job,
    "batch/cronjobs": _cron_job,
    "autoscaling/horizontalpodautoscalers": _autoscaler,
    "discovery.k8s.io/endpointslices": _endpoint_slice,
    "networking.k8s.io/networkpolicies": _network_policy,
    "storage.k8s.io/storageclasses": _storage_class,
    "scheduling.k8s.io/priorityclasses": _priority_class,
    "rbac.authorization.k8s.io/rolebindings": _binding,
    "rbac.authorization.k8s.io/clusterrolebindings": _binding,
    "apiextensions.k8s.io/customresourcedefinitions": _definition,
}
_WITHOUT_SPEC = frozenset(
    {
        "/secrets", "discovery.k8s.io/endpointslices", "storage.k8s.io/storageclasses",
        "scheduling.k8s.io/priorityclasses", "rbac.authorization.k8s.io/rolebindings",
        "rbac.authorization.k8s.io/clusterrolebindings",
    }
)  # fmt: skip


def apply(bucket: str, obj: Any) -> None:
    """Fill in the defaults of a built-in kind, in place."""
    fill = _BY_BUCKET.get(bucket)
    if fill is None:
        return
    if bucket not in _WITHOUT_SPEC:
        obj.setdefault("spec", {})
    fill(obj)
