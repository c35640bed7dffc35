"""The seams to the outside: what pods, MLflow and Kubernetes say, read into values."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from mizzen_operator import views
from mizzen_operator.errors import ConfigurationError
from mizzen_operator.fetch import parse_traffic
from mizzen_operator.observed import Found, Missing, Traffic, Unreachable
from mizzen_operator.registry import FOUND_SECONDS, WAITING_SECONDS, MlflowRegistry
from mizzen_operator.settings import Offer, Settings


def test_traffic_is_summed_over_labels():
    text = """
# TYPE mizzen_requests_total counter
mizzen_requests_total{code="200"} 7.0
mizzen_requests_total{code="500"} 2.0
# TYPE mizzen_requests_in_flight gauge
mizzen_requests_in_flight 3.0
# TYPE other gauge
other 99.0
"""
    assert parse_traffic(text) == Traffic(requests=9, in_flight=3.0)
    assert parse_traffic("<html>}{") is None


class Mlflow:
    """Answers as MLflow 3 does."""

    def __init__(self) -> None:
        self.aliases = {"champion": "3"}
        self.asked = 0
        self.broken = False

    async def alias(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.broken:
            return web.Response(status=503, text="busy")
        if request.query["name"] != "tweets":
            return web.json_response({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no model"}, status=404)
        version = self.aliases.get(request.query["alias"])
        if version is None:
            return web.json_response({"error_code": "INVALID_PARAMETER_VALUE", "message": "no alias"}, status=400)
        return web.json_response({"model_version": {"name": "tweets", "version": version}})

    async def version(self, request: web.Request) -> web.Response:
        query = request.query
        return web.json_response({"model_version": {"name": query["name"], "version": query["version"]}})


@pytest.fixture
async def mlflow() -> AsyncIterator[tuple[Mlflow, MlflowRegistry, list[float]]]:
    fake, clock = Mlflow(), [0.0]
    app = web.Application()
    app.router.add_get("/api/2.0/mlflow/registered-models/alias", fake.alias)
    app.router.add_get("/api/2.0/mlflow/model-versions/get", fake.version)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    async with aiohttp.ClientSession() as session:
        yield fake, MlflowRegistry(session, f"http://127.0.0.1:{port}", lambda: clock[0]), clock
    await runner.cleanup()


async def test_uris_are_resolved(mlflow):
    _, registry, _ = mlflow
    assert await registry.resolve("models:/tweets@champion") == Found("models:/tweets/3")
    assert await registry.resolve("models:/tweets/9") == Found("models:/tweets/9")
    assert isinstance(await registry.resolve("models:/tweets@nobody"), Missing)
    assert isinstance(await registry.resolve("models:/unknown@champion"), Missing)


async def test_answers_are_kept_for_a_while(mlflow):
    fake, registry, clock = mlflow
    await registry.resolve("models:/tweets@champion")
    fake.aliases["champion"] = "4"
    clock[0] = FOUND_SECONDS - 1
    assert await registry.resolve("models:/tweets@champion") == Found("models:/tweets/3")
    assert fake.asked == 1
    clock[0] = FOUND_SECONDS
    assert await registry.resolve("models:/tweets@champion") == Found("models:/tweets/4")
    await registry.resolve("models:/tweets@new")
    fake.aliases["new"] = "5"
    clock[0] += WAITING_SECONDS
    assert await registry.resolve("models:/tweets@new") == Found("models:/tweets/5")


async def test_a_registry_that_is_away(mlflow):
    fake, registry, _ = mlflow
    fake.broken = True
    answer = await registry.resolve("models:/tweets@champion")
    assert isinstance(answer, Unreachable)
    async with aiohttp.ClientSession() as session:
        nobody = await MlflowRegistry(session, "http://127.0.0.1:1").resolve("models:/tweets@champion")
        assert isinstance(nobody, Unreachable)
        assert isinstance(await MlflowRegistry(session, "").resolve("models:/tweets/1"), Unreachable)


def test_a_pod_that_was_started_again_still_tells_how_it_ended():
    ended = {"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": "last words"}}
    view = views.pod(
        {
            "metadata": {"name": "p", "ownerReferences": [{"uid": "j", "controller": True}]},
            "spec": {"nodeName": "n"},
            "status": {
                "phase": "Running",
                "conditions": [{"type": "PodScheduled", "status": "True"}],
                "containerStatuses": [
                    {"restartCount": 2, "lastState": ended, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
                ],
            },
        }
    )
    assert (view.job, view.scheduled, view.restarts, view.waiting) == ("j", True, 2, "CrashLoopBackOff")
    assert (view.termination, view.terminated, view.exit_code) == ("last words", "OOMKilled", 137)


def test_an_unscheduled_pod_carries_the_schedulers_words():
    scheduled = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}
    view = views.pod({"metadata": {"name": "p"}, "spec": {}, "status": {"conditions": [scheduled]}})
    assert (view.unschedulable, view.scheduled) == ("0/1 nodes", False)


@pytest.mark.parametrize(
    ("conditions", "accepted", "message"),
    [
        ([("Accepted", "True", ""), ("ResolvedRefs", "True", "")], True, ""),
        ([("Accepted", "False", "no listener")], False, "no listener"),
        ([("Accepted", "True", ""), ("ResolvedRefs", "False", "no backend")], False, "no backend"),
        ([], False, ""),
    ],
)
def test_routes(conditions, accepted, message):
    parents = [{"conditions": [{"type": t, "status": s, "message": m} for t, s, m in conditions]}]
    view = views.route({"status": {"parents": parents}})
    assert (view.accepted, view.message) == (accepted, message)
    assert not views.route({}).accepted


def test_gateways():
    spec = {"listeners": [{"protocol": "HTTPS", "port": 443}, {"protocol": "HTTP", "port": 8000}]}
    view = views.gateway({"spec": spec, "status": {"addresses": [{"value": "10.0.0.9"}]}})
    assert (view.scheme, view.address, view.port) == ("http", "10.0.0.9", 8000)
    assert views.gateway({"spec": {"listeners": []}}).address == ""


def test_a_pod_that_is_taken_off_its_node_says_by_whom():
    def seen(**condition: str) -> str:
        conditions = [{"type": "DisruptionTarget", **condition}]
        return views.pod({"metadata": {"name": "p"}, "status": {"conditions": conditions}}).disrupted

    assert (
        seen(status="True", reason="EvictionByEvictionAPI", message="Eviction API: evicting")
        == "Eviction API: evicting"
    )
    assert seen(status="True", reason="PreemptionByScheduler") == "PreemptionByScheduler"
    assert not seen(status="False", reason="x")


def failed_create(message: str, **fields: Any) -> dict[str, Any]:
    return {"reason": "FailedCreate", "message": f"Error creating: {message}", **fields}


def test_the_newest_refusal_of_pods_counts_whatever_the_kind_of_its_event():
    old = failed_create("old", lastTimestamp="2026-01-01T00:00:00Z")
    series = failed_create("new", eventTime="2025-01-01T00:00:00Z", series={"lastObservedTime": "2026-01-01T00:00:09Z"})
    other = {"reason": "SuccessfulCreate", "message": "Created pod", "lastTimestamp": "2027-01-01T00:00:00Z"}
    found = views.refusal([old, series, other])
    assert found is not None
    assert (found.message, found.at) == ("new", datetime(2026, 1, 1, 0, 0, 9, tzinfo=UTC))
    assert views.refusal([other]) is None


def test_what_nodes_offer():
    def node(allocatable: dict[str, str], **spec: Any) -> dict[str, Any]:
        return {"spec": spec, "status": {"allocatable": allocatable}}

    nodes = [
        node({"cpu": "8", "nvidia.com/gpu": "4"}),
        node({"amd.com/gpu": "0"}),
        node({"google.com/tpu": "4"}, unschedulable=True),
        node({}),
    ]
    assert views.extended_resources(nodes) == {"nvidia.com/gpu"}


def test_files_of_a_config_map_have_a_fingerprint():
    one = views.fingerprint({"data": {"a.py": "1", "b.py": "2"}, "metadata": {"resourceVersion": "1"}})
    assert one == views.fingerprint({"data": {"b.py": "2", "a.py": "1"}})
    assert one != views.fingerprint({"data": {"a.py": "1", "b.py": "3"}})


def test_accelerators_of_the_environment():
    def told(text: str) -> tuple[Offer, ...]:
        return Settings.from_environment({"MIZZEN_ACCELERATORS": text}).accelerators

    assert told("") == told("[]") == ()
    assert told('[{"resource": "amd.com/gpu"}]') == (Offer("amd.com/gpu"),)
    with pytest.raises(ConfigurationError, match=r"names 'example.com/fpga', which is none of amd.com/gpu, "):
        told('[{"resource": "example.com/fpga"}]')
    for broken in ("{", '["nvidia.com/gpu"]', '[{"nodeSelector": {}}]'):
        with pytest.raises(ConfigurationError, match="cannot be read"):
            told(broken)
