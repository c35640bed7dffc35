"""ModelService: versions that follow aliases, weights that spare broken canaries, scaling and readiness."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mizzen_api.conditions import ConditionType, Reason
from mizzen_operator.observed import Found, Missing, Observed, RouteView, Traffic, Unreachable
from mizzen_operator.plan import Recommendation
from tests.operator.builders import (
    NOW,
    after,
    canary,
    child,
    decide,
    edited,
    failed,
    kinds,
    later,
    predictor,
    said,
    service,
    serving,
)

READY, PROGRESSING = ConditionType.READY, ConditionType.PROGRESSING
CHAMPION, CANDIDATE = "models:/tweets@champion", "models:/tweets@candidate"


def weights(plan):
    rules = child(plan, "HTTPRoute", "tweets")["spec"]["rules"]
    return {ref["name"]: ref["weight"] for ref in rules[-1]["backendRefs"]}


def command(plan, name="tweets-predictor"):
    return child(plan, "Deployment", name)["spec"]["template"]["spec"]["containers"][0]["command"]


def test_a_new_service_gets_its_children():
    plan = decide(service(canary=[canary()]), Observed(models={CHAMPION: Found("models:/tweets/3")}))
    assert kinds(plan) == ["Service", "Service", "Deployment", "HTTPRoute"], "no Deployment without a version"
    assert command(plan) == [
        "mizzen", "serve", "--model-uri", "models:/tweets/3", "--model-name", "tweets", "--variant", "predictor",
        "--max-batch-size", "32", "--max-latency-ms", "5",
    ]  # fmt: skip


def test_ready_when_every_variant_serves_and_the_route_is_accepted():
    svc = service(canary=[canary()])
    plan = decide(svc, serving(svc, {"predictor": 3, "candidate": 4}))
    assert said(plan, READY)[:2] == ("True", "Available")
    assert said(plan, PROGRESSING)[0] == "False"
    assert plan.status.url == "http://10.0.0.9:8000/default/tweets"
    assert weights(plan) == {"tweets-predictor": 80, "tweets-candidate": 20}
    assert [(v.name, v.model_uri, v.ready_replicas, v.traffic_percent, v.requests) for v in plan.status.variants] == [
        ("predictor", "models:/tweets/3", 1, 80, 5),
        ("candidate", "models:/tweets/4", 1, 20, 5),
    ]


def test_the_route_rewrites_the_prefix_and_lets_a_header_choose():
    svc = service(canary=[canary()])
    spec = child(decide(svc, serving(svc, {"predictor": 3, "candidate": 4})), "HTTPRoute", "tweets")["spec"]
    assert spec["parentRefs"][0] | {"group": ""} == {
        "group": "", "kind": "Gateway", "namespace": "mizzen-system", "name": "mizzen",
    }  # fmt: skip
    named = spec["rules"][1]
    assert named["matches"] == [
        {
            "path": {"type": "PathPrefix", "value": "/default/tweets"},
            "headers": [{"type": "Exact", "name": "mizzen-variant", "value": "candidate"}],
        }
    ]
    assert [ref["name"] for ref in named["backendRefs"]] == ["tweets-candidate"]
    assert all(r["filters"][0]["urlRewrite"]["path"]["replacePrefixMatch"] == "/" for r in spec["rules"])


NOT_READY = [
    ({"models": {CHAMPION: Missing("no champion")}, "deployments": ()}, "ModelNotFound", "no champion"),
    ({"models": {CHAMPION: Unreachable("no answer")}, "deployments": ()}, "RegistryUnreachable", "no answer"),
    ({"gateway_api": False}, "GatewayNotReady", "install its CRDs"),
    ({"gateway": None}, "GatewayNotReady", "does not exist"),
    ({"route": RouteView(False, "no listener")}, "GatewayNotReady", "no listener"),
    ({"route": None}, "GatewayNotReady", "not answered"),
]


@pytest.mark.parametrize(("change", "reason", "words"), NOT_READY)
def test_what_keeps_a_service_from_being_ready(change, reason, words):
    svc = service()
    plan = decide(svc, replace(serving(svc, {"predictor": 3}), **change))
    status, found, message = said(plan, READY)
    assert (status, found) == ("False", reason)
    assert words in message
    assert plan.look_again is not None


def test_without_a_gateway_api_no_route_is_applied():
    svc = service()
    assert "HTTPRoute" not in kinds(decide(svc, replace(serving(svc, {"predictor": 3}), gateway_api=False)))


def test_a_moved_alias_rolls_the_deployment_and_the_old_version_is_shown_until_then():
    svc = service()
    observed = serving(svc, {"predictor": 3})
    plan = decide(svc, replace(observed, models={CHAMPION: Found("models:/tweets/7")}))
    assert "models:/tweets/7" in command(plan)
    assert plan.status.variants[0].model_uri == "models:/tweets/3"
    assert said(plan, READY)[0] == "True"
    assert said(plan, PROGRESSING)[:2] == ("True", "Deploying")


@pytest.mark.parametrize("answer", [Unreachable("MLflow is away"), Missing("the alias is gone")])
def test_a_silent_registry_keeps_the_present_version_and_says_so(answer):
    svc = service()
    plan = decide(svc, replace(serving(svc, {"predictor": 3}), models={CHAMPION: answer}))
    assert "models:/tweets/3" in command(plan)
    assert said(plan, READY)[0] == "True"
    assert answer.message in said(plan, READY)[2]


def crashed(observed, variant, **fields):
    dead = {"ready": False, "exit_code": 65, "termination": failed(Reason.MODEL_UNLOADABLE, "no weights"), **fields}
    pods = tuple(replace(p, **dead) if p.variant == variant else p for p in observed.pods)
    return replace(observed, pods=pods)


def test_a_canary_that_cannot_load_takes_no_traffic():
    svc = service(canary=[canary()])
    observed = crashed(serving(svc, {"predictor": 3, "candidate": 4}, {"candidate": 0}), "candidate")
    plan = decide(svc, observed)
    assert weights(plan) == {"tweets-predictor": 100, "tweets-candidate": 0}
    assert said(plan, READY)[:2] == ("False", "ModelUnloadable")
    message = said(plan, READY)[2]
    assert "candidate cannot serve models:/tweets/4: no weights" in message
    assert "takes no traffic" in message
    assert [v.traffic_percent for v in plan.status.variants] == [100, 0]


def test_a_new_version_that_cannot_load_leaves_the_old_one_in_service():
    svc = service()
    observed = serving(svc, {"predictor": 3})
    new = replace(observed.pods[0], name="new", ready=False, model_uri="models:/tweets/7", exit_code=1,
                  termination=failed(Reason.MODEL_UNLOADABLE, "no weights"))  # fmt: skip
    moved = replace(observed, models={CHAMPION: Found("models:/tweets/7")}, pods=(*observed.pods, new))
    plan = decide(svc, moved)
    assert said(plan, READY)[0] == "True"
    assert said(plan, PROGRESSING)[:2] == ("True", "ModelUnloadable")
    assert said(plan, PROGRESSING)[2].endswith("no weights; predictor goes on with models:/tweets/3")
    assert plan.status.variants[0].model_uri == "models:/tweets/3"


@pytest.mark.parametrize(("restarts", "reason"), [(1, "Deploying"), (2, "ModelUnloadable")])
def test_a_pod_that_was_killed_once_is_not_called_unloadable(restarts, reason):
    svc = service()
    observed = serving(svc, {"predictor": 3}, {"predictor": 0})
    killed = crashed(observed, "predictor", exit_code=137, termination="", restarts=restarts)
    assert said(decide(svc, killed), READY)[:2] == ("False", reason)


def test_every_variant_with_a_problem_is_named():
    svc = service(canary=[canary()])
    observed = crashed(serving(svc, {"predictor": 3}, {"predictor": 0}), "predictor")
    plan = decide(svc, replace(observed, models={**observed.models, CANDIDATE: Missing("no candidate")}))
    status, reason, message = said(plan, READY)
    assert (status, reason) == ("False", "ModelUnloadable")
    assert "no weights" in message
    assert "candidate waits: no candidate" in message


def test_a_broken_predictor_leaves_the_canary_its_share_and_no_more():
    svc = service(canary=[canary()])
    plan = decide(svc, serving(svc, {"predictor": 3, "candidate": 4}, {"predictor": 0}))
    assert weights(plan) == {"tweets-predictor": 80, "tweets-candidate": 20}


def test_a_canary_that_left_the_spec_goes():
    both = service(canary=[canary()])
    observed = serving(both, {"predictor": 3, "candidate": 4})
    plan = decide(edited(both, canary=[]), observed)
    assert {(ref.kind, ref.name) for ref in plan.delete} == {
        ("Deployment", "tweets-candidate"),
        ("Service", "tweets-candidate"),
    }
    assert weights(plan) == {"tweets-predictor": 100}


def test_traffic_scales_up_at_once_and_down_after_a_window():
    svc = service(predictor=predictor(maxReplicas=4, scaleTarget=4))
    observed = serving(svc, {"predictor": 3})
    busy = replace(observed, traffic={"tweets-predictor-0": Traffic(in_flight=11)})
    up = decide(svc, busy)
    assert child(up, "Deployment", "tweets-predictor")["spec"]["replicas"] == 3
    assert [r.replicas for r in up.memory["predictor"]] == [1, 3]
    idle = replace(serving(svc, {"predictor": 3}, {"predictor": 3}), memory=up.memory)
    held = decide(svc, idle, later(30))
    assert child(held, "Deployment", "tweets-predictor")["spec"]["replicas"] == 3
    down = decide(svc, replace(idle, memory=held.memory), later(61))
    assert child(down, "Deployment", "tweets-predictor")["spec"]["replicas"] == 1


def test_a_pod_that_does_not_tell_holds_the_scale_and_the_count():
    svc = service(predictor=predictor(maxReplicas=4))
    observed = serving(svc, {"predictor": 3}, {"predictor": 3})
    counted = after(svc, decide(svc, observed))
    silent = replace(observed, traffic={}, memory={"predictor": (Recommendation(NOW, 3),)})
    plan = decide(counted, silent, later(5))
    assert child(plan, "Deployment", "tweets-predictor")["spec"]["replicas"] == 3
    assert plan.status.variants[0].requests == 15
