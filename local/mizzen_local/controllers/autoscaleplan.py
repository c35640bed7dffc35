"""The rules of a HorizontalPodAutoscaler: from a scale, pods and metrics to its next size and status. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from mizzen_local.client import Object
from mizzen_local.controllers import utilization
from mizzen_local.controllers.scalinglimits import History, limit
from mizzen_local.controllers.utilization import NoProposalError, Proposal, Samples, Tolerances
from mizzen_local.objects import meta, parse_time, quantity, rfc3339

NO_CUSTOM_API = (
    "unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered"
)
NO_EXTERNAL_API = (
    "unable to fetch metrics from external metrics API: the server could not find the requested resource"
    " (get {}.external.metrics.k8s.io)"
)
_ABOVE = "Current number of replicas above Spec.MaxReplicas"
_BELOW = "Current number of replicas below Spec.MinReplicas"
_DISABLED = "scaling is disabled since the replica count of the target is zero"


@dataclass(frozen=True)
class Observed:
    """`usage` is the list of PodMetrics, or why there is none; `selector` what is wrong with the scale's selector."""

    scale: Object
    pods: list[Object] = field(default_factory=list)
    usage: list[Object] | str = field(default_factory=list)
    selector: tuple[str, str, str] | None = None  # (reason of the event, its message, message of the condition)


@dataclass(frozen=True)
class Plan:
    """`replicas` is None where nothing is to change; `reason` says why it changes."""

    status: Object
    history: History
    replicas: int | None = None
    reason: str = ""
    events: tuple[tuple[str, str, str], ...] = ()  # (type, reason, message)


def with_word(status: Object, kind: str, value: str, reason: str, message: str, now: datetime) -> Object:
    """The status with one condition set, at its place."""
    entries = [dict(entry) for entry in status.get("conditions") or []]
    entry = next((entry for entry in entries if entry["type"] == kind), None)
    if entry is None:
        entry = {"type": kind, "status": ""}
        entries.append(entry)
    if entry["status"] != value:
        entry["lastTransitionTime"] = rfc3339(now)
    entry.update(status=value, reason=reason, message=message)
    return {**status, "conditions": entries}


def without_scale(autoscaler: Object, why: str, now: datetime) -> Object:
    """The status while the target's scale cannot be read."""
    message = f"the HPA controller was unable to get the target's current scale: {why}"
    before = {"desiredReplicas": 0, "currentMetrics": None, **(autoscaler.get("status") or {})}
    return with_word(before, "AbleToScale", "False", "FailedGetScale", message, now)


def rescaled(plan: Plan, now: datetime, failure: str = "") -> Object:
    """The status after the new size was written, or was not."""
    if failure:
        message = f"the HPA controller was unable to update the target scale: {failure}"
        return with_word(plan.status, "AbleToScale", "False", "FailedUpdateScale", message, now)
    message = f"the HPA controller was able to update the target scale to {plan.replicas}"
    status = with_word(plan.status, "AbleToScale", "True", "SucceededRescale", message, now)
    return {**status, "desiredReplicas": plan.replicas, "lastScaleTime": rfc3339(now)}


def plan(autoscaler: Object, observed: Observed, history: History, now: datetime) -> Plan:
    spec, before = autoscaler["spec"], autoscaler.get("status") or {}
    current = (observed.scale.get("spec") or {}).get("replicas", 0)
    if not history.recommendations:
        history = History(((now, current),), history.ups, history.downs)
    status: Object = {
        **({"currentReplicas": current} if current else {}),
        "desiredReplicas": current,
        **({"lastScaleTime": before["lastScaleTime"]} if before.get("lastScaleTime") else {}),
        "currentMetrics": None,
        "conditions": before.get("conditions") or [],
    }
    got = "the HPA controller was able to get the target's current scale"
    status = with_word(status, "AbleToScale", "True", "SucceededGetScale", got, now)
    least, most = spec.get("minReplicas", 1), spec["maxReplicas"]
    if current == 0:
        return Plan(with_word(status, "ScalingActive", "False", "ScalingDisabled", _DISABLED, now), history)
    if current > most:
        return Plan(status, history, most, _ABOVE)
    if current < least:
        return Plan(status, history, least, _BELOW)
    measured = _measure(autoscaler, observed, current, now)
    status = {**status, "currentMetrics": measured.shown}
    status = with_word(status, "ScalingActive", *measured.active, now)
    if measured.replicas is None:
        failed = ("Warning", "FailedComputeMetricsReplicas", measured.error)
        status = {**status, "desiredReplicas": before.get("desiredReplicas", 0)}
        return Plan(status, history, events=(*measured.events, failed))
    reason = f"{measured.name} above target" if measured.replicas > current else "All metrics below target"
    limited = limit(autoscaler, current, measured.replicas, history, now)
    status = with_word(status, "AbleToScale", "True", *limited.able, now)
    status = with_word(status, "ScalingLimited", str(limited.limited), *limited.why, now)
    wanted = None if limited.replicas == current else limited.replicas
    return Plan(status, limited.history, wanted, reason, measured.events)


