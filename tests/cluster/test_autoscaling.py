"""HorizontalPodAutoscaler: sizes by bounds, by CPU, and what it says when it cannot tell."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.cluster.client import Cluster, Http, eventually
from tests.cluster.objects import FOREVER, Object, conditions, deployment, shell

HPA = "autoscaling/v2/horizontalpodautoscalers"
DEPLOYMENTS = "apps/v1/deployments"
BUSY = "trap 'exit 0' TERM; while :; do :; done"


def cpu(percent: int = 50) -> Object:
    target = {"type": "Utilization", "averageUtilization": percent}
    return {"type": "Resource", "resource": {"name": "cpu", "target": target}}


def autoscaler(name: str, **spec: Any) -> Object:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    body = {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 3, "metrics": [cpu()], **spec}
    return {
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name}, "spec": body,
    }  # fmt: skip


def says(found: Object, kind: str, status: str, reason: str) -> bool:
    condition = conditions(found).get(kind, {})
    return (condition.get("status"), condition.get("reason")) == (status, reason)


@pytest.fixture
def small(cluster: Cluster) -> Object:
    """A container that requests so little CPU that one busy process is far too much."""
    resources = {"requests": {"cpu": "20m"}, "limits": {"cpu": "100m"}}
    return shell(BUSY, resources=resources)


async def test_defaults_of_a_behavior_are_filled_in(http: Http) -> None:
    body = autoscaler("defaults", behavior={"scaleDown": {"stabilizationWindowSeconds": 9}}, metrics=[])
    made = await http.create(HPA, body)
    assert made["spec"]["metrics"] == [cpu(80)]
    assert made["status"] == {"desiredReplicas": 0, "currentMetrics": None}
    percent = {"type": "Percent", "value": 100, "periodSeconds": 15}
    assert made["spec"]["behavior"] == {
        "scaleUp": {
            "stabilizationWindowSeconds": 0,
            "selectPolicy": "Max",
            "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}, percent],
        },
        "scaleDown": {"stabilizationWindowSeconds": 9, "selectPolicy": "Max", "policies": [percent]},
    }


async def test_bounds_and_errors(http: Http) -> None:
    """What needs no pods: a size outside the bounds, size nought, no target, a metric that nobody serves."""
    names = ("bounds", "nought", "metrics")
    await asyncio.gather(
        *(http.create(DEPLOYMENTS, deployment(name, replicas=int(name != "nought"))) for name in names)
    )
    pods_metric = {
        "type": "Pods",
        "pods": {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "5"}},
    }
    await asyncio.gather(
        http.create(HPA, autoscaler("bounds", minReplicas=2)),
        http.create(HPA, autoscaler("nought")),
        http.create(HPA, autoscaler("nowhere")),
        http.create(HPA, autoscaler("metrics", metrics=[pods_metric])),
    )
    found = await http.until(HPA, "bounds", "a new size", lambda h: says(h, "AbleToScale", "True", "SucceededRescale"))
    assert found["status"]["desiredReplicas"] == 2
    told = "the HPA controller was able to update the target scale to 2"
    assert conditions(found)["AbleToScale"]["message"] == told
    assert (await http.get(DEPLOYMENTS, "bounds"))["spec"]["replicas"] == 2
    found = await http.until(HPA, "nought", "no scaling", lambda h: "ScalingActive" in conditions(h))
    assert says(found, "ScalingActive", "False", "ScalingDisabled")
    found = await http.until(HPA, "nowhere", "no target", lambda h: "AbleToScale" in conditions(h))
    assert says(found, "AbleToScale", "False", "FailedGetScale")
    why = 'unable to get the target\'s current scale: deployments.apps "nowhere" not found'
    assert conditions(found)["AbleToScale"]["message"] == f"the HPA controller was {why}"
    found = await http.until(HPA, "metrics", "no metric", lambda h: "ScalingActive" in conditions(h))
    assert says(found, "ScalingActive", "False", "FailedGetPodsMetric")
    why = "unable to get metric queue: unable to fetch metrics from custom metrics API:"
    assert conditions(found)["ScalingActive"]["message"].startswith(
        f"the HPA was unable to compute the replica count: {why}"
    )
    assert found["status"]["currentMetrics"] == [{"type": ""}]


async def event(http: Http, reason: str, about: str) -> Object:
    async def look() -> Object | None:
        listed = await http.get("events", fieldSelector=f"reason={reason},involvedObject.name={about}")
        return listed["items"][0] if listed["items"] else None

    found: Object = await eventually(f"event {reason} of {about}", look)
    return found


async def test_events_tell_of_a_new_size(http: Http) -> None:
    await http.create(DEPLOYMENTS, deployment("told", replicas=5))
    await http.create(HPA, autoscaler("told"))
    found = await event(http, "SuccessfulRescale", "told")
    assert found["message"] == "New size: 3; reason: Current number of replicas above Spec.MaxReplicas"
    assert found["source"]["component"] == "horizontal-pod-autoscaler"


async def test_load_adds_pods_and_idleness_removes_them(http: Http, small: Object) -> None:
    """Up by CPU; down, after the load has gone, without the usual five minutes of patience."""
    if (await http.call("GET", "/apis/metrics.k8s.io/v1beta1")).code != 200:
        pytest.skip("the cluster has no metrics server")
    await http.create(DEPLOYMENTS, deployment("load", small))
    patience = {"scaleDown": {"stabilizationWindowSeconds": 0}}
    await http.create(HPA, autoscaler("load", behavior=patience))
    found = await http.until(
        HPA, "load", "three pods wanted", lambda h: h["status"].get("desiredReplicas") == 3, seconds=120
    )
    assert says(found, "ScalingActive", "True", "ValidMetricFound")
    (metric,) = found["status"]["currentMetrics"]
    assert metric["resource"]["name"] == "cpu" and metric["resource"]["current"]["averageUtilization"] > 50
    template = deployment("load", shell(FOREVER, resources=small["resources"]))["spec"]["template"]
    await http.patch(DEPLOYMENTS, "load", {"spec": {"template": template}})
    found = await http.until(
        HPA, "load", "one pod wanted", lambda h: h["status"].get("desiredReplicas") == 1, seconds=180
    )
    assert conditions(found)["AbleToScale"]["reason"] in ("SucceededRescale", "ReadyForNewScale")


POLICY = {"type": "Pods", "value": 1, "periodSeconds": 60}
NEITHER = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}}


@pytest.mark.parametrize(
    ("spec", "field", "why"),
    [
        ({"minReplicas": 5}, "spec.maxReplicas", "must be greater than or equal to `minReplicas`"),
        ({"minReplicas": 0}, "spec.minReplicas", "must be greater than or equal to 1"),
        ({"maxReplicas": 0, "minReplicas": None}, "spec.maxReplicas", "must be set and greater than 0"),
        ({"metrics": [cpu(0)]}, "spec.metrics[0].resource.target.averageUtilization", "must be greater than 0"),
        (
            {"metrics": [NEITHER]},
            "spec.metrics[0].resource.target.averageUtilization",
            "must set either a target raw value or a target utilization",
        ),
        (
            {"metrics": [{"type": "Pods"}]},
            "spec.metrics[0].pods",
            "must populate information for the given metric source",
        ),
        (
            {"metrics": [{"type": "Odd"}]},
            "spec.metrics[0].type",
            'supported values: "ContainerResource", "External", "Object", "Pods", "Resource"',
        ),
        (
            {"behavior": {"scaleUp": {"policies": [{**POLICY, "periodSeconds": 1801}]}}},
            "spec.behavior.scaleUp.policies[0].periodSeconds",
            "must be less than or equal to 1800",
        ),
        (
            {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 3601}}},
            "spec.behavior.scaleDown.stabilizationWindowSeconds",
            "must be less than or equal to 3600",
        ),
    ],
)
async def test_what_an_autoscaler_may_not_say(http: Http, spec: Object, field: str, why: str) -> None:
    answer = await http.call("POST", http.path(HPA), autoscaler("wrong", **spec))
    assert answer.code == 422, answer.body
    found = [cause["message"] for cause in answer.body["details"]["causes"] if cause["field"] == field]
    assert any(why in message for message in found), answer.body["details"]["causes"]
