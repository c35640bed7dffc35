"""The columns of each kind: those of the real server for built-in kinds, printer columns for custom ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mizzen_local.api.jsonpath import find
from mizzen_local.api.registry import ResourceInfo
from mizzen_local.client import Object
from mizzen_local.objects import is_true, parse_time


@dataclass(frozen=True)
class Column:
    """A column and how its cell is read from an object; those of priority 1 are shown with `-o wide`."""

    name: str
    read: Callable[[Object], Any]
    type: str = "string"
    priority: int = 0
    format: str = ""
    description: str = ""

    def cell(self, obj: Object) -> Any:
        return self.read(obj)

    @property
    def definition(self) -> Object:
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        }


def age(text: str | None, now: datetime | None = None) -> str:
    """A duration since a timestamp in kubectl's words: 5s, 3m20s, 4h, 2d."""
    if not text:
        return "<unknown>"
    seconds = int(((now or datetime.now(UTC)) - parse_time(text)).total_seconds())
    return span(seconds)


def span(seconds: int) -> str:  # noqa: PLR0911
    if seconds < 0:
        return "0s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if days < 365 * 2:
        return f"{days}d"
    return f"{days // 365}y{days % 365}d"


NAME = Column("Name", lambda obj: obj["metadata"]["name"], format="name")
AGE = Column("Age", lambda obj: age(obj["metadata"].get("creationTimestamp")))


def _at(obj: Any, path: str, default: Any = None) -> Any:
    for part in path.split("."):
        obj = obj.get(part) if isinstance(obj, dict) else None
    return default if obj is None else obj


def _col(name: str, path: str, default: Any = "<none>", kind: str = "string", priority: int = 0) -> Column:
    return Column(name, lambda obj: _at(obj, path, default), kind, priority)


def _number(name: str, path: str) -> Column:
    return _col(name, path, 0, "integer")


def _containers(obj: Object, field: str) -> str:
    spec = _at(obj, "spec.template.spec", {}) or _at(obj, "spec.jobTemplate.spec.template.spec", {})
    return ",".join(str(container.get(field, "")) for container in spec.get("containers") or [])


_IMAGES = (
    Column("Containers", lambda obj: _containers(obj, "name"), priority=1),
    Column("Images", lambda obj: _containers(obj, "image"), priority=1),
)


def _selector(obj: Object) -> str:
    found = _at(obj, "spec.selector", {})
    labels = found.get("matchLabels", found) if isinstance(found, dict) else {}
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()) if isinstance(value, str)) or "<none>"


_SELECTOR = Column("Selector", _selector, priority=1)


def _pod_ready(pod: Object) -> str:
    statuses = _at(pod, "status.containerStatuses", [])
    total = len(pod["spec"].get("containers") or [])
    return f"{sum(bool(item.get('ready')) for item in statuses)}/{total}"


def pod_status(pod: Object) -> str:
    """The word that kubectl prints for a pod: a reason where there is one, else its phase."""
    reason: str = _at(pod, "status.reason") or _at(pod, "status.phase", "Unknown")
    initializing = _init_status(pod)
    if initializing:
        reason = initializing
    else:
        running = False
        for item in reversed(_at(pod, "status.containerStatuses", [])):
            state = item.get("state") or {}
            waiting, ended = state.get("waiting") or {}, state.get("terminated")
            if waiting.get("reason"):
                reason = waiting["reason"]
            elif ended is not None:
                code, signal = ended.get("exitCode", 0), ended.get("signal")
                reason = ended.get("reason") or (f"Signal:{signal}" if signal else f"ExitCode:{code}")
            elif item.get("ready") and state.get("running") is not None:
                running = True
        if reason == "Completed" and running:
            reason = "Running" if is_true(pod, "Ready") else "NotReady"
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating"
    return reason