@dataclass
class _Measured:
    """All metrics together: the largest proposal counts."""

    replicas: int | None
    name: str
    shown: list[Object]
    active: tuple[str, str, str]
    error: str = ""
    events: tuple[tuple[str, str, str], ...] = ()


def _measure(autoscaler: Object, observed: Observed, current: int, now: datetime) -> _Measured:
    if observed.selector is not None:
        reason, message, told = observed.selector
        active = ("False", "InvalidSelector" if reason == "SelectorRequired" else reason, told)
        return _Measured(None, "", [], active, message, (("Warning", reason, message),))
    metrics = autoscaler["spec"].get("metrics") or []
    best: tuple[int, str] | None = None
    shown: list[Object] = []
    failures: list[tuple[str, str, str]] = []  # (reason, message of the condition, error)
    for metric in metrics:
        reason, prefix = _failure_words(metric)
        try:
            proposal, name, status = _one(autoscaler, metric, observed, current, now)
        except NoProposalError as error:
            failures.append((reason, str(error), f"{prefix}: {error}"))
            shown.append({"type": ""})
            continue
        shown.append(status)
        if best is None or proposal.replicas > best[0]:
            best = (proposal.replicas, name)
    events = tuple(("Warning", reason, message) for reason, message, _ in failures)
    summary = ""
    if failures:
        count = f"{len(failures)} invalid out of {len(metrics)}"
        summary = f"invalid metrics ({count}), first error is: {failures[0][2]}"
    if best is None or (failures and best[0] < current):
        message = f"the HPA was unable to compute the replica count: {failures[0][1]}"
        return _Measured(None, "", shown, ("False", failures[0][0], message), summary, events)
    found = f"the HPA was able to successfully calculate a replica count from {best[1]}"
    return _Measured(best[0], best[1], shown, ("True", "ValidMetricFound", found), summary, events)


def _failure_words(metric: Object) -> tuple[str, str]:
    match metric["type"]:
        case "Resource":
            return "FailedGetResourceMetric", f"failed to get {metric['resource']['name']} resource metric value"
        case "ContainerResource":
            container = metric["containerResource"]["container"]
            return "FailedGetContainerResourceMetric", f"failed to get {container} container metric value"
        case "External":
            name = metric["external"]["metric"]["name"]
            return "FailedGetExternalMetric", f"failed to get {name} external metric value"
        case other:
            return f"FailedGet{other}Metric", f"failed to get {other.lower()} metric value"


def _one(
    autoscaler: Object, metric: Object, observed: Observed, current: int, now: datetime
) -> tuple[Proposal, str, Object]:
    """One metric's proposal, its name for messages, and its entry of the status. Raises NoProposalError."""
    match metric["type"]:
        case "Resource":
            return _resource(autoscaler, "resource", metric["resource"], observed, current, now)
        case "ContainerResource":
            return _resource(autoscaler, "containerResource", metric["containerResource"], observed, current, now)
        case "Pods":
            raise NoProposalError(f"unable to get metric {metric['pods']['metric']['name']}: {NO_CUSTOM_API}")
        case "Object":
            about, name = metric["object"]["describedObject"], metric["object"]["metric"]["name"]
            place = f"{about['kind']} {meta(autoscaler)['namespace']}/{about['name']}"
            raise NoProposalError(f"unable to get metric {name}: {NO_CUSTOM_API} on {place}")
        case _:
            raise NoProposalError(_external(metric["external"], meta(autoscaler)["namespace"]))


