"""PriorityClasses: what they may be, and what a pod gets of the one that it names. No pod is stored."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.cluster.client import Http, eventually
from tests.cluster.objects import IMAGE, Object, pod

CLASSES = "/apis/scheduling.k8s.io/v1/priorityclasses"
Make = Callable[..., Any]


def a_class(name: str, value: int = 10, **more: Any) -> Object:
    return {
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value,
        **more,
    }  # fmt: skip


def a_pod(**spec: Any) -> Object:
    return pod("p", {"name": "c", "image": IMAGE}, **spec)


@pytest.fixture
async def make(http: Http) -> AsyncIterator[Make]:
    """Create a PriorityClass with a random name that lasts as long as the test."""
    made: list[str] = []

    async def create(**more: Any) -> str:
        name = f"test-{secrets.token_hex(4)}"
        await http.ok("POST", CLASSES, a_class(name, **more))
        made.append(name)
        return name

    yield create
    for name in made:
        await http.call("DELETE", f"{CLASSES}/{name}")


async def tried(http: Http, body: Object) -> Any:
    return await http.call("POST", http.path("pods"), body, dryRun="All")


async def admitted(http: Http, body: Object) -> Object:
    """The pod as admission would store it; a class that is new may not be known at once."""

    async def look() -> Object | None:
        answer = await tried(http, body)
        return answer.body if answer.code == 201 else None

    found: Object = await eventually("the class to be known", look)
    return found


async def test_every_cluster_has_the_system_classes(http: Http) -> None:
    found = {
        item["metadata"]["name"]: (item["value"], item["preemptionPolicy"])
        for item in (await http.ok("GET", CLASSES))["items"]
    }
    assert found["system-cluster-critical"] == (2000000000, "PreemptLowerPriority")
    assert found["system-node-critical"] == (2000001000, "PreemptLowerPriority")


async def test_a_pod_gets_the_number_of_its_class(http: Http, make: Make) -> None:
    name = await make(value=-5, preemptionPolicy="Never")
    found = await admitted(http, a_pod(priorityClassName=name))
    assert (found["spec"]["priority"], found["spec"]["preemptionPolicy"]) == (-5, "Never")
    answer = await tried(http, a_pod(priorityClassName=name, priority=7))
    assert answer.code == 403 and answer.message == (
        'pods "p" is forbidden: the integer value of priority (7) must not be provided in pod spec; priority admission'
        " controller computed -5 from the given PriorityClass name"
    )
    answer = await tried(http, a_pod(priorityClassName=name, preemptionPolicy="PreemptLowerPriority"))
    assert answer.code == 403 and answer.message == (
        'pods "p" is forbidden: the string value of PreemptionPolicy (PreemptLowerPriority) must not be provided in'
        " pod spec; priority admission controller computed Never from the given PriorityClass name"
    )
    answer = await tried(http, a_pod(priorityClassName="nowhere"))
    assert answer.code == 403
    assert answer.message == 'pods "p" is forbidden: no PriorityClass with name nowhere was found'


async def test_a_default_class_is_for_pods_that_name_none(http: Http, make: Make) -> None:
    given = [item for item in (await http.ok("GET", CLASSES))["items"] if item.get("globalDefault")]
    if given:
        default, value = given[0]["metadata"]["name"], given[0]["value"]
    else:
        found = (await tried(http, a_pod())).body["spec"]
        assert found["priority"] == 0 and "priorityClassName" not in found
        default, value = await make(value=3, globalDefault=True), 3

    async def is_default() -> bool:
        found = (await tried(http, a_pod())).body["spec"]
        return (found.get("priorityClassName"), found["priority"]) == (default, value)

    await eventually("the default to be known", is_default)
    answer = await http.call("POST", CLASSES, a_class("test-second", globalDefault=True))
    assert answer.code == 403 and answer.message == (
        'priorityclasses.scheduling.k8s.io "test-second" is forbidden: PriorityClass'
        f" {default} is already marked as default. Only one default can exist"
    )


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (
            a_class("big", 1000000001),
            "value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
        ),
        (
            a_class("system-mine"),
            "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only."
            " error: system-mine is not a known system priority class",
        ),
        (
            a_class("odd", preemptionPolicy="Sometimes"),
            'preemptionPolicy: Unsupported value: "Sometimes": supported values: "PreemptLowerPriority", "Never"',
        ),
    ],
)
async def test_classes_that_cannot_be(http: Http, body: Object, problem: str) -> None:
    answer = await http.call("POST", CLASSES, body)
    assert answer.code == 422
    assert answer.message == f'PriorityClass.scheduling.k8s.io "{body["metadata"]["name"]}" is invalid: {problem}'


async def test_a_class_keeps_its_value(http: Http, make: Make) -> None:
    name = await make()
    patch = {"value": 11, "preemptionPolicy": "Never"}
    answer = await http.call("PATCH", f"{CLASSES}/{name}", patch, media="application/merge-patch+json")
    assert answer.code == 422 and answer.message == (
        f'PriorityClass.scheduling.k8s.io "{name}" is invalid: [value: Forbidden: may not be changed in an update.,'
        ' preemptionPolicy: Invalid value: "Never": field is immutable]'
    )


async def test_a_new_pod_outlives_a_short_absence_of_its_node(http: Http) -> None:
    given = {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
    found = (await tried(http, a_pod(tolerations=[given]))).body["spec"]["tolerations"]
    added = {**given, "key": "node.kubernetes.io/unreachable", "tolerationSeconds": 300}
    assert found == [given, added]


@pytest.mark.parametrize(
    ("resources", "qos"),
    [
        ([{}], "BestEffort"),
        ([{"requests": {"cpu": "1"}}], "Burstable"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}}], "Guaranteed"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}}, {}], "Burstable"),
        ([{"limits": {"cpu": "1000m", "memory": "1024Mi"}, "requests": {"cpu": "1", "memory": "1Gi"}}], "Guaranteed"),
        ([{"limits": {"mizzen.test/chips": "1"}}], "BestEffort"),
        ([{"limits": {"cpu": "0"}}], "BestEffort"),
    ],
)
async def test_quality_of_service(http: Http, resources: list[Object], qos: str) -> None:
    containers = [{"name": f"c{n}", "image": IMAGE, "resources": each} for n, each in enumerate(resources)]
    assert (await tried(http, pod("p", *containers))).body["status"]["qosClass"] == qos


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("0.5", "500m"), ("1000m", "1"), ("1024", "1024"), ("1000", "1k"), ("1024Ki", "1Mi"), ("1.5Gi", "1536Mi"),
        ("1e3", "1e3"), ("0.5Gi", "512Mi"), ("1023Ki", "1023Ki"), ("12000000", "12M"), ("00", "0"),
    ],
)  # fmt: skip
async def test_amounts_are_kept_in_their_shortest_form(http: Http, given: str, kept: str) -> None:
    hard = {"limits.memory": given}
    body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": hard}}
    found = await http.create("resourcequotas", body, dryRun="All")
    assert found["spec"]["hard"] == {"limits.memory": kept}
