"""The arithmetic of a ResourceQuota: what each object uses, and whether one more still fits. Pure.

The API server charges a creation by it, the quota controller recounts by it. Rules and words are those of
kube-apiserver's ResourceQuota admission.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from mizzen_local.client import Object
from mizzen_local.objects import is_finished_pod, meta, parse_time, pod_qos, requirement_holds
from mizzen_local.quantities import Amounts, Quantity, amounts, greatest, only, plus

_STORAGE_CLASS = ".storageclass.storage.k8s.io/"
_COMPUTE = ("cpu", "memory", "ephemeral-storage")
# a quota of these wants them set on every container: an old mistake that Kubernetes keeps
_DEMANDED = frozenset({"cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"})
_OF_PODS = frozenset({"count/pods", "pods", *_COMPUTE, *(f"{k}.{r}" for k in ("requests", "limits") for r in _COMPUTE)})
_OF_SERVICES = frozenset({"count/services", "services", "services.nodeports", "services.loadbalancers"})
_OF_CLAIMS = frozenset({"count/persistentvolumeclaims", "persistentvolumeclaims", "requests.storage"})
_PLAINLY_COUNTED = frozenset({"/configmaps", "/secrets", "/resourcequotas", "/replicationcontrollers"})
_IGNORED = frozenset({"/events", "events.k8s.io/events"})


class QuotaError(Exception):
    """Why an object is not admitted, in the words that follow `is forbidden:`."""


def counts(bucket: str, name: str) -> bool:
    """Whether objects of a resource ("GROUP/PLURAL") use what the quota calls `name`."""
    match bucket:
        case "/pods":
            return name in _OF_PODS or name.startswith(("hugepages-", "requests.hugepages-")) or _is_extended(name)
        case "/services":
            return name in _OF_SERVICES
        case "/persistentvolumeclaims":
            tail = name.partition(_STORAGE_CLASS)[2]
            return name in _OF_CLAIMS or tail in ("persistentvolumeclaims", "requests.storage")
    return name in _names(bucket)


def resource_counted(name: str) -> str | None:
    """The resource ("GROUP/PLURAL") whose objects the quota's `name` counts; None where nobody can tell."""
    if name.startswith("count/"):
        plural, _, group = name.removeprefix("count/").partition(".")
        return f"{group}/{plural}"
    for bucket in ("/pods", "/services", "/persistentvolumeclaims", *_PLAINLY_COUNTED):
        if counts(bucket, name):
            return bucket
    return None


def usage(bucket: str, obj: Object, now: datetime) -> Amounts:
    match bucket:
        case "/pods":
            return {"count/pods": Quantity.count(1), **(_pod_usage(obj["spec"]) if _is_charged(obj, now) else {})}
        case "/services":
            return _service_usage(obj["spec"])
        case "/persistentvolumeclaims":
            return _claim_usage(obj)
    return {name: Quantity.count(1) for name in _names(bucket)}


def in_scope(quota: Object, bucket: str, obj: Object) -> bool:
    """Whether the quota's scopes include the object; only pods have scopes."""
    spec = quota["spec"]
    terms = [{"scopeName": scope, "operator": "Exists"} for scope in spec.get("scopes") or []]
    terms += (spec.get("scopeSelector") or {}).get("matchExpressions") or []
    return all(bucket == "/pods" and _matches(term, obj) for term in terms)


def used(quota: Object, bucket: str, objects: Iterable[Object], now: datetime) -> Amounts:
    """What all objects of a resource use together of what the quota limits."""
    names = [name for name in quota["spec"].get("hard") or {} if counts(bucket, name)]
    total = {name: Quantity() for name in names}
    for obj in objects:
        if in_scope(quota, bucket, obj):
            total = plus(total, only(usage(bucket, obj, now), names))
    return total


@dataclass(frozen=True)
class Charge:
    """A quota and what it would have in use once the object is stored."""

    quota: Object
    used: Amounts


