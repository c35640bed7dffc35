"""Validation of metadata and of built-in kinds: the essentials that a manifest gets wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mizzen_local import schedules
from mizzen_local.api import autoscalerchecks, limitchecks, names, validation
from mizzen_local.api.registry import ResourceInfo
from mizzen_local.api.status import Cause, duplicate, forbidden_field, invalid_value, required, unsupported
from mizzen_local.client import Object

_LABEL_NAMES = frozenset({"/namespaces", "/services"})
_RBAC = "rbac.authorization.k8s.io"
_IMMUTABLE = "field is immutable"
# their own checks say what they miss, with what follows from it
_SELECTING = frozenset({"apps/deployments", "apps/replicasets", "apps/statefulsets", "apps/daemonsets"})


def metadata(info: ResourceInfo, obj: Object, causes: list[Cause]) -> None:
    """Names, labels, annotations and owners, which every object has."""
    meta = obj["metadata"]
    name = meta.get("name", "")
    if info.group == _RBAC:
        problem = names.path_problem(name)
    elif info.bucket in _LABEL_NAMES:
        problem = names.label_problem(name)
    else:
        problem = names.subdomain_problem(name)
    if problem:
        causes.append(invalid_value("metadata.name", name, problem))
    for key, value in (meta.get("labels") or {}).items():
        if problem := names.qualified_problem(key):
            causes.append(invalid_value("metadata.labels", key, problem))
        if problem := names.label_value_problem(value):
            causes.append(invalid_value("metadata.labels", value, problem))
    for key in meta.get("annotations") or {}:
        if problem := names.qualified_problem(key.lower()):
            causes.append(invalid_value("metadata.annotations", key, problem))
    if sum(len(k) + len(v) for k, v in (meta.get("annotations") or {}).items()) > 256 * 1024:
        message = "Too long: may not be more than 262144 bytes"
        causes.append(Cause("metadata.annotations", "FieldValueTooLong", message))
    _owners(meta, causes)


def _owners(meta: Object, causes: list[Cause]) -> None:
    for owner in meta.get("ownerReferences") or []:
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(field):
                detail = "version must not be empty" if field == "apiVersion" else "must not be empty"
                causes.append(invalid_value(f"metadata.ownerReferences.{field}", owner.get(field, ""), detail))
    if sum(bool(owner.get("controller")) for owner in meta.get("ownerReferences") or []) > 1:
        detail = "Only one reference can have Controller set to true"
        causes.append(invalid_value("metadata.ownerReferences", "", detail))


def builtin(info: ResourceInfo, obj: Object, old: Object | None, causes: list[Cause]) -> None:
    """Required fields, values and immutability of a built-in kind; its status is the writer's own affair."""
    checked = {key: value for key, value in obj.items() if key not in ("status", "metadata")}
    validation.missing(info.schema, {**checked, "metadata": {}}, "", causes)
    if info.bucket in _SELECTING:
        causes[:] = [cause for cause in causes if cause.field not in ("spec.selector", "spec.template")]
    check = _BY_BUCKET.get(info.bucket)
    if check is not None and not causes:
        check(obj, old, causes)


def _pod(obj: Object, old: Object | None, causes: list[Cause]) -> None:
    _pod_spec(obj["spec"], "spec", causes, ("Always", "OnFailure", "Never"))
    if old is not None and not causes:
        _pod_unchanged(obj, old, causes)


