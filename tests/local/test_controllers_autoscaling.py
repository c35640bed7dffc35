"""HorizontalPodAutoscaler: the arithmetic of metrics, limits and windows, and what the status says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mizzen_local.controllers import autoscaleplan, scalinglimits, utilization
from mizzen_local.controllers.autoscaleplan import Observed, milli_quantity
from mizzen_local.controllers.scalinglimits import History
from mizzen_local.controllers.utilization import NoProposalError, Sample, Tolerances, by_amount, by_utilization
from mizzen_local.objects import condition, rfc3339

NOW = datetime(2026, 1, 1, tzinfo=UTC)
Object = dict[str, Any]


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def pod(name: str, *, ready: bool = True, phase: str = "Running", age: float = 900, since: float = 800) -> Object:
    """A pod of 100m CPU that started `age` and changed its readiness `since` seconds ago."""
    found = {"type": "Ready", "status": str(ready), "lastTransitionTime": rfc3339(ago(since))}
    container = {"name": "c", "resources": {"requests": {"cpu": "100m"}}}
    return {
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {"containers": [container]},
        "status": {"phase": phase, "startTime": rfc3339(ago(age)), "conditions": [found]},
    }


def used(*amounts: int | None, at: float = 0) -> dict[str, Sample]:
    """Samples of the pods p0, p1, ... in thousandths; None where there is none."""
    return {f"p{n}": Sample(value, ago(at), 15) for n, value in enumerate(amounts) if value is not None}


PENDING, FAILED, COLD = {"phase": "Pending"}, {"phase": "Failed"}, {"ready": False, "age": 900, "since": 890}


@pytest.mark.parametrize(
    ("pods", "amounts", "target", "replicas", "percent"),
    [
        ([{}, {}], (50, 50), 50, 2, 50),
        ([{}, {}], (54, 54), 50, 2, 54),  # within the tolerance
        ([{}, {}], (80, 80), 50, 4, 80),
        ([{}, {}, {}], (10, 10, 10), 50, 1, 10),
        ([{}, {}, PENDING], (100, 100, None), 50, 4, 100),  # the pending pod counts as idle
        ([{}, {}, PENDING], (70, 70, None), 50, 3, 70),  # the guess stays within the tolerance
        ([{}, {}, {}], (100, 100, None), 50, 4, 100),  # a missing one counts as idle upwards
        ([{}, {}, {}], (5, 5, None), 50, 3, 5),  # and as busy downwards
        ([{}, {}, COLD], (100, 100, 900), 50, 4, 100),  # never ready yet
        ([{}, {}, FAILED], (100, 100, 900), 50, 4, 100),
        ([{}, {"ready": False, "since": 100}], (60, 60), 50, 3, 60),  # was ready before: its load counts
        ([{}, {"age": 60, "since": 10}], (60, 900), 50, 2, 60),  # no whole window since it became ready
    ],
)
def test_utilization(pods: list[Object], amounts: tuple[Any, ...], target: int, replicas: int, percent: int) -> None:
    made = [pod(f"p{n}", **options) for n, options in enumerate(pods)]
    found = by_utilization(made, used(*amounts), len(pods), target, "cpu", "", Tolerances(), NOW)
    assert (found.replicas, found.utilization) == (replicas, percent)


@pytest.mark.parametrize(
    ("amounts", "replicas", "average"),
    [((100, 100), 2, 100), ((300, 100), 4, 200), ((20, 20), 1, 20), ((20, None), 2, 20), ((400, None), 4, 400)],
)
def test_amounts(amounts: tuple[Any, ...], replicas: int, average: int) -> None:
    found = by_amount([pod("p0"), pod("p1")], used(*amounts), 2, 100, "memory", Tolerances(), NOW)
    assert (found.replicas, found.average, found.utilization) == (replicas, average, None)


def test_why_a_metric_says_nothing() -> None:
    bare = {"metadata": {"name": "p0"}, "spec": {"containers": [{"name": "c"}]}, "status": pod("p0")["status"]}
    for pods, container, why in (
        ([], "", "no pods returned by selector while calculating replica count"),
        ([pod("p0", phase="Pending")], "", "did not receive metrics for targeted pods (pods might be unready)"),
        ([bare], "", "missing request for cpu in container c of Pod p0"),
        ([pod("p0")], "x", "container x not found in Pod p0"),
    ):
        with pytest.raises(NoProposalError) as raised:
            by_utilization(pods, used(10), 1, 50, "cpu", container, Tolerances(), NOW)
        assert str(raised.value) == why


@pytest.mark.parametrize(
    ("amount", "binary", "text"),
    [
        (0, False, "0"), (250, False, "250m"), (1000, False, "1"), (1500, False, "1500m"), (2_000_000, False, "2k"),
        (1024 * 1024 * 1000, True, "1Mi"), (1500, True, "1500m"), (512_000, True, "512"), (2049_000, True, "2049"),
    ],
)  # fmt: skip
def test_quantities_of_the_status(amount: int, binary: bool, text: str) -> None:
    assert milli_quantity(amount, binary=binary) == text


# -- limits and windows


def rules(window: int | None, *policies: tuple[str, int, int], select: str = "Max") -> Object:
    listed = [{"type": kind, "value": value, "periodSeconds": period} for kind, value, period in policies]
    found: Object = {"selectPolicy": select, "policies": listed}
    return found if window is None else {**found, "stabilizationWindowSeconds": window}


WITHIN = "DesiredWithinRange"
TWO = rules(0, ("Pods", 2, 60))
LEAST = rules(0, ("Pods", 1, 60), ("Percent", 100, 60), select="Min")
FAST = rules(0, ("Percent", 100, 15), ("Pods", 4, 15))


def scaler(up: Object | None = None, down: Object | None = None, **spec: Any) -> Object:
    behavior = {"behavior": {"scaleUp": up or FAST, "scaleDown": down or rules(None, ("Percent", 100, 15))}}
    target = {"type": "Utilization", "averageUtilization": 50}
    return {
        "metadata": {"name": "h", "namespace": "ns"},
        "spec": {
            "minReplicas": 1,
            "maxReplicas": 20,
            "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
            **(behavior if up or down else {}),
            **spec,
        },
    }


@pytest.mark.parametrize(
    ("subject", "current", "desired", "history", "replicas", "able", "why"),
    [
        (scaler(), 2, 3, History(), 3, "ReadyForNewScale", WITHIN),
        (scaler(), 1, 15, History(), 4, "ReadyForNewScale", "ScaleUpLimit"),
        (scaler(), 5, 15, History(), 10, "ReadyForNewScale", "ScaleUpLimit"),
        (scaler(maxReplicas=8), 5, 15, History(), 8, "ReadyForNewScale", "TooManyReplicas"),
        (scaler(minReplicas=2), 3, 1, History(), 2, "ReadyForNewScale", "TooFewReplicas"),
        (scaler(), 5, 2, History(((ago(100), 4),)), 4, "ScaleDownStabilized", WITHIN),
        (scaler(), 5, 2, History(((ago(301), 4),)), 2, "ReadyForNewScale", WITHIN),
        (scaler(FAST), 3, 9, History(), 7, "ReadyForNewScale", "ScaleUpLimit"),
        (scaler(FAST), 3, 9, History(ups=((ago(5), 1),)), 6, "ReadyForNewScale", "ScaleUpLimit"),
        (scaler(FAST), 3, 9, History(ups=((ago(20), 1),)), 7, "ReadyForNewScale", "ScaleUpLimit"),
        (scaler(rules(60, ("Pods", 9, 15))), 3, 9, History(((ago(30), 5),)), 5, "ScaleUpStabilized", WITHIN),
        (scaler(LEAST), 3, 9, History(), 4, "ReadyForNewScale", "ScaleUpLimit"),
        (scaler(rules(0, select="Disabled")), 3, 9, History(), 3, "ReadyForNewScale", "ScaleUpLimit"),
        (scaler(down=rules(0, ("Pods", 1, 60))), 5, 1, History(), 4, "ReadyForNewScale", "ScaleDownLimit"),
        (scaler(down=TWO), 5, 1, History(downs=((ago(5), 1),)), 4, "ReadyForNewScale", "ScaleDownLimit"),
        (scaler(down=rules(0, ("Percent", 50, 60))), 5, 1, History(), 2, "ReadyForNewScale", "ScaleDownLimit"),
        (scaler(down=rules(0, select="Disabled")), 5, 1, History(), 5, "ReadyForNewScale", "ScaleDownLimit"),
        (scaler(FAST), 5, 1, History(((ago(9), 5),)), 5, "ScaleDownStabilized", WITHIN),
    ],
)  # fmt: skip
def test_limits(
    subject: Object, current: int, desired: int, history: History, replicas: int, able: str, why: str
) -> None:  # fmt: skip
    found = scalinglimits.limit(subject, current, desired, history, NOW)
    assert (found.replicas, found.able[0], found.why[0]) == (replicas, able, why)
    assert found.limited is (why != WITHIN)
    assert (NOW, desired) in found.history.recommendations


def test_changes_are_remembered_as_long_as_a_policy_looks_back() -> None:
    behavior = scaler(FAST)["spec"]["behavior"]
    history = History(ups=((ago(20), 1), (ago(10), 2))).changed(behavior, 3, 5, NOW).changed(behavior, 5, 1, NOW)
    assert history.ups == ((ago(10), 2), (NOW, 2)) and history.downs == ((NOW, 4),)
    assert History().changed(None, 1, 2, NOW) == History()


# -- the whole plan


def scale(replicas: int) -> Object:
    return {"metadata": {"name": "d"}, "spec": {"replicas": replicas}, "status": {"selector": "app=x"}}


def usage(*amounts: str) -> list[Object]:
    return [
        {
            "metadata": {"name": f"p{n}"}, "timestamp": rfc3339(NOW), "window": "15s",
            "containers": [{"name": "c", "usage": {"cpu": amount}}],
        }
        for n, amount in enumerate(amounts)
    ]  # fmt: skip


def words(status: Object, kind: str) -> tuple[str, str, str]:
    found = condition({"status": status}, kind) or {}
    return found["status"], found["reason"], found["message"]


def test_a_plan_scales_up_and_says_so() -> None:
    observed = Observed(scale(2), [pod("p0"), pod("p1")], usage("100m", "50000001n"))
    plan = autoscaleplan.plan(scaler(), observed, History(), NOW)
    assert (plan.replicas, plan.reason) == (3, "cpu resource utilization (percentage of request) above target")
    assert plan.status["currentMetrics"] == [
        {
            "type": "Resource",
            "resource": {"name": "cpu", "current": {"averageValue": "75m", "averageUtilization": 75}},
        }
    ]
    assert words(plan.status, "ScalingActive") == (
        "True", "ValidMetricFound", "the HPA was able to successfully calculate a replica count from "
        "cpu resource utilization (percentage of request)",
    )  # fmt: skip
    after = autoscaleplan.rescaled(plan, NOW)
    assert (after["currentReplicas"], after["desiredReplicas"], after["lastScaleTime"]) == (2, 3, rfc3339(NOW))
    assert words(after, "AbleToScale")[1:] == (
        "SucceededRescale", "the HPA controller was able to update the target scale to 3",
    )  # fmt: skip
    failed = autoscaleplan.rescaled(plan, NOW, "no")
    assert failed["desiredReplicas"] == 2 and words(failed, "AbleToScale")[:2] == ("False", "FailedUpdateScale")


@pytest.mark.parametrize(
    ("replicas", "wanted", "reason"),
    [
        (0, None, ""),
        (30, 20, "Current number of replicas above Spec.MaxReplicas"),
        (1, 2, "Current number of replicas below Spec.MinReplicas"),
    ],
)
def test_bounds_need_no_metrics(replicas: int, wanted: int | None, reason: str) -> None:
    plan = autoscaleplan.plan(scaler(minReplicas=2), Observed(scale(replicas), usage="away"), History(), NOW)
    assert (plan.replicas, plan.reason) == (wanted, reason)
    if not replicas:
        assert words(plan.status, "ScalingActive")[:2] == ("False", "ScalingDisabled")


def test_without_metrics_nothing_moves() -> None:
    observed = Observed(scale(2), [pod("p0")], "the server is currently unable to handle the request")
    plan = autoscaleplan.plan(scaler(), observed, History(), NOW)
    why = (
        "failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics from resource"
        " metrics API: the server is currently unable to handle the request"
    )
    assert plan.replicas is None
    assert words(plan.status, "ScalingActive") == (
        "False", "FailedGetResourceMetric", f"the HPA was unable to compute the replica count: {why}",
    )  # fmt: skip
    total = "invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value"
    assert plan.events == (
        ("Warning", "FailedGetResourceMetric", why),
        ("Warning", "FailedComputeMetricsReplicas", f"{total}: {why}"),
    )


PODS_METRIC = {
    "type": "Pods", "pods": {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "5"}},
}  # fmt: skip


@pytest.mark.parametrize(("amount", "replicas"), [("100m", 4), ("10m", None)])
def test_a_metric_that_fails_forbids_only_to_scale_down(amount: str, replicas: int | None) -> None:
    subject = scaler()
    subject["spec"]["metrics"].append(PODS_METRIC)
    observed = Observed(scale(2), [pod("p0"), pod("p1")], usage(amount, amount))
    plan = autoscaleplan.plan(subject, observed, History(), NOW)
    assert plan.replicas == replicas
    assert plan.events[0] == (
        "Warning", "FailedGetPodsMetric", "unable to get metric queue: unable to fetch metrics from custom metrics"
        " API: no custom metrics API (custom.metrics.k8s.io) registered",
    )  # fmt: skip
    assert words(plan.status, "ScalingActive")[0] == str(replicas is not None)


def test_tolerances_of_the_behavior_and_durations() -> None:
    subject = scaler({**FAST, "tolerance": "500m"})
    assert autoscaleplan.tolerances_of(subject) == Tolerances(0.1, 0.5)
    assert [autoscaleplan.go_seconds(text) for text in ("15s", "1m0.25s", "0s", "2m")] == [15, 60.25, 0, 120]
    assert utilization.milli("1500001n") == 2
