"""Validation of what limits other objects: ResourceQuota, LimitRange and PriorityClass."""

from __future__ import annotations

from typing import Any

from mizzen_local.api import names
from mizzen_local.api.status import Cause, duplicate, forbidden_field, invalid_value, required, unsupported
from mizzen_local.client import Object
from mizzen_local.quantities import Amounts, Quantity, amounts

SYSTEM_CLASSES = {"system-cluster-critical": 2000000000, "system-node-critical": 2000001000}
HIGHEST_PRIORITY = 1000000000
_NEGATIVE = "must be greater than or equal to 0"
_IMMUTABLE = "field is immutable"
_POD_COMPUTE = frozenset(
    {"cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"}
)  # the scopes of pods go with these and with `pods`
_COUNTED = frozenset(
    {
        "pods", "resourcequotas", "services", "replicationcontrollers", "secrets", "configmaps",
        "persistentvolumeclaims", "services.nodeports", "services.loadbalancers",
    }
)  # fmt: skip
_STANDARD = (
    _POD_COMPUTE
    | _COUNTED
    | {"ephemeral-storage", "requests.ephemeral-storage", "limits.ephemeral-storage", "requests.storage"}
)
_POD_SCOPES = frozenset(
    {"Terminating", "NotTerminating", "BestEffort", "NotBestEffort", "PriorityClass", "CrossNamespacePodAffinity"}
)
_CONFLICTING = ({"BestEffort", "NotBestEffort"}, {"Terminating", "NotTerminating"})
_BARE_SCOPES = _POD_SCOPES - {"PriorityClass"}
_BARE = (
    "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating,"
    " ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"
)


def quota(obj: Object, old: Object | None, causes: list[Cause]) -> None:
    spec = obj["spec"]
    for name, value in sorted((spec.get("hard") or {}).items()):
        _limit(name, value, f"spec.hard[{name}]", causes)
    scopes = spec.get("scopes") or []
    for scope in scopes:
        _scope(spec, scope, "spec.scopes", scopes, scopes, causes)
    if any(pair <= set(scopes) for pair in _CONFLICTING):
        causes.append(invalid_value("spec.scopes", scopes, "conflicting scopes"))
    selector = spec.get("scopeSelector")
    if selector is not None:
        _scope_selector(spec, selector, causes)
    if old is not None and set(old["spec"].get("scopes") or []) != set(scopes):
        causes.append(invalid_value("spec.scopes", scopes, _IMMUTABLE))


def _limit(name: str, value: str, path: str, causes: list[Cause]) -> None:
    if problem := names.qualified_problem(name):
        causes.append(invalid_value(path, name, problem))
    elif "/" not in name and name not in _STANDARD and not _is_huge(name):
        if name != "storage":
            causes.append(invalid_value(path, name, "must be a standard resource type or fully qualified"))
        causes.append(invalid_value(path, name, "must be a standard resource for quota"))
        return
    amount = Quantity.parse(value)
    if amount < Quantity():
        causes.append(invalid_value(path, str(amount), _NEGATIVE))
    extended = "/" in name and "kubernetes.io/" not in name and not name.startswith("requests.")
    if (name in _COUNTED or extended) and amount != amount.whole:
        causes.append(invalid_value(path, str(amount), "must be an integer"))


def _is_huge(name: str) -> bool:
    return name.startswith(("hugepages-", "requests.hugepages-"))


def _scope(spec: Object, scope: str, path: str, named: Any, given: Any, causes: list[Cause]) -> None:
    if scope not in _POD_SCOPES and scope != "VolumeAttributesClass":
        causes.append(invalid_value(path, named, "unsupported scope"))
        return
    fitting = {"pods"} if scope == "BestEffort" else {"pods", *_POD_COMPUTE}
    if scope == "VolumeAttributesClass":
        fitting = {"persistentvolumeclaims", "requests.storage"}
    place = path.removesuffix(".scopeName")
    for name in sorted(spec.get("hard") or {}):
        if (name in _STANDARD or _is_huge(name)) and name not in fitting:
            causes.append(invalid_value(place, given, "unsupported scope applied to resource"))


def _scope_selector(spec: Object, selector: Object, causes: list[Cause]) -> None:
    path = "spec.scopeSelector.matchExpressions"
    terms = selector.get("matchExpressions") or []
    for term in terms:
        scope, operator, values = term.get("scopeName", ""), term.get("operator", ""), term.get("values") or []
        _scope(spec, scope, f"{path}.scopeName", scope, selector, causes)
        if scope in _BARE_SCOPES and operator != "Exists":
            causes.append(invalid_value(f"{path}.operator", operator, _BARE))
        if operator in ("In", "NotIn"):
            if not values:
                detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
                causes.append(required(f"{path}.values", detail))
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
                causes.append(invalid_value(f"{path}.values", values, detail))
        else:
            causes.append(invalid_value(f"{path}.operator", operator, "not a valid selector operator"))
    if any(pair <= {term.get("scopeName") for term in terms} for pair in _CONFLICTING):
        causes.append(invalid_value(path, spec.get("scopes"), "conflicting scopes"))


