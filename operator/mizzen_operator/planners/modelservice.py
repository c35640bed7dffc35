"""ModelService: a Deployment and a Service for each variant, one HTTPRoute, and versions that follow their alias."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from mizzen_api import ModelService
from mizzen_api.conditions import ConditionType, Reason
from mizzen_api.modelservice import PREDICTOR, Predictor, VariantStatus
from mizzen_operator.autoscale import History, scale
from mizzen_operator.children.deployment import variant_deployment
from mizzen_operator.children.httproute import http_route, path
from mizzen_operator.children.service import variant_service
from mizzen_operator.observed import DeploymentView, Found, Missing, ModelAnswer, Observed, PodView, Unreachable
from mizzen_operator.plan import Manifest, Plan, Ref
from mizzen_operator.planners.conditions import Truth, events_of, with_condition
from mizzen_operator.planners.failures import last_words, stuck
from mizzen_operator.settings import Settings

WAITING_INTERVAL = 5.0
TRAFFIC_INTERVAL = 5.0
STEADY_INTERVAL = 15.0


@dataclass(frozen=True)
class Variant:
    """One variant as it is wanted and as it runs."""

    name: str
    predictor: Predictor
    percent: int  # as the spec asks; the predictor gets what the canaries leave
    answer: ModelAnswer
    deployment: DeploymentView | None
    pods: tuple[PodView, ...]
    replicas: int = 0
    history: History = ()
    requests: int = 0

    @property
    def model_uri(self) -> str | None:
        """The version that the pods should serve. One that was found before stays when the registry is silent."""
        if isinstance(self.answer, Found):
            return self.answer.uri
        return self.deployment.model_uri if self.deployment and self.deployment.model_uri else None

    @property
    def serving_uri(self) -> str | None:
        """The version that ready pods serve; during a roll-out the old one until all are new."""
        served = {pod.model_uri for pod in self.pods if pod.ready and pod.model_uri}
        return min(served - {self.model_uri}, default=self.model_uri) if served else self.model_uri

    @property
    def ready(self) -> int:
        return self.deployment.ready if self.deployment else 0

    @property
    def rolled_out(self) -> bool:
        d = self.deployment
        if d is None or d.model_uri != self.model_uri:
            return False
        return d.current and d.updated >= d.replicas and d.ready >= d.replicas


def plan(service: ModelService, observed: Observed, now: datetime, settings: Settings) -> Plan:
    """Decide what a ModelService needs next. Pure: the same inputs give the same plan."""
    variants = [_observe(service, observed, now, *wanted) for wanted in _wanted(service)]
    weights = _weights(variants)
    conditions = with_condition(service, ConditionType.READY, *_ready(service, observed, variants), now)
    interim = service.model_copy(update={"status": service.status.model_copy(update={"conditions": conditions})})
    conditions = with_condition(interim, ConditionType.PROGRESSING, *_progressing(variants), now)
    changes = {
        "conditions": conditions,
        "observed_generation": service.metadata.generation,
        "url": _url(service, observed),
        "variants": [_status(variant, weights[variant.name]) for variant in variants],
    }
    return Plan(
        apply=_children(service, observed, variants, weights, settings),
        delete=_surplus(observed, variants),
        status=service.status.model_copy(update=changes),
        events=events_of(service, [c for c in conditions if c.type == ConditionType.READY or c.status == "True"]),
        look_again=_interval(variants, conditions[-1].status == "True"),
        memory={variant.name: variant.history for variant in variants},
    )


def _wanted(service: ModelService) -> list[tuple[str, Predictor, int]]:
    canaries = [(canary.name, canary.predictor, canary.traffic_percent) for canary in service.spec.canary]
    return [(PREDICTOR, service.spec.predictor, 100 - sum(percent for _, _, percent in canaries)), *canaries]


def _observe(
    service: ModelService, observed: Observed, now: datetime, name: str, predictor: Predictor, percent: int
) -> Variant:
    """Gather what belongs to one variant, and scale it by its traffic."""
    pods = tuple(pod for pod in observed.pods if pod.variant == name and not pod.terminating)
    ready = [pod for pod in pods if pod.ready]
    traffic = [observed.traffic[pod.name] for pod in ready if pod.name in observed.traffic]
    deployment = next((d for d in observed.deployments if d.variant == name), None)
    in_flight = sum(t.in_flight for t in traffic) if ready and len(traffic) == len(ready) else None
    replicas, history = scale(
        observed.memory.get(name, ()),
        deployment.replicas if deployment else predictor.min_replicas,
        in_flight,
        (predictor.min_replicas, predictor.max_replicas),
        predictor.scale_target,
        now,
    )
    before = next((v.requests for v in service.status.variants if v.name == name), 0)
    answer = observed.models.get(predictor.model.uri, Unreachable("the registry was not asked yet"))
    requests = sum(t.requests for t in traffic) if len(traffic) == len(ready) else before
    return Variant(name, predictor, percent, answer, deployment, pods, replicas, history, requests)


def _weights(variants: list[Variant]) -> dict[str, int]:
    """A canary without a ready pod takes no traffic: its share goes to the predictor."""
    weights = {v.name: v.percent if v.ready else 0 for v in variants[1:]}
    return {PREDICTOR: 100 - sum(weights.values()), **weights}


# Conditions: the first rule that has something to say wins.


def _ready(service: ModelService, observed: Observed, variants: list[Variant]) -> tuple[Truth, Reason, str]:
    """Every variant has a ready pod and the gateway leads to them. The reason is the first variant's with a problem."""
    rules = (_unresolved, _unloadable, _unavailable)
    found = [next(filter(None, (rule(v) for rule in rules))) for v in variants if v.ready == 0]
    if found:
        spared = any(v.ready == 0 for v in variants[1:]) and variants[0].ready
        note = "; it takes no traffic meanwhile, the predictor gets its share" if spared else ""
        return "False", found[0][0], "; ".join(message for _, message in found) + note
    closed = _gateway(observed)
    if closed is not None:
        return "False", *closed
    away = [v.answer.message for v in variants if isinstance(v.answer, Missing | Unreachable)]
    url = _url(service, observed)
    where = f"Answers at {url}" if url else "Answers through its Services"
    return "True", Reason.AVAILABLE, where + (f"; versions stay as they are: {away[0]}" if away else "")


