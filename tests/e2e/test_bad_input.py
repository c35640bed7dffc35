"""Manifests that break a rule, references to nothing, sources that cannot be read: a clear word, nothing half-done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e import manifests
from tests.e2e.platform_under_test import Platform, until

pytestmark = pytest.mark.cluster


def broken(kind: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {**kind, "spec": {**kind["spec"], **spec}}


SERVICE = manifests.service("refused", "models:/m@champion")
TRAINING = manifests.training("refused", "d", {"name": "text-bag"}, "m")
CANARY = {"name": "a", "trafficPercent": 60, "predictor": manifests.predictor("models:/m/1")}
REFUSALS = {
    "unknown field": (broken(TRAINING, epochs=3), 'unknown field "spec.epochs"'),
    "wrong type": (broken(TRAINING, trainer={"epochs": "three"}), "spec.trainer.epochs"),
    "min above max replicas": (
        broken(SERVICE, predictor=manifests.predictor("models:/m/1", minReplicas=3, maxReplicas=2)),
        "minReplicas must not be above maxReplicas",
    ),
    "canaries above 100": (
        broken(SERVICE, canary=[CANARY, {**CANARY, "name": "b"}]),
        "trafficPercent of all canaries must not exceed 100",
    ),
    "both model sources": (
        broken(TRAINING, model={"name": "text-bag", "searchJobRef": {"name": "s"}}),
        "set exactly one of searchJobRef, name, uri and entrypoint",
    ),
    "not a model URI": (broken(SERVICE, predictor=manifests.predictor("s3://m")), "spec.predictor.model.uri"),
    "split that does not add up": (
        manifests.dataset("refused", "x.csv", split={"train": 0.5, "validation": 0.1, "test": 0.1}),
        "must add up to 1",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_manifest_that_breaks_a_rule_is_refused_with_path_and_mend(platform: Platform, case: str) -> None:
    manifest, expected = REFUSALS[case]
    done = platform.apply(manifest, check=False)
    assert done.returncode != 0
    assert expected in done.stderr
    assert platform.kubectl("get", manifest["kind"], "refused", check=False).returncode != 0


def test_immutable_fields_say_so(platform: Platform) -> None:
    job = manifests.training("immutable", "nowhere", {"name": "text-bag"}, "immutable")
    platform.apply(job)
    done = platform.apply(broken(job, datasetRef={"name": "elsewhere"}), check=False)
    assert "datasetRef is immutable" in done.stderr
    platform.kubectl("delete", "trainingjob", "immutable")


SOURCES = {
    "missing": (None, "SourceUnreadable", "missing.csv"),
    "empty": ("", "SourceEmpty", "empty.csv"),
    "header": ("sentiment,text\n", "SourceEmpty", "header.csv"),
    "column": ("mood,text\ngood,fine\n", "ColumnMissing", "sentiment"),
    "ragged": ("sentiment,text\ngood,fine\nbad,a,b,c\n", "SourceMalformed", "3"),
}


@pytest.mark.parametrize("case", SOURCES)
def test_a_source_that_cannot_be_used_is_named(platform: Platform, raw: Path, case: str) -> None:
    content, reason, named = SOURCES[case]
    if content is not None:
        (raw / f"{case}.csv").write_text(content)
    platform.apply(manifests.dataset(f"bad-{case}", f"file:///artifacts/raw/{case}.csv"))

    def judged() -> dict[str, Any] | None:
        found = platform.condition(f"dataset/bad-{case}", "Ready")
        return found if found["reason"] == reason else None

    condition = until(judged, 60)
    assert condition["status"] == "False"
    assert named in condition["message"]
    assert platform.get(f"dataset/bad-{case}")["status"].get("uri") is None
    published = raw.parent / "datasets" / "default" / f"bad-{case}"
    assert not published.exists() or not list(published.iterdir())
    platform.kubectl("delete", "dataset", f"bad-{case}")


def test_what_is_not_there_yet_is_waited_for_and_children_go_with_their_owner(platform: Platform, raw: Path) -> None:
    platform.apply(manifests.training("early", "late", {"name": "text-bag", "config": {"embedding_dim": 16}}, "early"))
    platform.apply(manifests.service("early", "models:/early@champion"))

    def waits() -> dict[str, Any] | None:
        found = platform.condition("trainingjob/early", "Succeeded")
        return found if found["reason"] == "DatasetNotFound" else None

    assert "late" in until(waits, 60)["message"]
    until(lambda: "early" in platform.condition("modelservice/early", "Ready")["message"], 60)

    manifests.write_csv(raw / "late.csv", manifests.tweets(400))
    platform.apply(manifests.dataset("late", "file:///artifacts/raw/late.csv"))
    platform.wait("dataset/late", "Ready", timeout=90)
    until(lambda: platform.pods("mizzen.dev/name=early,mizzen.dev/kind=TrainingJob"), 60)

    for kind, name in (("trainingjob", "early"), ("modelservice", "early"), ("dataset", "late")):
        platform.kubectl("delete", kind, name)
    until(lambda: not platform.pods("mizzen.dev/name in (early,late)"), 150)  # a worker's grace is two minutes
    for kind in ("jobs", "deployments", "services", "configmaps", "secrets", "httproutes"):
        left = platform.get(kind, "-l", "mizzen.dev/name in (early,late)")["items"]
        assert left == [], kind
