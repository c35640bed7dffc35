"""From what a node measures to what metrics.k8s.io says, without a node."""

from __future__ import annotations

import os
from typing import Any

import pytest

from mizzen_local.agent.resource_metrics import Measured, render
from mizzen_local.agent.usage import Meter, Usage, machine
from mizzen_local.api.kubelets import Kubelets
from mizzen_local.api.machinery import Machinery, WriteOptions
from mizzen_local.api.metrics import Metrics, cpu_quantity, memory_quantity
from mizzen_local.api.reads import Selection
from mizzen_local.api.scrapes import Point, Rate, Scrape, Scrapes, parse, rate
from mizzen_local.client import ApiError

NOW = 1_800_000_000.0


def point(at: float, cpu: float, memory: int = 100, started: float = -60.0) -> Point:
    return Point(NOW + at, cpu, memory, NOW + started)


def test_scrape_survives_the_text_format() -> None:
    containers = [
        Measured("ns", "a", "main", NOW - 5, NOW, Usage(1.25, 4096)),
        Measured("ns", "a", "side", NOW - 4, NOW, Usage(0.5, 1024)),
    ]
    text = render(containers, Usage(77.5, 10**9), NOW)
    assert 'pod_cpu_usage_seconds_total{namespace="ns",pod="a"} 1.75 1800000000000' in text
    assert 'pod_memory_working_set_bytes{namespace="ns",pod="a"} 5120 1800000000000' in text
    found = parse(text)
    assert found.node == Point(NOW, 77.5, 10**9)
    assert found.pods == {
        ("ns", "a"): {"main": Point(NOW, 1.25, 4096, NOW - 5), "side": Point(NOW, 0.5, 1024, NOW - 4)}
    }


@pytest.mark.parametrize("text", ["", "# only words\n", "container_cpu_usage_seconds_total{broken\n", "x 1 2\n"])
def test_what_is_not_a_sample_is_passed_over(text: str) -> None:
    assert parse(text) == Scrape()


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        (point(0, 1.0), point(10, 6.0, 200), Rate(NOW + 10, 10.0, 0.5, 200)),
        (point(0, 1.0), point(0, 1.0), None),  # no time has passed
        (point(0, 6.0), point(10, 1.0), None),  # the counter went back
        (point(0, 1.0), point(10, 2.0, started=5), None),  # another container of that name
    ],
)
def test_rate(before: Point, after: Point, wanted: Rate | None) -> None:
    assert rate(before, after) == wanted


def rounds(*found: dict[str, Point], resolution: float = 15.0) -> Scrapes:
    scrapes = Scrapes(resolution)
    for containers in found:
        scrapes.store({"n": Scrape(Point(NOW, 1.0, 1), {("ns", "a"): containers})})
    return scrapes


def test_pod_has_metrics_once_each_container_was_seen_twice() -> None:
    key = ("ns", "a")
    assert rounds({"c": point(0, 1.0)}).pod(key) is None
    assert rounds({"c": point(0, 1.0)}, {"c": point(15, 4.0)}).pod(key) == {"c": Rate(NOW + 15, 15.0, 0.2, 100)}
    assert rounds({"c": point(0, 1.0)}, {"c": point(15, 4.0), "d": point(15, 1.0)}).pod(key) is None
    assert rounds({"c": point(0, 1.0)}, {"c": point(15, 4.0)}, {}).pod(key) is None


def test_young_container_is_measured_from_its_start() -> None:
    assert rounds({"c": point(0, 6.0, started=-12)}).pod(("ns", "a")) == {"c": Rate(NOW, 12.0, 0.5, 100)}
    assert rounds({"c": point(0, 6.0, started=-9)}).pod(("ns", "a")) is None


def test_restarted_container_has_no_metrics_until_seen_twice() -> None:
    first, second = {"c": point(0, 9.0)}, {"c": point(15, 0.5, started=10)}
    assert rounds(first, second).pod(("ns", "a")) is None
    assert rounds(first, second, {"c": point(30, 2.0, started=10)}).pod(("ns", "a")) is not None