def _init_status(pod: Object) -> str:
    for index, item in enumerate(_at(pod, "status.initContainerStatuses", [])):
        state = item.get("state") or {}
        ended = state.get("terminated")
        if (ended is not None and ended.get("exitCode") == 0) or item.get("started"):
            continue
        if ended is not None:
            return f"Init:{ended.get('reason') or 'ExitCode:' + str(ended.get('exitCode'))}"
        waiting = (state.get("waiting") or {}).get("reason", "")
        if waiting and waiting != "PodInitializing":
            return f"Init:{waiting}"
        return f"Init:{index}/{len(pod['spec'].get('initContainers') or [])}"
    return ""


def _restarts(pod: Object) -> str:
    statuses = [*_at(pod, "status.initContainerStatuses", []), *_at(pod, "status.containerStatuses", [])]
    count = sum(item.get("restartCount", 0) for item in statuses)
    ends = [_at(item, "lastState.terminated.finishedAt") for item in statuses]
    last = max((end for end in ends if end), default=None)
    return f"{count} ({age(last)} ago)" if count and last else str(count)


def _job_status(job: Object) -> str:
    for kind in ("Complete", "Failed", "Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if is_true(job, kind):
            return kind
    return "Terminating" if "deletionTimestamp" in job["metadata"] else "Running"


def _completions(job: Object) -> str:
    done = _at(job, "status.succeeded", 0)
    total = _at(job, "spec.completions")
    parallel = _at(job, "spec.parallelism", 1)
    if total is not None:
        return f"{done}/{total}"
    return f"{done}/1 of {parallel}" if parallel > 1 else f"{done}/1"


def _duration(job: Object) -> str:
    start, end = _at(job, "status.startTime"), _at(job, "status.completionTime")
    if not start:
        return ""
    return age(start, parse_time(end) if end else None)


def _ports(service: Object) -> str:
    listed = []
    for port in _at(service, "spec.ports", []):
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        listed.append(f"{port['port']}{node}/{port.get('protocol', 'TCP')}")
    return ",".join(listed) or "<none>"


def _external(service: Object) -> str:
    kind = _at(service, "spec.type")
    if kind == "LoadBalancer":
        ingress = _at(service, "status.loadBalancer.ingress", [])
        return ",".join(item.get("ip") or item.get("hostname", "") for item in ingress) or "<pending>"
    if kind == "ExternalName":
        return str(_at(service, "spec.externalName", "<none>"))
    return ",".join(_at(service, "spec.externalIPs", [])) or "<none>"


def _node_status(node: Object) -> str:
    ready = next((c for c in _at(node, "status.conditions", []) if c["type"] == "Ready"), None)
    word = "Unknown" if ready is None else "Ready" if ready["status"] == "True" else "NotReady"
    return word + (",SchedulingDisabled" if _at(node, "spec.unschedulable") else "")


def _roles(node: Object) -> str:
    prefix = "node-role.kubernetes.io/"
    labels = node["metadata"].get("labels") or {}
    return ",".join(sorted(key.removeprefix(prefix) for key in labels if key.startswith(prefix))) or "<none>"


def _address(node: Object, kind: str) -> str:
    found = [item["address"] for item in _at(node, "status.addresses", []) if item["type"] == kind]
    return found[0] if found else "<none>"


def _modes(obj: Object) -> str:
    short = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}
    return ",".join(short.get(mode, mode) for mode in _at(obj, "spec.accessModes", []))


def _claim_ref(obj: Object) -> str:
    reference = _at(obj, "spec.claimRef", {})
    return f"{reference.get('namespace', '')}/{reference.get('name', '')}" if reference else ""


def _event_object(event: Object) -> str:
    involved = event.get("involvedObject") or {}
    return f"{str(involved.get('kind', '')).lower()}/{involved.get('name', '')}"


