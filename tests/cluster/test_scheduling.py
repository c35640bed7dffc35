"""Scheduling: pods that fit nowhere wait and say why; more important ones make room for themselves."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.cluster.client import Cluster, Http, eventually
from tests.cluster.objects import FOREVER, Object, conditions, pod, shell

STUBBORN = "trap '' TERM; touch /tmp/stubborn; while :; do sleep 0.1; done"


@dataclass(frozen=True)
class Slots:
    """An extended resource that one node has two of, and that node's name for `nodeSelector`."""

    resource: str
    node: str
    hostname: str

    def pod(self, name: str, count: int = 1, **spec: Any) -> Object:
        amount = {self.resource: str(count)}
        return pod(name, shell(FOREVER, resources={"requests": amount, "limits": amount}), **spec)


@pytest.fixture(scope="module")
def slots(cluster: Cluster) -> Iterator[Slots]:
    resource = f"mizzen.test/slot-{secrets.token_hex(4)}"
    node = next(node for node in cluster.get("nodes")["items"] if _takes_pods(node))

    def offer(amount: str | None) -> None:
        status = {"capacity": {resource: amount}, "allocatable": {resource: amount}}
        patch = json.dumps({"status": status})
        cluster.kubectl("patch", "node", node["metadata"]["name"], "--subresource=status", "--type=merge", "-p", patch)

    offer("2")
    yield Slots(resource, node["metadata"]["name"], node["metadata"]["labels"]["kubernetes.io/hostname"])
    offer(None)


def _takes_pods(node: Object) -> bool:
    return not node["spec"].get("unschedulable") and not node["spec"].get("taints")


@pytest.fixture(scope="module")
def classes(cluster: Cluster) -> Iterator[dict[str, str]]:
    """PriorityClasses: one that preempts, one that does not, and two that anything preempts."""
    kinds = {"PreemptLowerPriority": 1000, "Never": 1000, "Low": -1, "Lowest": -2}
    names = {kind: f"test-{kind.lower()}-{secrets.token_hex(4)}" for kind in kinds}
    manifests = [
        {
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": names[kind]},
            "value": value, "preemptionPolicy": "Never" if kind == "Never" else "PreemptLowerPriority",
        }
        for kind, value in kinds.items()
    ]  # fmt: skip
    cluster.apply(*manifests)
    yield names
    cluster.kubectl("delete", "priorityclass", *names.values(), "--wait=false")


async def told(http: Http, name: str, reason: str = "FailedScheduling") -> str:
    async def look() -> str:
        listed = await http.get("events", fieldSelector=f"reason={reason},involvedObject.name={name}")
        return str(listed["items"][-1]["message"]) if listed["items"] else ""

    found: str = await eventually(f"an event {reason} of {name}", look)
    return found


def is_placed(found: Object) -> bool:
    return conditions(found).get("PodScheduled", {}).get("status") == "True"


def is_ready(found: Object) -> bool:
    return conditions(found).get("Ready", {}).get("status") == "True"


def is_waiting(found: Object) -> bool:
    return conditions(found).get("PodScheduled", {}).get("reason") == "Unschedulable"


async def remove(http: Http, *names: str) -> None:
    """At once: what held a slot must not hold it in the next test."""
    for name in names:
        await http.delete("pods", name, gracePeriodSeconds=0)
        await http.until_gone("pods", name)


async def test_what_fits_nowhere_waits_until_it_fits(http: Http, slots: Slots) -> None:
    await http.create("pods", slots.pod("first", 2))
    await http.until("pods", "first", "a node", is_placed)
    await http.create("pods", slots.pod("second"))
    found = await http.until("pods", "second", "a verdict", is_waiting)
    message = conditions(found)["PodScheduled"]["message"]
    assert re.match(rf"0/(\d+) nodes are available: .*\d Insufficient {slots.resource}", message)
    assert re.search(r"preemption: 0/\d+ nodes are available: 1 No preemption victims found for incoming pod", message)
    assert await told(http, "second") == message
    assert found["status"]["phase"] == "Pending" and "nodeName" not in found["spec"]
    await remove(http, "first")
    found = await http.until("pods", "second", "a node", is_placed)
    assert found["spec"]["nodeName"] == slots.node
    assert await told(http, "second", "Scheduled") == (f"Successfully assigned {http.namespace}/second to {slots.node}")
    await remove(http, "second")


@pytest.mark.parametrize(
    ("name", "spec", "why"),
    [
        ("selector", {"nodeSelector": {"no": "such"}}, "node(s) didn't match Pod's node affinity/selector"),
        (
            "affinity",
            {
                "affinity": {
                    "podAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": [
                            {
                                "topologyKey": "kubernetes.io/hostname",
                                "labelSelector": {"matchLabels": {"no": "such"}},
                            }
                        ]
                    }
                }
            },
            "node(s) didn't match pod affinity rules",
        ),
    ],
)
async def test_what_no_preemption_would_help(http: Http, name: str, spec: Object, why: str) -> None:
    await http.create("pods", pod(name, shell("true"), **spec))
    found = await http.until("pods", name, "a verdict", is_waiting)
    message = conditions(found)["PodScheduled"]["message"]
    assert re.match(rf"0/(\d+) nodes are available: .*\1 {re.escape(why)}", message)
    helpless = r"preemption: 0/(\d+) nodes are available: \1 Preemption is not helpful for scheduling\."
    assert re.search(helpless, message)
    await remove(http, name)