def _pod_unchanged(obj: Object, old: Object, causes: list[Cause]) -> None:
    def fixed(spec: Object) -> Object:
        flexible = ("activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "schedulingGates")
        rest = {key: value for key, value in spec.items() if key not in flexible}
        for kind in ("containers", "initContainers"):
            if kind in rest:
                rest[kind] = [{**container, "image": ""} for container in rest[kind]]
        return rest

    before, after = fixed(old["spec"]), fixed(obj["spec"])
    if "nodeName" not in before:
        after.pop("nodeName", None)  # binding
    if before != after:
        detail = (
            "pod updates may not change fields other than `spec.containers[*].image`,"
            "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to"
            " existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was"
            " previously negative)"
        )
        causes.append(forbidden_field("spec", detail))


def _pod_spec(spec: Object, path: str, causes: list[Cause], policies: tuple[str, ...]) -> None:
    containers = spec.get("containers") or []
    if not containers:
        causes.append(required(f"{path}.containers"))
    if spec.get("restartPolicy") not in policies:
        causes.append(unsupported(f"{path}.restartPolicy", spec.get("restartPolicy"), sorted(policies)))
    volumes = {volume.get("name") for volume in spec.get("volumes") or []}
    if len(volumes) != len(spec.get("volumes") or []):
        causes.append(duplicate(f"{path}.volumes", "name"))
    seen: set[str] = set()
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(kind) or []):
            place = f"{path}.{kind}[{index}]"
            name = container.get("name", "")
            if problem := names.label_problem(name):
                causes.append(invalid_value(f"{place}.name", name, problem) if name else required(f"{place}.name"))
            if name in seen:
                causes.append(duplicate(f"{place}.name", name))
            seen.add(name)
            if not container.get("image"):
                causes.append(required(f"{place}.image"))
            _container(container, place, volumes, causes)


def _container(container: Object, place: str, volumes: set[Any], causes: list[Cause]) -> None:
    policy = container.get("imagePullPolicy")
    if policy not in ("Always", "IfNotPresent", "Never"):
        causes.append(unsupported(f"{place}.imagePullPolicy", policy, ["Always", "IfNotPresent", "Never"]))
    for index, mount in enumerate(container.get("volumeMounts") or []):
        if mount.get("name") not in volumes:
            field = f"{place}.volumeMounts[{index}].name"
            causes.append(Cause(field, "FieldValueNotFound", f'Not found: "{mount.get("name")}"'))
    for index, port in enumerate(container.get("ports") or []):
        number = port.get("containerPort", 0)
        if not 0 < number < 65536:
            field = f"{place}.ports[{index}].containerPort"
            causes.append(invalid_value(field, number, "must be between 1 and 65535, inclusive"))
    names_seen: set[str] = set()
    for index, variable in enumerate(container.get("env") or []):
        if not variable.get("name"):
            causes.append(required(f"{place}.env[{index}].name"))
        names_seen.add(variable.get("name", ""))
    resources = container.get("resources") or {}
    _resources(resources, f"{place}.resources", causes)


def _resources(resources: Object, path: str, causes: list[Cause]) -> None:
    from mizzen_local.objects import quantity

    amounts: dict[str, dict[str, float]] = {"requests": {}, "limits": {}}
    for kind, found in amounts.items():
        for name, amount in (resources.get(kind) or {}).items():
            try:
                found[name] = quantity(amount)
            except ValueError:
                detail = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
                causes.append(invalid_value(f"{path}.{kind}[{name}]", amount, detail))
    for name, amount in amounts["requests"].items():
        if amount > amounts["limits"].get(name, amount):
            text = f"must be less than or equal to {name} limit of {resources['limits'][name]}"
            causes.append(invalid_value(f"{path}.requests", resources["requests"][name], text))


def _workload(policies: tuple[str, ...] = ("Always",)) -> Callable[[Object, Object | None, list[Cause]], None]:
    def check(obj: Object, old: Object | None, causes: list[Cause]) -> None:
        from mizzen_local.objects import selects

        spec = obj["spec"]
        selector = spec.get("selector")
        template = spec.get("template") or {}
        labels = (template.get("metadata") or {}).get("labels")
        if not selector:
            causes.append(required("spec.selector"))
        elif not selector.get("matchLabels") and not selector.get("matchExpressions"):
            causes.append(invalid_value("spec.selector", selector, "empty selector is invalid for deployment"))
        if not selector or not selects(selector, labels):
            detail = "`selector` does not match template `labels`"
            causes.append(invalid_value("spec.template.metadata.labels", labels, detail))
        if spec.get("replicas", 0) < 0:
            detail = "must be greater than or equal to 0"
            causes.append(invalid_value("spec.replicas", spec["replicas"], detail))
        if old is not None and old["spec"].get("selector") != selector:
            causes.append(invalid_value("spec.selector", selector, _IMMUTABLE))
        _pod_spec(template.get("spec") or {}, "spec.template.spec", causes, policies)

    return check


