"""Scheduling and preemption: which node a pod goes to, what the event says when none fits, and who has to go."""

from __future__ import annotations

from typing import Any

import pytest

from mizzen_local.controllers import preemption
from mizzen_local.controllers.placement import Misfit, Room, choose, misfit, summary

Object = dict[str, Any]
ANTI, NEAR = "podAntiAffinity", "podAffinity"


def pod(name: str, cpu: str = "0", *, labels: Object | None = None, **spec: Any) -> Object:
    container = {"name": "c", "resources": {"requests": {"cpu": cpu} if cpu != "0" else {}}}
    return {
        "metadata": {"name": name, "uid": name, "namespace": "ns", "labels": labels or {"app": name}},
        "spec": {"containers": [container], **spec},
        "status": {"phase": "Pending"},
    }


def node(name: str, cpu: str = "4", *, ready: bool = True, labels: Object | None = None, **spec: Any) -> Object:
    return {
        "metadata": {"name": name, "labels": {"zone": name, **(labels or {})}},
        "spec": spec,
        "status": {
            "allocatable": {"cpu": cpu, "memory": "1Gi", "pods": "3"},
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    }


def together(kind: str, app: str, key: str = "zone", **more: Any) -> Object:
    term = {"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}, **more}
    return {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


GPU = {"key": "gpu", "effect": "NoSchedule"}
TOLERANT = {"tolerations": [{"key": "gpu", "operator": "Exists"}]}
PORT = [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]
EVEN = {
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
         "labelSelector": {"matchLabels": {"app": "x"}}},
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("subject", "there", "where", "why"),
    [
        (pod("x", "1"), [], node("n"), None),
        (pod("x", "8"), [], node("n"), Misfit(["Insufficient cpu"], True)),
        (pod("x", "3"), [pod("a", "2")], node("n"), Misfit(["Insufficient cpu"], False)),
        (pod("x"), [pod("a"), pod("b"), pod("c")], node("n"), Misfit(["Too many pods"], False)),
        (pod("x"), [], node("n", unschedulable=True), Misfit(["node(s) were unschedulable"], True)),
        (pod("x"), [], node("n", taints=[GPU]), Misfit(["node(s) had untolerated taint(s)"], True)),
        (pod("x"), [], node("n", ready=False), Misfit(["node(s) had untolerated taint(s)"], True)),
        (pod("x", **TOLERANT), [], node("n", taints=[GPU]), None),
        (
            pod("x", nodeSelector={"zone": "y"}), [], node("n"),
            Misfit(["node(s) didn't match Pod's node affinity/selector"], True),
        ),
        (
            pod("x", containers=PORT), [pod("a", containers=PORT)], node("n"),
            Misfit(["node(s) didn't have free ports for the requested pod ports"], False),
        ),
        (
            pod("x", affinity=together(ANTI, "a")), [pod("a")], node("n"),
            Misfit(["node(s) didn't match pod anti-affinity rules"], False),
        ),
        (
            pod("x"), [pod("a", affinity=together(ANTI, "x"))], node("n"),
            Misfit(["node(s) didn't satisfy existing pods anti-affinity rules"], False),
        ),
        (pod("x", affinity=together(ANTI, "a", namespaces=["other"])), [pod("a")], node("n"), None),
        (pod("x", affinity=together(NEAR, "a")), [pod("a")], node("n"), None),
        (
            pod("x", affinity=together(NEAR, "a")), [], node("n"),
            Misfit(["node(s) didn't match pod affinity rules"], True),
        ),
        (pod("x", affinity=together(NEAR, "x")), [], node("n"), None),  # the first of its group
        (
            pod("x", affinity=together(NEAR, "x", key="rack")), [], node("n"),
            Misfit(["node(s) didn't match pod affinity rules"], True),
        ),
        (pod("x", **EVEN), [pod("x1", labels={"app": "x"})], node("n"), None),  # one domain is always even
    ],
)  # fmt: skip
def test_filters(subject: Object, there: list[Object], where: Object, why: Misfit | None) -> None:
    room = Room.of(where, there)
    assert misfit(subject, room, [room]) == why


def test_the_emptiest_node_is_chosen_and_a_message_counts_the_reasons() -> None:
    rooms = [Room.of(node("a", "2"), []), Room.of(node("b", "8"), []), Room.of(node("c", unschedulable=True), [])]
    assert choose(pod("x", "1"), rooms)[0] is rooms[1]
    nominated = {**pod("x", "1"), "status": {"nominatedNodeName": "a"}}
    assert choose(nominated, rooms)[0] is rooms[0]
    room, misfits = choose(pod("x", "9"), rooms)
    assert room is None
    told = summary(3, [reason for found in misfits.values() for reason in found.reasons])
    assert told == "0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu."


def test_pods_are_spread_over_domains() -> None:
    taken = [pod("x1", labels={"app": "x"})]
    rooms = [Room.of(node("a", "8"), taken), Room.of(node("b", "2"), [])]
    assert choose(pod("x", labels={"app": "x"}, **EVEN), rooms)[0] is rooms[1]
    rooms[1].node["metadata"]["labels"].pop("zone")
    told = choose(pod("x", labels={"app": "x"}, **EVEN), rooms[1:])[1]["b"]
    assert told == Misfit(["node(s) didn't match pod topology spread constraints (missing required label)"], True)


# -- preemption


OLD, NEW = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def low(name: str, cpu: str, priority: int = 0, start: str = OLD, **more: Any) -> Object:
    found = pod(name, cpu, priority=priority, nodeName="n", **more)
    found["status"] = {"phase": "Running", "startTime": start}
    return found


def high(cpu: str, priority: int = 100, **spec: Any) -> Object:
    return pod("high", cpu, priority=priority, **spec)


def budget(app: str, allowed: int) -> Object:
    spec = {"selector": {"matchLabels": {"app": app}}}
    return {"metadata": {"name": app, "namespace": "ns"}, "spec": spec, "status": {"disruptionsAllowed": allowed}}


def look(subject: Object, *rooms: Room, budgets: tuple[Object, ...] = ()) -> tuple[str, list[str], str]:
    """(node, victims, what is told otherwise)."""
    room, misfits = choose(subject, list(rooms))
    assert room is None
    found, why = preemption.preempt(subject, list(rooms), misfits, budgets)
    if found is None:
        return "", [], why
    return found.room.node["metadata"]["name"], [victim["metadata"]["name"] for victim in found.victims], why


@pytest.mark.parametrize(
    ("subject", "there", "victims", "why"),
    [
        (high("2"), [low("a", "3")], ["a"], ""),
        (high("2"), [low("a", "2", 1), low("b", "2", 2)], ["a"], ""),  # the lowest priority goes
        (high("2"), [low("a", "2", start=OLD), low("b", "2", start=NEW)], ["b"], ""),
        (high("3"), [low("a", "1", 3), low("b", "1", 2), low("c", "2", 1)], ["b", "c"], ""),
        (high("2", 0), [low("a", "3")], [], "1 No preemption victims found for incoming pod."),
        (high("9"), [low("a", "3")], [], "1 Preemption is not helpful for scheduling."),
        (high("3"), [low("a", "1"), low("b", "2", 100)], [], "1 Insufficient cpu."),
        (high("2", preemptionPolicy="Never"), [low("a", "3")], [], "not eligible due to preemptionPolicy=Never."),
    ],
)  # fmt: skip
def test_victims(subject: Object, there: list[Object], victims: list[str], why: str) -> None:
    node_name, found, told = look(subject, Room.of(node("n"), there))
    assert (node_name, found) == ("n" if victims else "", victims)
    prefix = "" if not why or why.startswith("not eligible") else "0/1 nodes are available: "
    assert told == prefix + why


def test_budgets_are_kept_where_possible() -> None:
    there = [low("a", "2", start=NEW), low("b", "2", start=OLD)]
    assert look(high("2"), Room.of(node("n"), there))[1] == ["a"]
    assert look(high("2"), Room.of(node("n"), there), budgets=(budget("a", 0),))[1] == ["b"]
    assert look(high("4"), Room.of(node("n"), there), budgets=(budget("a", 0),))[1] == ["b", "a"]


def test_the_node_with_the_least_harm_is_chosen() -> None:
    first, second = Room.of(node("n"), [low("a", "3", 5)]), Room.of(node("m"), [low("b", "2", 1), low("c", "2", 1)])
    assert look(high("4"), first, second)[0] == "m"  # less important, though more of them
    assert look(high("4"), first, second, budgets=(budget("b", 0),))[0] == "n"


def test_nobody_preempts_twice_for_one_pod() -> None:
    victim = low("a", "3")
    victim["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    reason = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
    victim["status"]["conditions"] = [reason]
    subject = high("2")
    subject["status"]["nominatedNodeName"] = "n"
    told = look(subject, Room.of(node("n"), [victim]))
    assert told == ("", [], "not eligible due to a terminating pod on the nominated node.")