async def test_pods_that_shun_each_other(http: Http, slots: Slots) -> None:
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "hermit"}}}
    spec = {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}
    here = {"nodeSelector": {"kubernetes.io/hostname": slots.hostname}}
    for name in ("hermit-1", "hermit-2"):
        await http.create("pods", pod(name, shell(FOREVER), labels={"app": "hermit"}, **spec, **here))
        if name == "hermit-1":
            await http.until("pods", name, "a node", is_placed)
    found = await http.until("pods", "hermit-2", "a verdict", is_waiting)
    assert "node(s) didn't match pod anti-affinity rules" in conditions(found)["PodScheduled"]["message"]
    await remove(http, "hermit-1")
    await http.until("pods", "hermit-2", "a node", is_placed)
    await remove(http, "hermit-2")


async def test_a_gated_pod_is_not_looked_at(http: Http) -> None:
    await http.create("pods", pod("gated", shell("true"), schedulingGates=[{"name": "mizzen.test/wait"}]))
    found = await http.until("pods", "gated", "its gate", lambda p: "PodScheduled" in conditions(p))
    assert conditions(found)["PodScheduled"]["reason"] == "SchedulingGated"
    await http.patch("pods", "gated", {"spec": {"schedulingGates": None}})
    await http.until("pods", "gated", "a node", is_placed)
    await remove(http, "gated")


async def test_a_more_important_pod_preempts(http: Http, slots: Slots, classes: dict[str, str]) -> None:
    await http.create("pods", slots.pod("humble", 2))
    await http.until("pods", "humble", "a node", is_placed)
    await http.create("pods", slots.pod("polite", priorityClassName=classes["Never"]))
    found = await http.until("pods", "polite", "a verdict", is_waiting)
    message = conditions(found)["PodScheduled"]["message"]
    assert message.endswith("preemption: not eligible due to preemptionPolicy=Never.")
    await remove(http, "polite")
    # a finalizer keeps the victim in sight
    await http.patch("pods", "humble", {"metadata": {"finalizers": ["mizzen.test/look"]}})
    made = await http.create("pods", slots.pod("proud", priorityClassName=classes["PreemptLowerPriority"]))
    assert made["spec"]["priority"] == 1000
    victim = await http.until("pods", "humble", "its end", lambda p: "deletionTimestamp" in p["metadata"])
    target = conditions(victim)["DisruptionTarget"]
    assert (target["status"], target["reason"]) == ("True", "PreemptionByScheduler")
    assert target["message"] == "default-scheduler: preempting to accommodate a higher priority pod"
    assert await told(http, "humble", "Preempted") == (
        f"Preempted by pod {made['metadata']['uid']} on node {slots.node}"
    )
    assert f"Insufficient {slots.resource}" in await told(http, "proud")
    await http.patch("pods", "humble", {"metadata": {"finalizers": None}})
    await http.call("DELETE", http.path("pods", "humble"), {"gracePeriodSeconds": 0})
    found = await http.until("pods", "proud", "a node", is_placed)
    assert found["spec"]["nodeName"] == slots.node and "nominatedNodeName" not in found["status"]
    await remove(http, "proud")


async def test_the_least_important_pod_goes_unless_a_budget_keeps_it(
    http: Http, slots: Slots, classes: dict[str, str]
) -> None:
    """The victim does not go at once: until its slot is free, the other pod waits for this very node."""
    for victim, budget in (("lowest", None), ("low", {"minAvailable": 1})):
        if budget:
            spec = {**budget, "selector": {"matchLabels": {"app": "lowest"}}}
            body = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"}, "spec": spec}
            await http.create("policy/v1/poddisruptionbudgets", body)
            await http.until("policy/v1/poddisruptionbudgets", "b", "its count", lambda b: "status" in b)
        for name in ("low", "lowest"):
            made = slots.pod(name, priorityClassName=classes[name.capitalize()], terminationGracePeriodSeconds=5)
            container = made["spec"]["containers"][0]
            container["command"][-1] = STUBBORN
            container["readinessProbe"] = {"exec": {"command": ["test", "-e", "/tmp/stubborn"]}, "periodSeconds": 1}
            await http.create("pods", made)
            await http.until("pods", name, "a deaf ear to SIGTERM", is_ready)
        await http.create("pods", slots.pod("higher"))
        found = await http.until("pods", "higher", "a node to wait for", lambda p: "nominatedNodeName" in p["status"])
        assert found["status"]["nominatedNodeName"] == slots.node and "nodeName" not in found["spec"]
        await http.until("pods", victim, "its end", lambda p: "deletionTimestamp" in p["metadata"])
        spared = "low" if victim == "lowest" else "lowest"
        assert "deletionTimestamp" not in (await http.get("pods", spared))["metadata"]
        await http.call("DELETE", http.path("pods", victim), {"gracePeriodSeconds": 0})
        await http.until("pods", "higher", "a node", is_placed)
        await remove(http, "higher", spared)
