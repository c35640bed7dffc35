"""Validation of a HorizontalPodAutoscaler: bounds, target, metrics and behavior, in the real server's words."""

from __future__ import annotations

from mizzen_local.api.status import Cause, forbidden_field, invalid_value, required, unsupported
from mizzen_local.client import Object

_SOURCES = {
    "ContainerResource": "containerResource",
    "External": "external",
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
}
_MOST_PERIOD, _MOST_WINDOW = 1800, 3600


def check(obj: Object, _: Object | None, causes: list[Cause]) -> None:
    spec = obj["spec"]
    least, most = spec.get("minReplicas", 1), spec.get("maxReplicas", 0)
    if least < 1:
        causes.append(invalid_value("spec.minReplicas", least, "must be greater than or equal to 1"))
    if most == 0:
        causes.append(required("spec.maxReplicas", "must be set and greater than 0"))
    elif most < 0:
        causes.append(invalid_value("spec.maxReplicas", most, "must be greater than or equal to 1"))
    if most < least:
        causes.append(invalid_value("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`"))
    for field in ("kind", "name"):
        if not (spec.get("scaleTargetRef") or {}).get(field):
            causes.append(required(f"spec.scaleTargetRef.{field}"))
    for index, metric in enumerate(spec.get("metrics") or []):
        _metric(metric, f"spec.metrics[{index}]", causes)
    for way in ("scaleUp", "scaleDown"):
        rules = (spec.get("behavior") or {}).get(way)
        if rules is not None:
            _rules(rules, f"spec.behavior.{way}", causes)


def _metric(metric: Object, path: str, causes: list[Cause]) -> None:
    kind = metric.get("type")
    if not kind:
        causes.append(required(f"{path}.type", "must specify a metric source type"))
        return
    if kind not in _SOURCES:
        causes.append(unsupported(f"{path}.type", kind, list(_SOURCES)))
        return
    expected = _SOURCES[kind]
    for field in _SOURCES.values():
        if field == expected and field not in metric:
            causes.append(required(f"{path}.{field}", "must populate information for the given metric source"))
        elif field != expected and field in metric:
            causes.append(forbidden_field(f"{path}.{field}", "must populate the given metric source only"))
    if expected in ("resource", "containerResource") and expected in metric:
        _target(metric[expected].get("target") or {}, f"{path}.{expected}.target", causes)


def _target(target: Object, path: str, causes: list[Cause]) -> None:
    percent = target.get("averageUtilization")
    if percent is not None and percent < 1:
        causes.append(invalid_value(f"{path}.averageUtilization", percent, "must be greater than 0"))
    if percent is None and "averageValue" not in target:
        detail = "must set either a target raw value or a target utilization"
        causes.append(required(f"{path}.averageUtilization", detail))
    elif percent is not None and "averageValue" in target:
        detail = "may not set both a target raw value and a target utilization"
        causes.append(forbidden_field(f"{path}.averageValue", detail))


def _rules(rules: Object, path: str, causes: list[Cause]) -> None:
    window = rules.get("stabilizationWindowSeconds", 0)
    if window < 0:
        detail = "must be greater than or equal to zero"
        causes.append(invalid_value(f"{path}.stabilizationWindowSeconds", window, detail))
    elif window > _MOST_WINDOW:
        detail = f"must be less than or equal to {_MOST_WINDOW}"
        causes.append(invalid_value(f"{path}.stabilizationWindowSeconds", window, detail))
    select = ["Disabled", "Max", "Min"]
    if rules.get("selectPolicy", "Max") not in select:
        causes.append(unsupported(f"{path}.selectPolicy", rules["selectPolicy"], select))
    if not rules.get("policies"):
        causes.append(required(f"{path}.policies", "must specify at least one Policy"))
    for index, policy in enumerate(rules.get("policies") or []):
        _policy(policy, f"{path}.policies[{index}]", causes)


def _policy(policy: Object, path: str, causes: list[Cause]) -> None:
    if policy.get("type") not in ("Percent", "Pods"):
        causes.append(unsupported(f"{path}.type", policy.get("type"), ["Percent", "Pods"]))
    for field in ("value", "periodSeconds"):
        if policy.get(field, 0) <= 0:
            causes.append(invalid_value(f"{path}.{field}", policy.get(field, 0), "must be greater than zero"))
    if policy.get("periodSeconds", 0) > _MOST_PERIOD:
        detail = f"must be less than or equal to {_MOST_PERIOD}"
        causes.append(invalid_value(f"{path}.periodSeconds", policy["periodSeconds"], detail))
