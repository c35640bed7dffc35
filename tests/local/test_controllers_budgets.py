"""Disruption budgets: the arithmetic as a table, evictions on the machinery, and a drain through kubectl."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mizzen_local import budgets
from mizzen_local.api import eviction
from mizzen_local.api.machinery import Machinery, WriteOptions
from mizzen_local.budgets import CannotCountError, Scale
from mizzen_local.client import ApiError
from mizzen_local.objects import is_true, rfc3339
from tests.conftest import EmbeddedCluster

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def pod(name: str, *, ready: bool = True, owner: str = "rs", **meta: Any) -> dict[str, Any]:
    owners = [{"kind": "ReplicaSet", "name": owner, "uid": owner, "controller": True}] if owner else []
    return {
        "metadata": {"name": name, "namespace": "ns", "ownerReferences": owners, **meta},
        "spec": {},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def budget(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "b", "namespace": "ns", "generation": 3}, "spec": {"selector": {}, **spec}}


def four(_: Any) -> Scale:
    return Scale("d", 4)


@pytest.mark.parametrize(
    ("spec", "ready", "counts"),  # (currentHealthy, desiredHealthy, expectedPods, disruptionsAllowed)
    [
        ({"minAvailable": 2}, 4, (4, 2, 4, 2)),
        ({"minAvailable": 4}, 4, (4, 4, 4, 0)),
        ({"minAvailable": 0}, 2, (2, 0, 4, 2)),
        ({"minAvailable": "50%"}, 3, (3, 2, 4, 1)),
        ({"minAvailable": "51%"}, 4, (4, 3, 4, 1)),
        ({"maxUnavailable": 1}, 4, (4, 3, 4, 1)),
        ({"maxUnavailable": 1}, 3, (3, 3, 4, 0)),
        ({"maxUnavailable": "30%"}, 4, (4, 2, 4, 2)),
        ({"maxUnavailable": 9}, 1, (1, 0, 4, 1)),
    ],
)
def test_a_budget_counts(spec: dict[str, Any], ready: int, counts: tuple[int, ...]) -> None:
    pods = [pod(f"p{index}", ready=index < ready) for index in range(4)]
    status = budgets.judge(budget(**spec), pods, four, NOW).status
    fields = ("currentHealthy", "desiredHealthy", "expectedPods", "disruptionsAllowed")
    assert tuple(status[field] for field in fields) == counts
    (condition,) = status["conditions"]
    told = ("True", "SufficientPods") if counts[3] else ("False", "InsufficientPods")
    assert (condition["status"], condition["reason"], condition["observedGeneration"]) == (*told, 3)


def test_pods_being_deleted_or_evicted_are_not_healthy() -> None:
    subject = budget(minAvailable=1)
    moments = {"b": rfc3339(NOW - timedelta(seconds=30)), "c": rfc3339(NOW - timedelta(minutes=3)), "gone": "x"}
    subject["status"] = {"disruptedPods": moments}
    pods = [pod("a", deletionTimestamp=rfc3339(NOW)), pod("b"), pod("c"), pod("d")]
    verdict = budgets.judge(subject, pods, four, NOW)
    assert verdict.status["currentHealthy"] == 2
    assert verdict.status["disruptedPods"] == {"b": moments["b"]}
    assert (verdict.overdue, verdict.look_again) == (("c",), 90.0)


def test_bare_pods_need_a_whole_number() -> None:
    bare = [pod("a", owner=""), pod("b", owner="")]
    assert budgets.judge(budget(minAvailable=1), bare, four, NOW).status["disruptionsAllowed"] == 1
    left_out = budgets.judge(budget(maxUnavailable=1), bare, four, NOW)
    assert left_out.unmanaged and left_out.status["disruptionsAllowed"] == 0
    with pytest.raises(CannotCountError, match='found no controllers for pod "c"'):
        budgets.judge(budget(maxUnavailable=1), [pod("c")], lambda _: None, NOW)


@pytest.mark.parametrize(
    ("policy", "healthy", "may"),
    [("AlwaysAllow", 0, True), (None, 2, True), (None, 1, False), ("IfHealthyBudget", 2, True)],
)
def test_unhealthy_pods_go_by_policy(policy: str | None, healthy: int, may: bool) -> None:
    subject = budget(unhealthyPodEvictionPolicy=policy)
    subject["status"] = {"desiredHealthy": 2, "currentHealthy": healthy}
    assert budgets.unhealthy_may_go(subject, pod("a", ready=False)) is may
    assert not budgets.unhealthy_may_go(subject, pod("a"))


# -- the eviction subresource


@pytest.fixture
def guarded(machinery: Machinery) -> Machinery:
    """Two running pods, one budget that lets one of them go."""
    for name in ("a", "b"):
        body = {
            "metadata": {"name": name, "labels": {"app": "x"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        }
        store(machinery, "", "pods", body, pod(name)["status"], nodeName="n")
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}
    status = {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1}
    store(machinery, "policy", "poddisruptionbudgets", {"metadata": {"name": "x"}, "spec": spec}, status)
    return machinery


def store(machinery: Machinery, group: str, plural: str, body: Any, status: Any, **spec: Any) -> None:
    info = machinery.registry.get(group, "v1", plural)
    assert info is not None
    obj = machinery.create(info, "default", body, WriteOptions()).obj
    obj = {**obj, "metadata": dict(obj["metadata"]), "spec": {**obj["spec"], **spec}, "status": status}
    machinery.store.put(info.bucket, "default", obj["metadata"]["name"], obj)


def evict(machinery: Machinery, name: str, **options: Any) -> None:
    info = machinery.registry.get("", "v1", "pods")
    assert info is not None
    eviction.evict(machinery, info, "default", name, {"metadata": {"name": name}, "deleteOptions": options})


def test_two_evictions_cannot_spend_the_same_disruption(guarded: Machinery) -> None:
    evict(guarded, "a", dryRun=["All"])
    evict(guarded, "a")
    gone = guarded.store.get("/pods", "default", "a")
    assert gone is not None and "deletionTimestamp" in gone.obj["metadata"] and is_true(gone.obj, "DisruptionTarget")
    entry = guarded.store.get("policy/poddisruptionbudgets", "default", "x")
    assert entry is not None
    status = entry.obj["status"]
    assert status["disruptionsAllowed"] == 0 and list(status["disruptedPods"]) == ["a"]
    assert status["conditions"][0]["reason"] == "InsufficientPods"
    with pytest.raises(ApiError) as refused:
        evict(guarded, "b")
    assert (refused.value.code, refused.value.reason) == (429, "TooManyRequests")
    assert refused.value.message == "Cannot evict pod as it would violate the pod's disruption budget."
    (cause,) = (refused.value.details or {})["causes"]
    told = "The disruption budget x needs 1 healthy pods and has 2 currently"
    assert cause == {"reason": "DisruptionBudget", "message": told}
    evict(guarded, "a")  # being deleted already: no disruption more


def test_a_budget_that_is_not_counted_yet_refuses(guarded: Machinery) -> None:
    info = guarded.registry.get("policy", "v1", "poddisruptionbudgets")
    assert info is not None
    guarded.patch(info, "default", "x", "merge", {"spec": {"minAvailable": 0}}, WriteOptions())
    with pytest.raises(ApiError) as refused:
        evict(guarded, "a")
    details = refused.value.details or {}
    assert "is still being processed by the server." in details["causes"][0]["message"]
    assert details["retryAfterSeconds"] == 10


def test_two_budgets_for_one_pod_are_an_error(guarded: Machinery) -> None:
    store(guarded, "policy", "poddisruptionbudgets", {"metadata": {"name": "y"}, "spec": {"selector": {}}}, {})
    with pytest.raises(ApiError, match="more than one PodDisruptionBudget"):
        evict(guarded, "a")


@pytest.mark.cluster
def test_a_drain_evicts_what_the_budget_allows(embedded_cluster: EmbeddedCluster) -> None:
    cluster = embedded_cluster
    labels = {"app": "guarded"}
    container = {"name": "c", "image": "busybox", "command": ["sh", "-c", "sleep 300"]}
    template = {
        "metadata": {"labels": labels}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
    }  # fmt: skip
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    cluster.apply(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "guarded"}, "spec": spec},
        {
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "guarded"},
            "spec": {"minAvailable": "50%", "selector": {"matchLabels": labels}},
        },
    )  # fmt: skip
    node = cluster.get("nodes")["items"][0]["metadata"]["name"]

    def allowed() -> int:
        return int(cluster.get("pdb", "guarded").get("status", {}).get("disruptionsAllowed", 0))

    cluster.wait("both pods to be healthy", lambda: allowed() == 1)
    selector = ("--pod-selector", "app=guarded")
    try:
        said = cluster.kubectl("drain", node, *selector, "--timeout=3s", check=False)
        assert "Cannot evict pod as it would violate the pod's disruption budget." in said
        left = [p for p in cluster.get("pods", "-l", "app=guarded")["items"] if p["spec"].get("nodeName")]
        assert len(left) == 1  # the other waits for a node
        cluster.kubectl("patch", "pdb", "guarded", "--type=merge", "-p", '{"spec":{"minAvailable":0}}')
        cluster.kubectl("drain", node, *selector, "--timeout=20s")
    finally:
        cluster.kubectl("uncordon", node)
    cluster.wait("both pods to run again", lambda: cluster.get("pdb", "guarded")["status"]["currentHealthy"] == 2)
    cluster.kubectl("delete", "deployment,pdb", "guarded")