def test_node_that_is_away_is_forgotten() -> None:
    scrapes = Scrapes(15.0)
    for at in (0, 15):
        scrapes.store({"n": Scrape(point(at, float(at), started=-NOW))})
    assert scrapes.ready
    assert scrapes.node("n") is not None
    scrapes.store({})
    assert scrapes.node("n") is None


@pytest.mark.parametrize(
    ("cores", "text"), [(0.0, "0"), (2.0, "2"), (0.25, "250m"), (0.0000015, "1500n"), (0.000002, "2u")]
)
def test_cpu_quantity(cores: float, text: str) -> None:
    assert cpu_quantity(cores) == text


@pytest.mark.parametrize(("amount", "text"), [(0, "0"), (1000, "1000"), (3 * 2**20, "3Mi"), (2**41, "2048Gi")])
def test_memory_quantity(amount: int, text: str) -> None:
    assert memory_quantity(amount) == text


def test_meter_of_what_is_no_container_says_nothing() -> None:
    assert Meter(os.getpid()).read() is None  # shares the root of the host
    assert Meter(2**22 + 1).read() is None  # no such process


def test_machine_is_measured() -> None:
    found = machine()
    assert found.cpu > 0
    assert found.memory > 2**20


def served(machinery: Machinery, *, looks: int) -> Metrics:
    def put(plural: str, namespace: str, body: dict[str, Any]) -> None:
        info = machinery.registry.get("", "v1", plural)
        assert info is not None
        machinery.create(info, namespace, body, WriteOptions("test"))
        machinery.patch(
            info, namespace, body["metadata"]["name"], "merge", {"status": {"phase": "Running"}}, WriteOptions("test"),
            "status",
        )  # fmt: skip

    put("nodes", "", {"metadata": {"name": "n"}})
    for name in ("a", "b"):
        containers = [{"name": "c", "image": "x"}]
        put(
            "pods", "default", {"metadata": {"name": name, "labels": {"app": name}}, "spec": {"containers": containers}}
        )
    metrics = Metrics(machinery, Kubelets(machinery, None))
    for at in range(0, looks * 15, 15):
        pods = {("default", "a"): {"c": point(at, at / 2)}}
        metrics.scrapes.store({"n": Scrape(point(at, float(at)), pods)})
    return metrics


def test_metrics_api_before_the_first_rate_is_unavailable(machinery: Machinery) -> None:
    metrics = served(machinery, looks=1)
    info = machinery.registry.get("metrics.k8s.io", "v1beta1", "pods")
    assert info is not None
    with pytest.raises(ApiError) as caught:
        metrics.listed(info, Selection())
    assert caught.value.code == 503


def test_metrics_api_lists_what_it_knows(machinery: Machinery) -> None:
    metrics = served(machinery, looks=2)
    pods = machinery.registry.get("metrics.k8s.io", "v1beta1", "pods")
    nodes = machinery.registry.get("metrics.k8s.io", "v1beta1", "nodes")
    assert pods is not None
    assert nodes is not None
    listed = metrics.listed(pods, Selection("default"))
    assert (listed["kind"], listed["apiVersion"]) == ("PodMetricsList", "metrics.k8s.io/v1beta1")
    [item] = listed["items"]
    assert item["metadata"]["labels"] == {"app": "a"}
    assert item["window"] == "15s"
    assert item["containers"] == [{"name": "c", "usage": {"cpu": "500m", "memory": "100"}}]
    assert metrics.listed(pods, Selection(None, "app=b"))["items"] == []
    assert metrics.listed(pods, Selection("kube-system"))["items"] == []
    assert metrics.one(nodes, "", "n")["usage"] == {"cpu": "1", "memory": "100"}


@pytest.mark.parametrize(
    ("name", "message"),
    [("b", 'podmetrics.metrics.k8s.io "default/b" not found'), ("gone", 'pods "gone" not found')],
)
def test_metrics_api_of_a_pod_without_metrics(machinery: Machinery, name: str, message: str) -> None:
    info = machinery.registry.get("metrics.k8s.io", "v1beta1", "pods")
    assert info is not None
    with pytest.raises(ApiError, match=message) as caught:
        served(machinery, looks=2).one(info, "default", name)
    assert caught.value.code == 404
