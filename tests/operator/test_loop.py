"""The loop: the examples from pending to done, nothing written twice, errors that are survived."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

import mizzen_operator.loop
from mizzen_operator.errors import ClusterError
from mizzen_operator.loop import Loop, backoff
from mizzen_operator.plan import Key, Ref
from mizzen_operator.reconcile import Done, Gone
from tests.operator.simulation import Simulation

EXAMPLES = Path(__file__).parents[2] / "examples" / "tweets"
ENDS = (
    ("Dataset", "tweets", "Ready"),
    ("SearchJob", "tweets-search", "Succeeded"),
    ("TrainingJob", "tweets-baseline", "Succeeded"),
    ("TrainingJob", "tweets", "Succeeded"),
    ("ModelService", "tweets", "Ready"),
)
KEY = Key("Dataset", "default", "tweets")


@pytest.fixture
async def simulation() -> AsyncIterator[Simulation]:
    found = Simulation()
    yield found
    await found.loop.stop()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mizzen_operator.loop, "FIRST_BACKOFF", 0.01)


def done(simulation: Simulation) -> bool:
    return all(simulation.condition(*end)["status"] == "True" for end in ENDS)


async def test_the_examples_come_to_their_end(simulation: Simulation) -> None:
    simulation.apply(EXAMPLES)
    await simulation.until(lambda: done(simulation))
    training = simulation.cluster.one("TrainingJob", "tweets")["status"]
    assert training["modelVersion"]["uri"].startswith("models:/tweets/")
    status = simulation.cluster.one("ModelService", "tweets")["status"]
    assert status["url"] == "http://10.0.0.9:8000/default/tweets"
    assert {v["name"]: v["trafficPercent"] for v in status["variants"]} == {"predictor": 80, "candidate": 20}
    assert not [job for job in simulation.cluster.all("Job") if job["metadata"]["name"].endswith("workers")]
    assert {event.reason for _, event in simulation.cluster.events} >= {"Materialized", "Succeeded", "Available"}


async def test_once_all_is_done_another_round_writes_nothing(simulation: Simulation) -> None:
    simulation.apply(EXAMPLES)
    await simulation.until(lambda: done(simulation))
    keys = simulation.loop.keys
    await simulation.loop.stop()
    for key in keys:
        await simulation.reconciler.reconcile(key)  # what was still under way
    before, events = simulation.cluster.changes, len(simulation.cluster.events)
    for key in keys * 2:
        await simulation.reconciler.reconcile(key)
    assert (simulation.cluster.changes, len(simulation.cluster.events)) == (before, events)


async def test_a_change_of_the_dataset_wakes_the_jobs_that_wait(simulation: Simulation) -> None:
    simulation.play = lambda manifest: None  # no controllers: nothing but the operator moves
    path = EXAMPLES / "20-searchjob.yaml"
    simulation.cluster.create(yaml.safe_load(path.read_text()))
    waits = ("SearchJob", "tweets-search", "Succeeded")
    await simulation.until(lambda: simulation.condition(*waits)["reason"] == "DatasetNotFound")
    simulation.cluster.create(yaml.safe_load((EXAMPLES / "10-dataset.yaml").read_text()))
    await simulation.until(lambda: simulation.condition(*waits)["reason"] == "DatasetNotReady")


async def test_deletion_takes_the_children_and_ends_the_task(simulation: Simulation) -> None:
    simulation.apply(EXAMPLES)
    await simulation.until(lambda: done(simulation))
    for kind, name, _ in ENDS:
        simulation.cluster.remove(simulation.cluster.one(kind, name))
    async with asyncio.timeout(10):
        await simulation.loop.emptied()
    assert {m["kind"] for kind in ("Job", "Deployment", "Service", "ConfigMap", "Secret", "HTTPRoute", "Pod")
            for m in simulation.cluster.all(kind)} == set()  # fmt: skip


async def test_cluster_errors_are_survived(simulation: Simulation) -> None:
    simulation.cluster.fail_next = [ClusterError(0, "away"), ClusterError(500, "broken"), ClusterError(409, "conflict")]
    simulation.apply(EXAMPLES)
    await simulation.until(lambda: done(simulation))


async def test_what_the_cluster_refuses_is_in_the_condition(simulation: Simulation) -> None:
    simulation.play = lambda manifest: None
    refusal = ClusterError(403, "exceeded quota: pods")

    async def apply(manifest: object) -> None:
        raise refusal

    simulation.cluster.apply = apply  # type: ignore[method-assign, assignment]
    simulation.cluster.create(yaml.safe_load((EXAMPLES / "10-dataset.yaml").read_text()))
    await simulation.until(lambda: "exceeded quota" in simulation.condition("Dataset", "tweets", "Ready")["message"])


async def test_a_job_on_accelerators_with_code_of_ones_own_and_a_quota(simulation: Simulation) -> None:
    """Everything that is read besides children: nodes, the user's ConfigMap, events of a Job."""
    cluster = simulation.cluster
    node = {"spec": {}, "status": {"allocatable": {"cpu": "8", "amd.com/gpu": "2"}}}
    cluster.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "namespace": ""}, **node})
    cluster.create(yaml.safe_load((EXAMPLES / "10-dataset.yaml").read_text()))
    await simulation.until(lambda: simulation.condition("Dataset", "tweets", "Ready")["status"] == "True")
    simulation.play = lambda manifest: None
    spec = {
        "datasetRef": {"name": "tweets"},
        "model": {"entrypoint": "net:build"},
        "code": {"configMapRef": {"name": "net"}},
        "register": {"name": "m"},
    }
    job = {"apiVersion": "mizzen.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": "own"}, "spec": spec}
    cluster.create(job)
    state = ("TrainingJob", "own", "Succeeded")
    await simulation.until(lambda: simulation.condition(*state)["reason"] == "CodeNotFound")
    cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "net"}, "data": {"net.py": "x"}})
    simulation.loop.enqueue(Key("TrainingJob", "default", "own"))  # nobody watches it: the operator looks again
    await simulation.until(lambda: simulation.condition(*state)["reason"] == "Pending")
    workers = cluster.one("Job", "own-train-workers")
    limits = workers["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["amd.com/gpu"] == "1"
    event = {"reason": "FailedCreate", "message": "Error creating: exceeded quota: team"}
    about = {"kind": "Job", "uid": workers["metadata"]["uid"]}
    cluster.create({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "involvedObject": about, **event})
    simulation.loop.enqueue(Key("TrainingJob", "default", "own"))
    await simulation.until(lambda: simulation.condition(*state)["reason"] == "WorkersPending")
    assert "exceeded quota: team" in simulation.condition(*state)["message"]


async def test_a_missing_gateway_api_does_not_stop_a_service(simulation: Simulation) -> None:
    simulation.cluster.api_versions.remove("gateway.networking.k8s.io/v1")
    simulation.apply(EXAMPLES)
    ready = ("ModelService", "tweets", "Ready")
    await simulation.until(lambda: simulation.condition(*ready)["reason"] == "GatewayNotReady")
    assert len(list(simulation.cluster.all("Deployment"))) == 2


async def test_a_time_to_live_removes_the_resource(simulation: Simulation) -> None:
    simulation.apply(EXAMPLES)
    await simulation.until(lambda: done(simulation))
    job = simulation.cluster.one("TrainingJob", "tweets-baseline")
    policy = {**job["spec"].get("runPolicy", {}), "ttlSecondsAfterFinished": 0}
    simulation.cluster.create({**job, "spec": {**job["spec"], "runPolicy": policy}})
    names = lambda: {job["metadata"]["name"] for job in simulation.cluster.all("TrainingJob")}  # noqa: E731
    await simulation.until(lambda: names() == {"tweets"})


async def test_rounds_of_one_key_never_overlap_and_changes_in_between_are_not_lost() -> None:
    running, rounds, began, gate = 0, 0, asyncio.Event(), asyncio.Event()

    async def reconcile(key: Key) -> Done:
        nonlocal running, rounds
        running += 1
        assert running == 1
        rounds += 1
        began.set()
        await gate.wait()
        running -= 1
        return Done(None)

    loop = Loop(reconcile)
    for _ in range(5):
        loop.enqueue(KEY)
    await began.wait()
    loop.enqueue(KEY)
    loop.enqueue(KEY)
    gate.set()
    for _ in range(20):
        await asyncio.sleep(0)
    assert rounds == 2
    await loop.stop()


async def test_look_again_comes_without_a_change() -> None:
    rounds = asyncio.Semaphore(0)

    async def reconcile(key: Key) -> Done | Gone:
        rounds.release()
        return Done(0.001)

    loop = Loop(reconcile)
    loop.enqueue(KEY)
    async with asyncio.timeout(5):
        for _ in range(3):
            await rounds.acquire()
    await loop.stop()


async def test_an_error_of_the_operator_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    tried, failures = asyncio.Event(), []

    async def reconcile(key: Key) -> Done | Gone:
        if not failures:
            raise RuntimeError("a defect")
        tried.set()
        return Gone()

    loop = Loop(reconcile, failed=failures.append)
    loop.enqueue(KEY)
    async with asyncio.timeout(5):
        await tried.wait()
    assert failures == [KEY]
    assert "a defect" in caplog.text
    await loop.stop()


def test_backoff_doubles_up_to_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mizzen_operator.loop, "FIRST_BACKOFF", 1.0)
    assert [backoff(n) for n in (1, 2, 3, 7, 50)] == [1, 2, 4, 60, 60]


def test_refs_are_values() -> None:
    assert Ref("v1", "Pod", "a", "b") == Ref("v1", "Pod", "a", "b")