def _external(source: Object, namespace: str) -> str:
    name = source["metric"]["name"]
    selector = source["metric"].get("selector")
    labels = "nil" if selector is None else "&LabelSelector{MatchLabels:" + _go_map(selector) + ",MatchExpressions:[],}"
    error = f"unable to get external metric {namespace}/{name}/{labels}: {NO_EXTERNAL_API.format(name)}"
    per_pod = "averageValue" in source["target"]
    return (
        f"failed to get {name} external metric: {error}"
        if per_pod
        else f"failed to get external metric {name}: {error}"
    )


def _go_map(selector: Object) -> str:
    return (
        "map[string]string{"
        + "".join(f"{k}: {v}," for k, v in sorted((selector.get("matchLabels") or {}).items()))
        + "}"
    )


def _resource(
    autoscaler: Object, field_name: str, source: Object, observed: Observed, current: int, now: datetime
) -> tuple[Proposal, str, Object]:
    name, container, target = source["name"], source.get("container", ""), source["target"]
    kind = field_name[0].upper() + field_name[1:]
    tolerances = tolerances_of(autoscaler)
    percent = target.get("averageUtilization")
    what = "usage" if "averageValue" in target else "utilization"
    try:
        samples = samples_of(observed.usage, name, container)
        if what == "usage":
            amount = utilization.milli(target["averageValue"])
            found = utilization.by_amount(observed.pods, samples, current, amount, name, tolerances, now)
            told = f"{name} resource"
        else:
            found = utilization.by_utilization(
                observed.pods, samples, current, percent, name, container, tolerances, now
            )
            told = f"{name} {'container ' if container else ''}resource utilization (percentage of request)"
    except NoProposalError as error:
        raise NoProposalError(f"failed to get {name} {what}: {error}") from error
    shown: Object = {"averageValue": milli_quantity(found.average, binary=name == "memory")}
    if found.utilization is not None:
        shown["averageUtilization"] = found.utilization
    status = {"name": name, **({"container": container} if container else {}), "current": shown}
    return found, told, {"type": kind, field_name: status}


def tolerances_of(autoscaler: Object) -> Tolerances:
    behavior = autoscaler["spec"].get("behavior") or {}
    down, up = ((behavior.get(way) or {}).get("tolerance") for way in ("scaleDown", "scaleUp"))
    default = Tolerances()
    return Tolerances(default.down if down is None else quantity(down), default.up if up is None else quantity(up))


def samples_of(usage: list[Object] | str, resource: str, container: str) -> Samples:
    """The pods' use of one resource, of one container or of all. Raises NoProposalError."""
    unable = f"unable to get metrics for resource {resource}"
    if isinstance(usage, str):
        raise NoProposalError(f"{unable}: unable to fetch metrics from resource metrics API: {usage}")
    if not usage:
        raise NoProposalError(f"{unable}: no metrics returned from resource metrics API")
    found: Samples = {}
    for entry in usage:
        listed = [c for c in entry.get("containers") or [] if container in ("", c["name"])]
        amounts = [c["usage"][resource] for c in listed if resource in c["usage"]]
        if amounts and len(amounts) == len(listed):
            total = sum(map(utilization.milli, amounts))
            found[meta(entry)["name"]] = utilization.Sample(
                total, parse_time(entry["timestamp"]), go_seconds(entry["window"])
            )
    return found


def go_seconds(text: str) -> float:
    """A Go duration in minutes and seconds: 1m0.25s is 60.25."""
    minutes, _, rest = text.rpartition("m") if not text.endswith("ms") else ("", "", "0s")
    return float(minutes or 0) * 60 + float(rest.removesuffix("s") or 0)


def milli_quantity(amount: int, *, binary: bool) -> str:
    """Thousandths as a quantity with the largest suffix that needs no fraction; whole bytes by 1024."""
    if binary and amount % 1000 == 0 and abs(amount) >= 1024 * 1000:
        number, suffixes, step = amount // 1000, ("", "Ki", "Mi", "Gi", "Ti"), 1024
    else:
        number, suffixes, step = amount, ("m", "", "k", "M", "G"), 1000
    if number == 0:
        return "0"
    power = 0
    while number % step == 0 and power < len(suffixes) - 1:
        number, power = number // step, power + 1
    return f"{number}{suffixes[power]}"
