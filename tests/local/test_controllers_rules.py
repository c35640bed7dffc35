"""The pure rules of the controllers, as tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mizzen_local.controllers import rollout
from mizzen_local.controllers.endpoints import legacy, slices
from mizzen_local.controllers.replicaset import plan as plan_set
from mizzen_local.objects import pod_requests, quantity, rfc3339, selects, with_condition

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def pod(name: str, phase: str = "Running", *, ready: bool = True, **meta: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": str(ready), "lastTransitionTime": rfc3339(NOW)}]
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "namespace": "ns", "labels": {"app": "x"}, **meta},
        "spec": {"containers": [{"name": "c"}], "nodeName": "n"},
        "status": {"phase": phase, "podIP": "127.30.0.9", "conditions": conditions if phase == "Running" else []},
    }


def condition_types(status: dict[str, Any]) -> dict[str, str]:
    return {c["type"]: c["reason"] for c in status["conditions"] if c["status"] == "True"}


@pytest.mark.parametrize(
    ("text", "number"), [("250m", 0.25), ("1Gi", 2**30), ("2", 2.0), ("1.5k", 1500.0), ("100Mi", 100 * 2**20)]
)
def test_quantities(text: str, number: float) -> None:
    assert quantity(text) == number


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ({"matchLabels": {"app": "x"}}, True),
        ({"matchLabels": {"app": "y"}}, False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["x", "y"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["x"]}]}, False),
        ({"matchExpressions": [{"key": "other", "operator": "DoesNotExist"}]}, True),
        ({}, True),
        (None, False),
    ],
)
def test_selectors(selector: dict[str, Any] | None, matches: bool) -> None:
    assert selects(selector, {"app": "x"}) is matches


def test_a_condition_keeps_its_transition_time_while_its_status_stays() -> None:
    first = with_condition([], "Ready", "False", "A", "", "t1")
    same = with_condition(first, "Ready", "False", "B", "", "t2")
    moved = with_condition(same, "Ready", "True", "C", "", "t3")
    assert [c[0]["lastTransitionTime"] for c in (first, same, moved)] == ["t1", "t1", "t3"]


# -- ReplicaSet


def replica_set(replicas: int, available: int | None = None, name: str = "rs", created: str = "t") -> dict[str, Any]:
    available = replicas if available is None else available
    return {
        "metadata": {"name": name, "uid": name, "generation": 2, "creationTimestamp": created},
        "spec": {"replicas": replicas, "template": {"metadata": {"labels": {"app": "x"}}}},
        "status": {"replicas": replicas, "readyReplicas": available, "availableReplicas": available},
    }


def test_a_replica_set_creates_what_is_missing_and_ignores_what_ends() -> None:
    pods = [pod("a"), pod("b", deletionTimestamp=rfc3339(NOW)), pod("c", "Failed")]
    decided = plan_set(replica_set(3), pods, NOW)
    assert (decided.create, decided.delete) == (2, ())
    assert decided.status["readyReplicas"] == 1 and decided.status["observedGeneration"] == 2


def test_a_replica_set_deletes_unready_pods_first() -> None:
    decided = plan_set(replica_set(1), [pod("a"), pod("b", ready=False), pod("c", "Pending")], NOW)
    assert {p["metadata"]["name"] for p in decided.delete} == {"b", "c"}


def test_min_ready_seconds_delays_availability() -> None:
    rs = replica_set(1)
    rs["spec"]["minReadySeconds"] = 30
    decided = plan_set(rs, [pod("a")], NOW + timedelta(seconds=10))
    assert decided.status["availableReplicas"] == 0 and decided.look_again == 20.0


# -- Deployment


def deployment(replicas: int, strategy: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "metadata": {"name": "d", "generation": 1},
        "spec": {"replicas": replicas, "strategy": strategy or {"type": "RollingUpdate"}},
    }


ROLL = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


@pytest.mark.parametrize(
    ("strategy", "wanted", "new", "old", "remain", "expected"),
    [
        (ROLL, 3, replica_set(0, name="new"), [], False, {"new": 3}),
        (ROLL, 3, replica_set(0, name="new"), [replica_set(3, name="old")], True, {"new": 1}),
        (ROLL, 3, replica_set(1, 0, name="new"), [replica_set(3, name="old")], True, {}),
        (ROLL, 3, replica_set(1, 1, name="new"), [replica_set(3, name="old")], True, {"old": 2}),
        (ROLL, 3, replica_set(1, 0, name="new"), [replica_set(3, 2, name="old")], True, {}),
        (ROLL, 3, replica_set(3, 3, name="new"), [replica_set(1, name="old")], True, {"old": 0}),
        (ROLL, 1, replica_set(3, 3, name="new"), [], False, {"new": 1}),
        ({"type": "Recreate"}, 2, replica_set(0, name="new"), [replica_set(2, name="old")], True, {"old": 0}),
        ({"type": "Recreate"}, 2, replica_set(0, name="new"), [replica_set(0, name="old")], True, {}),
        ({"type": "Recreate"}, 2, replica_set(0, name="new"), [replica_set(0, name="old")], False, {"new": 2}),
    ],
)
def test_rollouts(
    strategy: dict[str, Any], wanted: int, new: Any, old: list[Any], remain: bool, expected: dict[str, int]
) -> None:
    assert rollout.sizes(deployment(wanted, strategy), new, old, remain) == expected


def test_a_rolling_update_ends_and_never_falls_below_what_must_be_available() -> None:
    """Walk a whole rollout, each new pod becoming available one step later."""
    target, new, old = deployment(4), replica_set(0, name="new"), replica_set(4, name="old")
    surge, unavailable = rollout.bounds(target)
    for _ in range(30):
        for name, size in rollout.sizes(target, new, [old], True).items():
            changed = new if name == "new" else old
            changed["spec"]["replicas"] = size
            changed["status"]["replicas"] = size
            changed["status"]["availableReplicas"] = min(size, changed["status"]["availableReplicas"])
        total = new["spec"]["replicas"] + old["spec"]["replicas"]
        available = new["status"]["availableReplicas"] + old["status"]["availableReplicas"]
        assert available >= 4 - unavailable and total <= 4 + surge
        new["status"]["availableReplicas"] = new["spec"]["replicas"]
    assert (new["spec"]["replicas"], old["spec"]["replicas"]) == (4, 0)


def test_deployment_status_tells_when_it_is_done_and_when_it_is_stuck() -> None:
    target = deployment(2)
    done = rollout.status(target, replica_set(2), [], NOW)
    assert condition_types(done) == {"Available": "MinimumReplicasAvailable", "Progressing": "NewReplicaSetAvailable"}
    half = replica_set(2, 0)
    target["status"] = rollout.status(target, half, [], NOW)
    late = rollout.status(target, half, [], NOW + timedelta(seconds=700))
    progressing = next(c for c in late["conditions"] if c["type"] == "Progressing")
    assert (progressing["status"], progressing["reason"]) == ("False", "ProgressDeadlineExceeded")


# -- Job


def test_slices_resolve_named_ports_and_tell_what_is_ready() -> None:
    service = {
        "metadata": {"name": "s", "namespace": "ns", "uid": "u"},
        "spec": {"selector": {"app": "x"}, "ports": [{"name": "web", "port": 80, "targetPort": "http"}]},
    }
    ready, unready, over = pod("a"), pod("b", ready=False), pod("c", "Succeeded")
    for each in (ready, unready, over):
        each["spec"]["containers"][0]["ports"] = [{"name": "http", "containerPort": 8080}]
    (piece,) = slices(service, [ready, unready, over])
    assert piece["ports"] == [{"name": "web", "port": 8080, "protocol": "TCP"}]
    assert [e["conditions"]["ready"] for e in piece["endpoints"]] == [True, False]
    (subset,) = legacy(service, [piece])["subsets"]
    assert len(subset["addresses"]) == len(subset["notReadyAddresses"]) == 1


def test_requests_count_sidecars_and_the_largest_init_container() -> None:
    def container(cpu: str, **more: Any) -> dict[str, Any]:
        return {"resources": {"requests": {"cpu": cpu}}, **more}

    spec = {
        "containers": [container("1"), container("500m")],
        "initContainers": [container("250m", restartPolicy="Always"), container("4")],
    }
    assert pod_requests({"spec": spec}) == {"cpu": 4.25}


@pytest.mark.parametrize(
    ("replicas", "new", "old", "sizes"),
    [
        (4, (2, 2), [(0, 0)], {"new": 4}),  # one active set takes it all
        (8, (3, 0), [(2, 2)], {"new": 6, "old0": 4}),  # in the midst of a rollout each keeps its share, with the surge
        (2, (3, 0), [(2, 2)], {"new": 2, "old0": 1}),
        (0, (3, 0), [(2, 2)], {"new": 0, "old0": 0}),
        (3, (3, 3), [(2, 2)], {"old0": 0}),  # the new set is all there
        (6, None, [(4, 4), (0, 0)], {"old0": 6}),  # paused, with a template that has no set yet
    ],
)
def test_a_changed_size_is_shared_out(
    replicas: int, new: tuple[int, int] | None, old: list[tuple[int, int]], sizes: dict[str, int]
) -> None:
    """Sets that were sized for four pods and one of surge."""
    notes = {rollout.DESIRED: "4", rollout.MOST: "5"}
    subject = deployment(replicas, {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}})
    made = [replica_set(size, available, f"old{n}", f"t{n}") for n, (size, available) in enumerate(old)]
    newest = replica_set(*new, "new", "t9") if new else None
    for each in [*made, *([newest] if newest else [])]:
        each["metadata"]["annotations"] = notes
    assert rollout.sizes(subject, newest, made, False) == sizes