def _unresolved(variant: Variant) -> tuple[Reason, str] | None:
    """A variant that never had a version has nothing to run."""
    if variant.model_uri is not None or isinstance(variant.answer, Found):
        return None
    missing = isinstance(variant.answer, Missing)
    reason = Reason.MODEL_NOT_FOUND if missing else Reason.REGISTRY_UNREACHABLE
    return reason, f"{variant.name} waits: {variant.answer.message}"


def _unloadable(variant: Variant) -> tuple[Reason, str] | None:
    """Pods that end instead of becoming ready, and what they said. One that was merely killed comes back."""
    for pod in variant.pods:
        if pod.ready or pod.model_uri != variant.model_uri or pod.exit_code in {None, 0}:
            continue
        told = pod.progress is not None and pod.progress.reason is Reason.MODEL_UNLOADABLE
        if told or pod.restarts > 1:
            return Reason.MODEL_UNLOADABLE, f"{variant.name} cannot serve {variant.model_uri}: {last_words(pod)}"
    return None


def _unavailable(variant: Variant) -> tuple[Reason, str]:
    why = stuck(variant.pods)
    if why:
        return Reason.REPLICAS_UNAVAILABLE, f"{variant.name} has no ready pod: {why}"
    return Reason.DEPLOYING, f"{variant.name} starts with {variant.model_uri}"


def _gateway(observed: Observed) -> tuple[Reason, str] | None:
    if not observed.gateway_api:
        return Reason.GATEWAY_NOT_READY, "The cluster has no Gateway API: install its CRDs and a gateway"
    if observed.gateway is None:
        return Reason.GATEWAY_NOT_READY, "The Gateway does not exist: look at the chart's gateway values"
    if observed.route is None or not observed.route.accepted:
        why = observed.route.message if observed.route and observed.route.message else "it has not answered yet"
        return Reason.GATEWAY_NOT_READY, f"The gateway has not accepted the HTTPRoute: {why}"
    return None


def _progressing(variants: list[Variant]) -> tuple[Truth, Reason, str]:
    moving = [v for v in variants if v.model_uri is not None and not v.rolled_out]
    broken = next((said for said in map(_unloadable, moving) if said is not None), None)
    if broken is not None:
        old = [f"{v.name} goes on with {v.serving_uri}" for v in moving if v.ready]
        return "True", broken[0], "; ".join([broken[1], *old])
    if moving:
        return "True", Reason.DEPLOYING, f"Rolling out: {', '.join(v.name for v in moving)}"
    return "False", Reason.AVAILABLE, "Nothing is being rolled out"


# Children and status


def _children(
    service: ModelService, observed: Observed, variants: list[Variant], weights: dict[str, int], settings: Settings
) -> tuple[Manifest, ...]:
    """Services exist before their Deployments, so that the route never names a missing one."""
    deployments = (
        variant_deployment(service, v.name, v.predictor, v.model_uri, v.replicas, settings)
        for v in variants
        if v.model_uri is not None
    )
    routed = observed.gateway_api and settings.gateway
    return (
        *(variant_service(service, v.name) for v in variants),
        *deployments,
        *((http_route(service, weights, settings),) if routed else ()),
    )


def _surplus(observed: Observed, variants: list[Variant]) -> tuple[Ref, ...]:
    """What is left of canaries that the spec does not name any more."""
    names = {variant.name for variant in variants}
    deployments = tuple(d.ref for d in observed.deployments if d.variant not in names)
    return deployments + tuple(s.ref for s in observed.services if s.variant not in names)


def _status(variant: Variant, weight: int) -> VariantStatus:
    return VariantStatus(
        name=variant.name,
        model_uri=variant.serving_uri,
        ready_replicas=variant.ready,
        replicas=variant.replicas if variant.model_uri else 0,
        traffic_percent=weight,
        requests=variant.requests,
    )


def _url(service: ModelService, observed: Observed) -> str | None:
    gateway = observed.gateway
    if gateway is None or not gateway.address:
        return None
    return f"{gateway.scheme}://{gateway.address}:{gateway.port}{path(service)}"


def _interval(variants: list[Variant], ready: bool) -> float:
    """Often while something is awaited or may be scaled; otherwise only to count requests and follow aliases."""
    if not ready or any(not v.rolled_out for v in variants):
        return WAITING_INTERVAL
    scales = any(v.predictor.min_replicas < v.predictor.max_replicas for v in variants)
    return TRAFFIC_INTERVAL if scales else STEADY_INTERVAL
