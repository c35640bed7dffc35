"""Dataset: a Job for each generation, a version for each fingerprint, and the workload's word in the condition."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mizzen_api.conditions import ConditionType, Reason
from mizzen_api.contract import ROLE_MATERIALIZE
from mizzen_api.workload import DatasetReport, Progress
from mizzen_operator.observed import Observed
from tests.operator.builders import (
    NOW,
    SETTINGS,
    after,
    child,
    dataset,
    decide,
    edited,
    ending,
    failed,
    kinds,
    later,
    materializing,
    pod,
    said,
)

READY = ConditionType.READY


def report(fingerprint: str = "sha256:bb") -> str:
    uri = f"file:///artifacts/datasets/default/tweets/{fingerprint}"
    found = DatasetReport(progress_percentage=100, rows=9, fingerprint=fingerprint, uri=uri, classes=["a", "b"])
    return Progress(state="Succeeded", reason=Reason.SUCCEEDED, dataset=found).to_termination_message()


def test_a_new_dataset_gets_a_claim_a_configuration_and_a_job():
    plan = decide(dataset(), Observed())
    assert kinds(plan) == ["PersistentVolumeClaim", "ConfigMap", "Job"]
    assert said(plan, READY)[:2] == ("False", "Materializing")
    assert child(plan, "Job", "tweets-data-1")["spec"]["backoffLimit"] == 3


def test_no_claim_where_there_is_one_or_where_artifacts_live_elsewhere():
    assert "PersistentVolumeClaim" not in kinds(decide(dataset(), Observed(has_claim=True)))
    elsewhere = decide(dataset(), Observed(), settings=replace(SETTINGS, artifacts_uri="s3://bucket/x"))
    assert kinds(elsewhere) == ["ConfigMap", "Job"]
    mounts = child(elsewhere, "Job", "tweets-data-1")["spec"]["template"]["spec"]["volumes"]
    assert "artifacts" not in {volume["name"] for volume in mounts}


def test_success_makes_a_version():
    mds = dataset()
    plan = decide(mds, ending(materializing(mds), ROLE_MATERIALIZE, report(), complete=True))
    assert said(plan, READY) == ("True", "Materialized", "Version 1 has 9 rows")
    assert (plan.status.version, plan.status.fingerprint, plan.status.classes) == (1, "sha256:bb", ["a", "b"])
    assert plan.status.observed_generation == 1


@pytest.mark.parametrize(("fingerprint", "version"), [("sha256:bb", 1), ("sha256:cc", 2)])
def test_an_edit_makes_a_new_version_only_for_a_new_fingerprint(fingerprint, version):
    mds = dataset()
    first = materializing(mds)
    mds = after(mds, decide(mds, ending(first, ROLE_MATERIALIZE, report(), complete=True)))
    mds = edited(mds, target="z")
    plan = decide(mds, first)
    assert {ref.name for ref in plan.delete} == {"tweets-data-1"}
    assert {ref.kind for ref in plan.delete} == {"Job", "ConfigMap"}
    assert child(plan, "Job", "tweets-data-2")
    assert said(plan, READY)[:2] == ("False", "Materializing")
    mds = after(mds, plan)
    plan = decide(mds, ending(materializing(mds), ROLE_MATERIALIZE, report(fingerprint), complete=True))
    assert plan.status.version == version


@pytest.mark.parametrize(
    ("message", "fields", "reason", "words"),
    [
        (
            failed(Reason.COLUMN_MISSING, "no column 'y'"),
            {"reason": "PodFailurePolicy"},
            "ColumnMissing",
            "no column 'y'",
        ),
        (failed(Reason.SOURCE_EMPTY, "x.csv is empty"), {"reason": "BackoffLimitExceeded"}, "SourceEmpty", "empty"),
        (failed(Reason.INTERNAL_ERROR, "disk"), {"reason": "BackoffLimitExceeded"}, "BackoffLimitExceeded", "disk"),
        ("Traceback: boom", {"reason": "BackoffLimitExceeded"}, "BackoffLimitExceeded", "boom"),
        ("", {"reason": "BackoffLimitExceeded"}, "BackoffLimitExceeded", "exit code 1"),
    ],
)
def test_a_failure_says_what_the_pod_said_and_stays(message, fields, reason, words):
    mds = dataset()
    observed = ending(materializing(mds), ROLE_MATERIALIZE, message, failed=True, **fields)
    plan = decide(mds, observed)
    status, found, text = said(plan, READY)
    assert (status, found) == ("False", reason)
    assert words in text
    assert plan.status.version == 0
    assert decide(after(mds, plan), observed, later(60)).status is None


def test_progress_is_shown_while_it_runs():
    mds = dataset()
    progress = Progress(message="Reading x.csv", dataset=DatasetReport(progress_percentage=40))
    plan = decide(mds, replace(materializing(mds), progress=progress))
    assert plan.status.progress_percentage == 40
    assert said(plan, READY) == ("False", "Materializing", "Reading x.csv")
    assert plan.look_again


def test_a_pod_without_a_place_says_so():
    mds = dataset()
    observed = materializing(mds)
    stuck = pod(ROLE_MATERIALIZE, observed.jobs[0], phase="Pending", scheduled=False, unschedulable="0/1 nodes: cpu")
    plan = decide(mds, replace(observed, pods=(stuck,)))
    assert said(plan, READY)[1] == "Pending"
    assert "0/1 nodes: cpu" in said(plan, READY)[2]


def test_the_transition_time_moves_with_the_status_only():
    mds = dataset()
    first = decide(mds, Observed())
    second = decide(after(mds, first), materializing(mds), later(9))
    assert second.status.condition(READY).last_transition_time == NOW
    done = ending(materializing(mds), ROLE_MATERIALIZE, report(), complete=True)
    third = decide(after(mds, second), done, later(20))
    assert third.status.condition(READY).last_transition_time == later(20)
    assert [event.reason for event in third.events] == ["Materialized"]