def _last_seen(event: Object) -> str:
    return age(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp"))


def _endpoints(obj: Object) -> str:
    found = [
        f"{address['ip']}:{port['port']}"
        for subset in obj.get("subsets") or []
        for address in subset.get("addresses") or []
        for port in subset.get("ports") or []
    ]
    more = f" + {len(found) - 3} more..." if len(found) > 3 else ""
    return ",".join(found[:3]) + more or "<none>"


def _slice_addresses(obj: Object) -> str:
    found = [address for item in obj.get("endpoints") or [] for address in item.get("addresses") or []]
    more = f" + {len(found) - 3} more..." if len(found) > 3 else ""
    return ",".join(found[:3]) + more or "<unset>"


def _slice_ports(obj: Object) -> str:
    return ",".join(str(port.get("port", "*")) for port in obj.get("ports") or []) or "<unset>"


def _autoscaler_reference(obj: Object) -> str:
    reference = _at(obj, "spec.scaleTargetRef", {})
    return f"{reference.get('kind', '')}/{reference.get('name', '')}"


def _autoscaler_targets(obj: Object) -> str:
    wanted, current = _at(obj, "spec.metrics", []), _at(obj, "status.currentMetrics", [])
    # one that could not be read has no type, but its place
    shown = [_metric(metric, current[i] if i < len(current) else {}) for i, metric in enumerate(wanted)]
    more = f" + {len(shown) - 2} more..." if len(shown) > 2 else ""
    return ", ".join(shown[:2]) + more or "<none>"


def _metric(metric: Object, current: Object) -> str:
    """`cpu: 12%/50%`, with what is measured before what is wanted."""
    place = metric["type"][0].lower() + metric["type"][1:]
    wanted, seen = metric[place].get("target", {}), _at(current, place, {}).get("current", {})
    name = f"{metric[place]['name']}: " if place in {"resource", "containerResource"} else ""
    if "averageValue" in wanted:
        suffix = " (avg)" if place in {"object", "external"} else ""
        return f"{name}{seen.get('averageValue', '<unknown>')}/{wanted['averageValue']}{suffix}"
    if "value" in wanted:
        return f"{seen.get('value', '<unknown>')}/{wanted['value']}"
    percent = f"{seen['averageUtilization']}%" if "averageUtilization" in seen else "<unknown>"
    return f"{name}{percent}/{wanted['averageUtilization']}%"


def _data_count(obj: Object) -> int:
    return len(obj.get("data") or {}) + len(obj.get("binaryData") or {})


def _of_replicas(obj: Object) -> str:
    return f"{_at(obj, 'status.readyReplicas', 0)}/{_at(obj, 'spec.replicas', 0)}"


def _subjects(kind: str) -> Callable[[Object], str]:
    def read(obj: Object) -> str:
        found = [subject for subject in obj.get("subjects") or [] if subject["kind"] == kind]
        return ", ".join(f"{s['namespace']}/{s['name']}" if kind == "ServiceAccount" else s["name"] for s in found)

    return read


_SUBJECTS = tuple(
    Column(title, _subjects(kind), priority=1)
    for title, kind in (("Users", "User"), ("Groups", "Group"), ("ServiceAccounts", "ServiceAccount"))
)


def _quota_use(limits: bool) -> Callable[[Object], str]:
    """`pods: 1/3, ...` of the requests and counts, or of the limits."""

    def read(obj: Object) -> str:
        hard, used = _at(obj, "status.hard", {}), _at(obj, "status.used", {})
        chosen = [name for name in sorted(hard) if name.startswith("limits.") is limits]
        return ", ".join(f"{name}: {used.get(name, '0')}/{hard[name]}" for name in chosen)

    return read


BUILTIN: dict[str, tuple[Column, ...]] = {
    "/pods": (
        NAME, Column("Ready", _pod_ready), Column("Status", pod_status), Column("Restarts", _restarts), AGE,
        _col("IP", "status.podIP", priority=1), _col("Node", "spec.nodeName", priority=1),
        _col("Nominated Node", "status.nominatedNodeName", priority=1),
        Column("Readiness Gates", lambda _: "<none>", priority=1),
    ),
    "apps/deployments": (
        NAME, Column("Ready", _of_replicas), _number("Up-to-date", "status.updatedReplicas"),
        _number("Available", "status.availableReplicas"), AGE, *_IMAGES, _SELECTOR,
    ),
    "apps/replicasets": (
        NAME, _number("Desired", "spec.replicas"), _number("Current", "status.replicas"),
        _number("Ready", "status.readyReplicas"), AGE, *_IMAGES, _SELECTOR,
    ),
    "apps/statefulsets": (NAME, Column("Ready", _of_replicas), AGE, *_IMAGES),
    "apps/daemonsets": (
        NAME, _number("Desired", "status.desiredNumberScheduled"), _number("Current", "status.currentNumberScheduled"),
        _number("Ready", "status.numberReady"), _number("Up-to-date", "status.updatedNumberScheduled"),
        _number("Available", "status.numberAvailable"), AGE, *_IMAGES, _SELECTOR,
    ),
    "batch/jobs": (
        NAME, Column("Status", _job_status), Column("Completions", _completions), Column("Duration", _duration), AGE,
        *_IMAGES, _SELECTOR,
    ),
    "batch/cronjobs": (
        NAME, _col("Schedule", "spec.schedule"), _col("Timezone", "spec.timeZone"),
        Column("Suspend", lambda obj: str(_at(obj, "spec.suspend", False)), "boolean"),
        Column("Active", lambda obj: len(_at(obj, "status.active", [])), "integer"),
        Column("Last Schedule", lambda o: age(t) if (t := _at(o, "status.lastScheduleTime")) else "<none>"), AGE,
        *_IMAGES, _SELECTOR,
    ),
    "/services": (
        NAME, _col("Type", "spec.type"), _col("Cluster-IP", "spec.clusterIP"), Column("External-IP", _external),
        Column("Port(s)", _ports), AGE, _SELECTOR,
    ),
    "/nodes": (
        NAME, Column("Status", _node_status), Column("Roles", _roles), AGE,
        _col("Version", "status.nodeInfo.kubeletVersion", ""),
        Column("Internal-IP", lambda obj: _address(obj, "InternalIP"), priority=1),
        Column("External-IP", lambda obj: _address(obj, "ExternalIP"), priority=1),
        _col("OS-Image", "status.nodeInfo.osImage", "<unknown>", priority=1),
        _col("Kernel-Version", "status.nodeInfo.kernelVersion", "<unknown>", priority=1),
        _col("Container-Runtime", "status.nodeInfo.containerRuntimeVersion", "<unknown>", priority=1),
    ),
    "/events": (
        Column("Last Seen", _last_seen),
        _col("Type", "type", ""), _col("Reason", "reason", ""), Column("Object", _event_object),
        _col("Subobject", "involvedObject.fieldPath", "", priority=1),
        _col("Source", "source.component", "", priority=1),
        Column("Message", lambda obj: str(obj.get("message", "")).strip()),
        Column("First Seen", lambda o: age(o.get("firstTimestamp") or o.get("eventTime")), priority=1),
        Column("Count", lambda obj: obj.get("count", 1), "integer", 1),
        Column("Name", lambda obj: obj["metadata"]["name"], priority=1, format="name"),
    ),
    "/persistentvolumeclaims": (
        NAME, _col("Status", "status.phase", ""), _col("Volume", "spec.volumeName", ""),
        _col("Capacity", "status.capacity.storage", ""), Column("Access Modes", _modes),
        _col("StorageClass", "spec.storageClassName", ""), AGE, _col("VolumeMode", "spec.volumeMode", priority=1),
    ),
    "/persistentvolumes": (
        NAME, _col("Capacity", "spec.capacity.storage", ""), Column("Access Modes", _modes),
        _col("Reclaim Policy", "spec.persistentVolumeReclaimPolicy", ""), _col("Status", "status.phase", ""),
        Column("Claim", _claim_ref), _col("StorageClass", "spec.storageClassName", ""), AGE,
    ),
    "/namespaces": (NAME, _col("Status", "status.phase", ""), AGE),
    "/resourcequotas": (NAME, Column("Request", _quota_use(False)), Column("Limit", _quota_use(True)), AGE),
    "/limitranges": (NAME, Column("Created At", lambda o: o["metadata"].get("creationTimestamp"))),
    "/configmaps": (NAME, Column("Data", _data_count, "integer"), AGE),
    "/secrets": (NAME, _col("Type", "type", ""), Column("Data", _data_count, "integer"), AGE),
    "/serviceaccounts": (NAME, AGE),
    "/endpoints": (NAME, Column("Endpoints", _endpoints), AGE),
    "discovery.k8s.io/endpointslices": (
        NAME, _col("AddressType", "addressType", ""), Column("Ports", _slice_ports),
        Column("Endpoints", _slice_addresses), AGE,
    ),
    "autoscaling/horizontalpodautoscalers": (
        NAME, Column("Reference", _autoscaler_reference), Column("Targets", _autoscaler_targets),
        _col("MinPods", "spec.minReplicas", "<unset>"), _number("MaxPods", "spec.maxReplicas"),
        _number("Replicas", "status.currentReplicas"), AGE,
    ),
    "policy/poddisruptionbudgets": (
        NAME, _col("Min Available", "spec.minAvailable", "N/A"), _col("Max Unavailable", "spec.maxUnavailable", "N/A"),
        _number("Allowed Disruptions", "status.disruptionsAllowed"), AGE,
    ),
    "coordination.k8s.io/leases": (NAME, _col("Holder", "spec.holderIdentity", ""), AGE),
    "rbac.authorization.k8s.io/roles": (NAME, Column("Created At", lambda o: o["metadata"].get("creationTimestamp"))),
    "rbac.authorization.k8s.io/clusterroles": (
        NAME, Column("Created At", lambda o: o["metadata"].get("creationTimestamp")),
    ),
    "rbac.authorization.k8s.io/rolebindings": (
        NAME, Column("Role", lambda o: f"{o['roleRef']['kind']}/{o['roleRef']['name']}"), AGE, *_SUBJECTS,
    ),
    "rbac.authorization.k8s.io/clusterrolebindings": (
        NAME, Column("Role", lambda o: f"{o['roleRef']['kind']}/{o['roleRef']['name']}"), AGE, *_SUBJECTS,
    ),
    "apiextensions.k8s.io/customresourcedefinitions": (
        NAME, Column("Created At", lambda o: o["metadata"].get("creationTimestamp")),
    ),
    "storage.k8s.io/storageclasses": (
        NAME, _col("Provisioner", "provisioner", ""), _col("ReclaimPolicy", "reclaimPolicy", ""),
        _col("VolumeBindingMode", "volumeBindingMode", ""),
        Column("AllowVolumeExpansion", lambda o: str(o.get("allowVolumeExpansion", False)).lower()), AGE,
    ),
    "scheduling.k8s.io/priorityclasses": (
        NAME, _number("Value", "value"), Column("Global-Default", lambda o: str(o.get("globalDefault", False)).lower()),
        AGE, _col("PreemptionPolicy", "preemptionPolicy", ""),
    ),
    "networking.k8s.io/networkpolicies": (
        NAME,
        Column("Pod-Selector", lambda o: _selector({"spec": {"selector": _at(o, "spec.podSelector", {})}})), AGE,
    ),
    "networking.k8s.io/ingressclasses": (NAME, _col("Controller", "spec.controller", ""), AGE),
}  # fmt: skip


def of(info: ResourceInfo) -> tuple[Column, ...]:
    if info.crd_version is not None:
        declared = info.crd_version.get("additionalPrinterColumns")
        if not declared:
            return (NAME, AGE)
        return (NAME, *(_printer_column(item) for item in declared))
    return BUILTIN.get(info.bucket, (NAME, AGE))


def _printer_column(item: Object) -> Column:
    kind = item.get("type", "string")
    path = item["jsonPath"]

    def read(obj: Object) -> Any:
        found = find(path)(obj)
        if not found:
            return None
        value = found[0]
        if kind == "date":
            return age(value) if isinstance(value, str) else "<unknown>"
        if kind == "string" and not isinstance(value, str):
            import orjson

            return orjson.dumps(value).decode()
        return value

    return Column(
        item["name"], read, kind, item.get("priority", 0), item.get("format", ""),
        item.get("description") or f"Custom resource definition column (in JSONPath format): {path}",
    )  # fmt: skip