def is_metered(bucket: str, obj: Object, old: Object | None) -> bool:
    """Whether a write of the object can change any quota's usage."""
    if bucket in _IGNORED:
        return False
    if old is None:
        return True
    if bucket == "/pods":
        return _is_terminating(obj) != _is_terminating(old)
    return bucket in ("/services", "/persistentvolumeclaims")


def charges(quotas: list[Object], bucket: str, obj: Object, old: Object | None, now: datetime) -> list[Charge]:
    """What a write costs; `old` is what it replaces. Raises QuotaError where a quota has no room for it.

    A quota counts from the moment that its status has the limits: until then nobody knows what is in use.
    """
    found = []
    asked = usage(bucket, obj, now)
    for quota in quotas:
        hard = amounts((quota.get("status") or {}).get("hard"))
        limited = sorted(name for name in hard if counts(bucket, name))
        if not limited or not in_scope(quota, bucket, obj):
            continue
        _demand(quota, bucket, limited, obj)
        known = amounts(quota["status"].get("used"))
        if any(name not in known for name in limited):
            raise QuotaError(f"status unknown for quota: {meta(quota)['name']}, resources: {','.join(limited)}")
        before = usage(bucket, old, now) if old is not None and in_scope(quota, bucket, old) else {}
        wanted = {name: value - before.get(name, Quantity()) for name, value in only(asked, hard).items()}
        wanted = {name: value for name, value in wanted.items() if value > Quantity()}
        if not wanted:
            continue
        after = plus(known, wanted)
        over = sorted(name for name in wanted if after[name] > hard[name])
        if over:
            raise QuotaError(
                f"exceeded quota: {meta(quota)['name']}, requested: {_listed(wanted, over)},"
                f" used: {_listed(known, over)}, limited: {_listed(hard, over)}"
            )
        found.append(Charge(quota, after))
    return found


def pod_total(spec: Object, kind: str) -> Amounts:
    """The `requests` or `limits` of a pod: all containers and sidecars, or the greediest step of initialization."""
    total: Amounts = {}
    for container in spec.get("containers") or []:
        total = plus(total, _resources(container, kind))
    sidecars: Amounts = {}
    peak: Amounts = {}
    for container in spec.get("initContainers") or []:
        if container.get("restartPolicy") == "Always":
            sidecars = plus(sidecars, _resources(container, kind))
            peak = greatest(peak, sidecars)
        else:
            peak = greatest(peak, plus(sidecars, _resources(container, kind)))
    total = greatest(plus(total, sidecars), peak)
    total.update(only(_resources(spec, kind), ("cpu", "memory")))  # of the pod as a whole
    overhead = amounts(spec.get("overhead"))
    return plus(total, overhead if kind == "requests" else only(overhead, total))


def _names(bucket: str) -> tuple[str, ...]:
    group, _, plural = bucket.partition("/")
    name = f"count/{plural}.{group}" if group else f"count/{plural}"
    return (name, plural) if bucket in _PLAINLY_COUNTED else (name,)


def _is_extended(name: str) -> bool:
    return name.startswith("requests.") and "/" in name and "kubernetes.io/" not in name


def _resources(holder: Object, kind: str) -> Amounts:
    return amounts((holder.get("resources") or {}).get(kind))


def _is_charged(pod: Object, now: datetime) -> bool:
    """Pods that have ended, or should have by now, are free."""
    ends, grace = meta(pod).get("deletionTimestamp"), meta(pod).get("deletionGracePeriodSeconds")
    if ends is not None and grace is not None and now > parse_time(ends) + timedelta(seconds=grace):
        return False
    return not is_finished_pod(pod)


def _pod_usage(spec: Object) -> Amounts:
    return {"pods": Quantity.count(1), **_compute(pod_total(spec, "requests"), pod_total(spec, "limits"))}