def _job(obj: Object, old: Object | None, causes: list[Cause]) -> None:
    spec = obj["spec"]
    _job_spec(spec, "spec", causes)
    if old is None:
        return
    mutable = _only_scheduling_may_change(old)
    for field in ("completions", "selector", "template", "completionMode", "podFailurePolicy"):
        if (field == "template" and mutable) or (field == "completions" and spec.get("completionMode") == "Indexed"):
            continue
        if old["spec"].get(field) != spec.get(field):
            causes.append(invalid_value(f"spec.{field}", spec.get(field), _IMMUTABLE))


def _only_scheduling_may_change(job: Object) -> bool:
    """A suspended job that never started may get new scheduling directives."""
    return bool(job["spec"].get("suspend")) and not (job.get("status") or {}).get("startTime")


def _job_spec(spec: Object, path: str, causes: list[Cause]) -> None:
    for field in ("parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"):
        if spec.get(field, 0) < 0:
            causes.append(invalid_value(f"{path}.{field}", spec[field], "must be greater than or equal to 0"))
    if spec.get("completionMode") == "Indexed" and "completions" not in spec:
        causes.append(required(f"{path}.completions", "when completion mode is Indexed"))
    template = spec["template"]["spec"]
    policy = template.get("restartPolicy")
    if policy not in ("OnFailure", "Never"):
        field = f"{path}.template.spec.restartPolicy"
        causes.append(Cause(field, "FieldValueRequired", 'Required value: valid values: "OnFailure", "Never"'))
    else:
        _pod_spec(template, f"{path}.template.spec", causes, ("OnFailure", "Never"))


def _cron_job(obj: Object, old: Object | None, causes: list[Cause]) -> None:
    spec = obj["spec"]
    schedule, zone = spec.get("schedule", ""), spec.get("timeZone")
    if not schedule:
        causes.append(required("spec.schedule"))
    elif "TZ" in schedule:
        detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        causes.append(invalid_value("spec.schedule", schedule, detail))
    else:
        try:
            schedules.parse(schedule)
        except schedules.ScheduleError as error:
            causes.append(invalid_value("spec.schedule", schedule, str(error)))
    for field in ("startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        if spec.get(field, 0) < 0:
            causes.append(invalid_value(f"spec.{field}", spec[field], "must be greater than or equal to 0"))
    if zone == "":
        causes.append(invalid_value("spec.timeZone", zone, "timeZone must be nil or non-empty string"))
    elif zone and (old is None or old["spec"].get("timeZone") != zone):
        try:
            schedules.zone_of(zone)
        except schedules.ScheduleError as error:
            causes.append(invalid_value("spec.timeZone", zone, str(error)))
    policies = ["Allow", "Forbid", "Replace"]
    if spec.get("concurrencyPolicy") not in policies:
        causes.append(unsupported("spec.concurrencyPolicy", spec.get("concurrencyPolicy"), policies))
    _job_spec(spec["jobTemplate"]["spec"], "spec.jobTemplate.spec", causes)
    if old is None and len(obj["metadata"]["name"]) > 52:
        # the controller appends the minute, and a Job's name has 63 characters at most
        causes.append(invalid_value("metadata.name", obj["metadata"]["name"], "must be no more than 52 characters"))


def _budget(obj: Object, _: Object | None, causes: list[Cause]) -> None:
    spec = obj["spec"]
    if "minAvailable" in spec and "maxUnavailable" in spec:
        causes.append(invalid_value("spec", spec, "minAvailable and maxUnavailable cannot be both set"))
    for field in ("minAvailable", "maxUnavailable"):
        value = spec.get(field, 0)
        if isinstance(value, str):
            if not value.removesuffix("%").isdecimal() or not value.endswith("%"):
                detail = "a valid percent string must be a numeric string followed by an ending '%'"
                causes.append(invalid_value(f"spec.{field}", value, detail))
            elif int(value[:-1]) > 100:
                causes.append(invalid_value(f"spec.{field}", value, "must not be greater than 100%"))
        elif value < 0:
            causes.append(invalid_value(f"spec.{field}", value, "must be greater than or equal to 0"))


def _service(obj: Object, _: Object | None, causes: list[Cause]) -> None:
    spec = obj["spec"]
    kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]
    if spec.get("type") not in kinds:
        causes.append(unsupported("spec.type", spec.get("type"), kinds))
    ports = spec.get("ports") or []
    if not ports and spec.get("type") != "ExternalName" and spec.get("clusterIP") != "None":
        causes.append(required("spec.ports"))
    for index, port in enumerate(ports):
        if not 0 < port.get("port", 0) < 65536:
            detail = "must be between 1 and 65535, inclusive"
            causes.append(invalid_value(f"spec.ports[{index}].port", port.get("port", 0), detail))
        if len(ports) > 1 and not port.get("name"):
            causes.append(required(f"spec.ports[{index}].name"))