def limit_range(obj: Object, _: Object | None, causes: list[Cause]) -> None:
    seen: set[str] = set()
    for index, limit in enumerate(obj["spec"].get("limits") or []):
        path, kind = f"spec.limits[{index}]", limit.get("type", "")
        if "/" not in kind and kind not in ("Pod", "Container", "PersistentVolumeClaim"):
            causes.append(invalid_value(f"{path}.type", kind, "must be a standard limit type or fully qualified"))
        if kind in seen:
            causes.append(duplicate(f"{path}.type", kind))
        seen.add(kind)
        if kind == "Pod":
            for field in ("default", "defaultRequest"):
                if limit.get(field):
                    detail = "may not be specified when `type` is 'Pod'"
                    causes.append(forbidden_field(f"{path}.{field}", detail))
        if kind == "PersistentVolumeClaim" and all("storage" not in (limit.get(f) or {}) for f in ("min", "max")):
            detail = "either minimum or maximum storage value is required, but neither was provided"
            causes.append(required(f"{path}.limits", detail))
        _ordered(limit, path, causes)


def _ordered(limit: Object, path: str, causes: list[Cause]) -> None:
    """The bounds of one resource must not contradict each other."""
    bounds = {field: amounts(limit.get(field)) for field in ("min", "max", "default", "defaultRequest")}
    # (smaller field, its word, greater field, its word, the field that is blamed, the one that is shown)
    rules = (
        ("min", "min value", "max", "max value", "min", "min"),
        ("min", "min value", "defaultRequest", "default request value", "defaultRequest", "defaultRequest"),
        ("defaultRequest", "default request value", "max", "max value", "defaultRequest", "defaultRequest"),
        ("defaultRequest", "default request value", "default", "default limit value", "defaultRequest",
         "defaultRequest"),
        ("min", "min value", "default", "default value", "default", "min"),
        ("default", "default value", "max", "max value", "default", "max"),
    )  # fmt: skip
    for name in sorted({name for listed in bounds.values() for name in listed}):
        for small, small_word, great, great_word, blamed, shown in rules:
            low, high = bounds[small].get(name), bounds[great].get(name)
            if low is not None and high is not None and low > high:
                detail = f"{small_word} {low} is greater than {great_word} {high}"
                causes.append(invalid_value(f"{path}.{blamed}[{name}]", str(bounds[shown][name]), detail))
    ratios: Amounts = amounts(limit.get("maxLimitRequestRatio"))
    for name, ratio in sorted(ratios.items()):
        if ratio < Quantity.count(1):
            field = f"{path}.maxLimitRequestRatio[{name}]"
            causes.append(invalid_value(field, str(ratio), f"ratio {ratio} is less than 1"))


def priority_class(obj: Object, old: Object | None, causes: list[Cause]) -> None:
    name, value = obj["metadata"]["name"], obj.get("value", 0)
    if old is None and name.startswith("system-"):
        if problem := _system_problem(name, value, bool(obj.get("globalDefault"))):
            detail = f"priority class names with 'system-' prefix are reserved for system use only. error: {problem}"
            causes.append(forbidden_field("metadata.name", detail))
    elif old is None and value > HIGHEST_PRIORITY:
        detail = f"maximum allowed value of a user defined priority is {HIGHEST_PRIORITY}"
        causes.append(forbidden_field("value", detail))
    policy = obj.get("preemptionPolicy")
    if old is None:
        if policy not in ("PreemptLowerPriority", "Never"):
            causes.append(unsupported("preemptionPolicy", policy, ["PreemptLowerPriority", "Never"]))
        return
    if old.get("value", 0) != value:
        causes.append(forbidden_field("value", "may not be changed in an update."))
    if old.get("preemptionPolicy") != policy:
        causes.append(invalid_value("preemptionPolicy", policy, _IMMUTABLE))


def _system_problem(name: str, value: int, is_default: bool) -> str:
    wanted = SYSTEM_CLASSES.get(name)
    if wanted is None:
        return f"{name} is not a known system priority class"
    if value != wanted:
        return f"value of {name} PriorityClass must be {wanted}"
    return f"globalDefault of {name} PriorityClass must be false" if is_default else ""