def _compute(requests: Amounts, limits: Amounts) -> Amounts:
    found: Amounts = {}
    for name, amount in requests.items():
        if name in _COMPUTE or name.startswith("hugepages-"):
            found[name] = amount
            found[f"requests.{name}"] = amount
        elif _is_extended(f"requests.{name}"):
            found[f"requests.{name}"] = amount
    return {**found, **{f"limits.{name}": amount for name, amount in limits.items() if name in _COMPUTE}}


def _service_usage(spec: Object) -> Amounts:
    ports = spec.get("ports") or []
    balanced = spec.get("type") == "LoadBalancer"
    if balanced and spec.get("allocateLoadBalancerNodePorts") is False:
        ports = [port for port in ports if port.get("nodePort")]
    return {
        "count/services": Quantity.count(1),
        "services": Quantity.count(1),
        "services.loadbalancers": Quantity.count(int(balanced)),
        "services.nodeports": Quantity.count(len(ports) if balanced or spec.get("type") == "NodePort" else 0),
    }


def _claim_usage(claim: Object) -> Amounts:
    found = {"count/persistentvolumeclaims": Quantity.count(1), "persistentvolumeclaims": Quantity.count(1)}
    storage = _resources(claim["spec"], "requests").get("storage")
    if storage is not None:
        found["requests.storage"] = storage.whole
    annotated = (meta(claim).get("annotations") or {}).get("volume.beta.kubernetes.io/storage-class")
    kind = annotated or claim["spec"].get("storageClassName")
    if kind:
        of_class = ("persistentvolumeclaims", "requests.storage")
        found.update({f"{kind}{_STORAGE_CLASS}{name}": found[name] for name in of_class if name in found})
    return found


def _is_terminating(pod: Object) -> bool:
    """The scope of pods that run for a limited time, which has nothing to do with deletion."""
    return pod["spec"].get("activeDeadlineSeconds") is not None


def _matches(term: Object, pod: Object) -> bool:
    spec = pod["spec"]
    named = spec.get("priorityClassName")
    match term["scopeName"]:
        case "Terminating" | "NotTerminating" as scope:
            return _is_terminating(pod) is (scope == "Terminating")
        case "BestEffort" | "NotBestEffort" as scope:
            return (pod_qos(pod) == "BestEffort") is (scope == "BestEffort")
        case "PriorityClass":
            return requirement_holds({**term, "key": "PriorityClass"}, {"PriorityClass": named} if named else {})
        case "CrossNamespacePodAffinity":
            return any("namespaces" in found or "namespaceSelector" in found for found in _affinity_terms(spec))
    return False


def _affinity_terms(spec: Object) -> Iterable[Object]:
    for kind in ("podAffinity", "podAntiAffinity"):
        rules = (spec.get("affinity") or {}).get(kind) or {}
        yield from rules.get("requiredDuringSchedulingIgnoredDuringExecution") or []
        for weighted in rules.get("preferredDuringSchedulingIgnoredDuringExecution") or []:
            yield weighted.get("podAffinityTerm") or {}


def _demand(quota: Object, bucket: str, limited: list[str], obj: Object) -> None:
    if bucket != "/pods" or obj["spec"].get("resources"):
        return
    missing: dict[str, set[str]] = {}
    for container in [*(obj["spec"].get("containers") or []), *(obj["spec"].get("initContainers") or [])]:
        given = _compute(_resources(container, "requests"), _resources(container, "limits"))
        for name in _DEMANDED.intersection(limited).difference(given):
            missing.setdefault(name, set()).add(container["name"])
    if missing:
        listed = "; ".join(f"{name} for: {','.join(sorted(missing[name]))}" for name in sorted(missing))
        raise QuotaError(f"failed quota: {meta(quota)['name']}: must specify {listed}")


def _listed(values: Amounts, names: list[str]) -> str:
    return ",".join(f"{name}={values[name]}" for name in names)