def _config_map(obj: Object, old: Object | None, causes: list[Cause]) -> None:
    size = sum(len(str(value)) for field in ("data", "binaryData") for value in (obj.get(field) or {}).values())
    if size > 1024 * 1024:
        causes.append(Cause("[]", "FieldValueTooLong", "Too long: may not be more than 1048576 bytes"))
    for field in ("data", "binaryData"):
        for key in obj.get(field) or {}:
            if problem := names.config_key_problem(key):
                causes.append(invalid_value(f"{field}[{key}]", key, problem))
    if old is not None and old.get("immutable"):
        if not obj.get("immutable"):
            causes.append(forbidden_field("immutable", "field is immutable when `immutable` is set"))
        for field in ("data", "binaryData", "stringData"):
            if old.get(field) != obj.get(field):
                causes.append(forbidden_field(field, "field is immutable when `immutable` is set"))
    if old is not None and old.get("type") and old.get("type") != obj.get("type"):
        causes.append(invalid_value("type", obj.get("type", ""), _IMMUTABLE))


def _binding(obj: Object, old: Object | None, causes: list[Cause]) -> None:
    if old is not None and old.get("roleRef") != obj.get("roleRef"):
        causes.append(invalid_value("roleRef", obj.get("roleRef"), "cannot change roleRef"))


def _lease(obj: Object, _: Object | None, causes: list[Cause]) -> None:
    spec = obj.get("spec") or {}
    if spec.get("leaseDurationSeconds", 1) <= 0:
        seconds = spec["leaseDurationSeconds"]
        causes.append(invalid_value("spec.leaseDurationSeconds", seconds, "must be greater than 0"))
    if spec.get("leaseTransitions", 0) < 0:
        detail = "must be greater than or equal to 0"
        causes.append(invalid_value("spec.leaseTransitions", spec["leaseTransitions"], detail))


def _event(obj: Object, _: Object | None, causes: list[Cause]) -> None:
    about, home = (obj.get("involvedObject") or {}).get("namespace", ""), obj["metadata"].get("namespace", "")
    if about != home and not (not about and home in ("default", "kube-system")):
        causes.append(invalid_value("involvedObject.namespace", about, "does not match event.namespace"))


_BY_BUCKET: dict[str, Callable[[Object, Object | None, list[Cause]], None]] = {
    "/pods": _pod,
    "/services": _service,
    "/configmaps": _config_map,
    "/secrets": _config_map,
    "/events": _event,
    "coordination.k8s.io/leases": _lease,
    "apps/deployments": _workload(),
    "apps/replicasets": _workload(),
    "apps/statefulsets": _workload(),
    "apps/daemonsets": _workload(),
    "batch/jobs": _job,
    "batch/cronjobs": _cron_job,
    "autoscaling/horizontalpodautoscalers": autoscalerchecks.check,
    "policy/poddisruptionbudgets": _budget,
    "/resourcequotas": limitchecks.quota,
    "/limitranges": limitchecks.limit_range,
    "scheduling.k8s.io/priorityclasses": limitchecks.priority_class,
    f"{_RBAC}/rolebindings": _binding,
    f"{_RBAC}/clusterrolebindings": _binding,
}
