"""Rounds that fail before a plan is made: the resource itself says so, once, and recovers."""

from __future__ import annotations

from typing import Any

import pytest

import mizzen_operator.reconcile
from mizzen_api.conditions import Reason
from mizzen_operator import trouble
from mizzen_operator.errors import ClusterError
from mizzen_operator.observe import Observer
from mizzen_operator.plan import Key, Manifest
from mizzen_operator.reconcile import Done, Reconciler
from mizzen_operator.testing import InMemoryCluster, InMemoryRegistry, InMemoryWorkloads
from tests.operator.builders import NOW, SETTINGS, condition, dataset, search, service, training

KEY = Key("TrainingJob", "default", "train")


@pytest.fixture
def cluster() -> InMemoryCluster:
    return InMemoryCluster()


@pytest.fixture
def reconciler(cluster: InMemoryCluster) -> Reconciler:
    observer = Observer(cluster, InMemoryWorkloads(), InMemoryRegistry(), SETTINGS)
    return Reconciler(cluster, observer, SETTINGS, clock=lambda: NOW)


def stored(cluster: InMemoryCluster, resource: Any, **spec: Any) -> Manifest:
    manifest = resource.to_wire()
    manifest["spec"] |= spec
    del manifest["status"]
    return cluster.create(manifest)


def succeeded(cluster: InMemoryCluster, name: str = "train", kind: str = "TrainingJob") -> dict[str, Any]:
    (found,) = cluster.one(kind, name)["status"]["conditions"]
    return dict(found)


async def test_a_field_that_the_model_does_not_take_is_named(cluster, reconciler):
    stored(cluster, training(), trainer={"seed": 10**30, "epochs": 0})
    assert await reconciler.reconcile(KEY) == Done(None)
    found = succeeded(cluster)
    assert (found["status"], found["reason"]) == ("Unknown", "InvalidParameters")
    assert found["message"].startswith("TrainingJob default/train cannot be understood: spec.trainer.epochs: ")
    assert "spec.trainer.seed: " in found["message"]
    ((about, event),) = cluster.events
    assert (about.name, event.type, event.reason) == ("train", "Warning", "InvalidParameters")


async def test_a_resource_that_another_one_names_is_told_of_by_both(cluster, reconciler):
    stored(cluster, dataset(), split={"seed": "x"})
    stored(cluster, training())
    assert await reconciler.reconcile(KEY) == Done(None)
    assert "Dataset default/tweets cannot be understood: spec.split.seed" in succeeded(cluster)["message"]
    await reconciler.reconcile(Key("Dataset", "default", "tweets"))
    assert succeeded(cluster, "tweets", "Dataset")["reason"] == "InvalidParameters"


async def test_an_error_of_the_operator_is_told_once_and_forgotten_when_it_is_over(cluster, reconciler, monkeypatch):
    def broken(*_: object) -> None:
        raise OverflowError("int too large to convert to float")

    stored(cluster, training())
    whole = mizzen_operator.reconcile.plan_for
    monkeypatch.setattr(mizzen_operator.reconcile, "plan_for", broken)
    with pytest.raises(OverflowError):
        await reconciler.reconcile(KEY)
    found = succeeded(cluster)
    assert (found["status"], found["reason"]) == ("Unknown", "InternalError")
    assert "OverflowError: int too large to convert to float" in found["message"]
    writes = cluster.changes
    for _ in range(3):
        with pytest.raises(OverflowError):
            await reconciler.reconcile(KEY)
    assert (cluster.changes, len(cluster.events)) == (writes, 1)
    monkeypatch.setattr(mizzen_operator.reconcile, "plan_for", whole)
    await reconciler.reconcile(KEY)
    assert succeeded(cluster)["reason"] == "DatasetNotFound"


async def test_a_cluster_that_does_not_take_the_status_hides_nothing(cluster, reconciler, monkeypatch):
    def broken(*_: object) -> None:
        cluster.fail_next = [ClusterError(503, "busy")]
        raise OverflowError

    stored(cluster, training())
    monkeypatch.setattr(mizzen_operator.reconcile, "plan_for", broken)
    with pytest.raises(OverflowError):
        await reconciler.reconcile(KEY)
    assert "status" not in cluster.one("TrainingJob", "train")
    assert cluster.events == []


TOLD = trouble.Told(1, Reason.INTERNAL_ERROR, "m")


@pytest.mark.parametrize(
    ("resource", "present", "overwritten"),
    [
        (training(), None, True),
        (training(), condition("Succeeded", "Unknown", "Running"), True),
        (training(), condition("Succeeded", "True", "Succeeded"), False),
        (search(), condition("Succeeded", "False", "TrialsFailed"), False),
        (search(), condition("Succeeded", "True", "Succeeded", generation=0), False),
        (dataset(), condition("Ready", "True", "Materialized"), False),
        (dataset(), condition("Ready", "True", "Materialized", generation=0), True),
        (dataset(), condition("Ready", "False", "SourceEmpty"), False),
        (dataset(), condition("Ready", "False", "Materializing"), True),
        (service(), condition("Ready", "True", "Available"), False),
        (service(), condition("Ready", "False", "Deploying"), True),
    ],
)
def test_an_outcome_that_holds_is_not_overwritten(resource, present, overwritten):
    resource.status.conditions = [present] if present else []
    written = trouble.status(resource.to_wire(), TOLD, NOW)
    assert (written is not None) == overwritten
    if written:
        (found,) = written["conditions"]
        assert found["reason"] == "InternalError"
        assert "observedGeneration" not in found


def test_other_facts_of_the_status_stay():
    mds = dataset()
    mds.status.version, mds.status.conditions = 4, [condition("Refreshed", "True", "Unchanged")]
    written = trouble.status(mds.to_wire(), TOLD, NOW)
    assert written is not None
    assert written["version"] == 4
    assert [c["type"] for c in written["conditions"]] == ["Ready", "Refreshed"]
