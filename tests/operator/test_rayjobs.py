"""SearchJob and TrainingJob: waiting for inputs, running, edits, suspension, failures and a sticky end."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from mizzen_api.conditions import ConditionType, Reason
from mizzen_api.contract import ROLE_HEAD, ROLE_WORKERS
from mizzen_api.searchjob import Trial, TrialCounts
from mizzen_api.trainingjob import ModelVersion, TrainerStatus
from mizzen_api.workload import Progress, SearchReport, TrainingReport
from mizzen_operator.observed import Observed
from tests.operator.builders import (
    FINGERPRINT,
    after,
    child,
    condition,
    dataset,
    decide,
    edited,
    ending,
    failed,
    finished_search,
    kinds,
    later,
    pod,
    ready_dataset,
    said,
    search,
    started,
    training,
)

SUCCEEDED = ConditionType.SUCCEEDED
BOTH = pytest.mark.parametrize("job", [search(), training()], ids=["SearchJob", "TrainingJob"])


def trained(message: str = "Trained") -> str:
    report = TrainingReport(
        trainer_status=TrainerStatus(progress_percentage=100, step=9, metrics={"test_accuracy": 0.7, "loss": 1.0}),
        model_version=ModelVersion(name="tweets", version=4, uri="models:/tweets/4"),
    )
    return Progress(
        state="Succeeded", reason=Reason.SUCCEEDED, message=message, training=report
    ).to_termination_message()


# Waiting


def not_ready():
    found = dataset()
    found.status.conditions = [condition("Ready", "False", "ColumnMissing", "no column 'y'")]
    return found


def edited_after_it_was_ready():
    return edited(ready_dataset(), target="z")


@BOTH
@pytest.mark.parametrize(
    ("found", "reason", "words"),
    [
        (None, "DatasetNotFound", "'tweets' does not exist"),
        (dataset(), "DatasetNotReady", "'tweets' is not ready"),
        (not_ready(), "DatasetNotReady", "no column 'y'"),
        (edited_after_it_was_ready(), "DatasetNotReady", "'tweets'"),
    ],
    ids=["missing", "new", "failed", "edited"],
)
def test_a_job_waits_for_its_dataset_and_names_it(job, found, reason, words):
    plan = decide(job, Observed(dataset=found))
    status, given, message = said(plan, SUCCEEDED)
    assert (status, given) == ("Unknown", reason)
    assert words in message
    assert not plan.apply


@pytest.mark.parametrize(
    ("found", "reason"), [(None, "SearchJobNotFound"), (search(), "SearchJobNotFinished")], ids=["missing", "running"]
)
def test_training_waits_for_the_search(found, reason):
    job = training(model={"searchJobRef": {"name": "nas"}})
    plan = decide(job, Observed(dataset=ready_dataset(), search_job=found))
    assert said(plan, SUCCEEDED)[:2] == ("Unknown", reason)
    assert "'nas'" in said(plan, SUCCEEDED)[2]


def test_training_takes_the_winner_of_the_search():
    job = training(model={"searchJobRef": {"name": "nas"}})
    plan = decide(job, Observed(dataset=ready_dataset(), search_job=finished_search()))
    config = json.loads(child(plan, "ConfigMap", "train-train")["data"]["config.json"])
    assert (config["model"]["name"], config["model"]["config"]) == ("text-transformer", {"lr": 0.1})
    assert config["dataset"]["fingerprint"] == FINGERPRINT
    assert config["ray"]["address"] == "train-train-head.default.svc:6379"


# Running


@BOTH
def test_a_start_makes_everything_once(job):
    plan = decide(job, Observed(dataset=ready_dataset(), fresh_token="t"))
    assert kinds(plan) == ["PersistentVolumeClaim", "Secret", "ConfigMap", "Service", "Job", "Job"]
    assert said(plan, SUCCEEDED)[:2] == ("Unknown", "Pending")
    assert plan.status.dataset_fingerprint == FINGERPRINT
    assert plan.status.start_time == "2026-01-02T03:04:05Z"
    again = decide(after(job, plan), started(job), later(5))
    assert kinds(again) == ["ConfigMap", "Service"], "Jobs are immutable and the token must stay"
    assert said(again, SUCCEEDED)[1] == "Running"
    assert again.status.start_time == "2026-01-02T03:04:05Z"


def test_the_dataset_version_is_fixed_at_the_start():
    job = training()
    observed = replace(started(job), dataset=ready_dataset(fingerprint="sha256:new", version=2))
    plan = decide(job, observed)
    assert not plan.delete
    assert plan.status.dataset_fingerprint == FINGERPRINT
    assert decide(job, replace(observed, dataset=None)).status.dataset_fingerprint == FINGERPRINT


def test_a_namesakes_configuration_pins_nothing():
    old = training().model_copy(deep=True)
    old.metadata.uid = "another"
    observed = replace(started(old), jobs=(), pods=(), dataset=None)
    assert said(decide(training(), observed), SUCCEEDED)[1] == "DatasetNotFound"


def test_progress_becomes_status():
    trainer = TrainerStatus(progress_percentage=40, step=8, workers=2, metrics={"loss": float("nan"), "accuracy": 0.5})
    progress = Progress(message="Epoch 2 of 5", training=TrainingReport(trainer_status=trainer))
    plan = decide(training(), replace(started(training()), progress=progress))
    assert said(plan, SUCCEEDED) == ("Unknown", "Running", "Epoch 2 of 5")
    assert plan.status.trainer_status.metrics == {"accuracy": 0.5}, "JSON has no NaN"
    trials = SearchReport(
        trials=TrialCounts(succeeded=1, running=2),
        current_optimal_trial=Trial(name="t", parameters={"lr": 0.1}, metrics={"accuracy": 0.6}),
        model="text-transformer",
        progress_percentage=25,
    )
    plan = decide(search(), replace(started(search()), progress=Progress(search=trials)))
    assert (plan.status.trials.running, plan.status.model, plan.status.progress_percentage) == (
        2,
        "text-transformer",
        25,
    )


def test_workers_without_a_place():
    job = training(scaling={"minWorkers": 2, "maxWorkers": 3})
    observed = started(job)
    head, crew = observed.pods[0], observed.workers
    placed = pod(ROLE_WORKERS, crew, name="w0")
    pending = pod(ROLE_WORKERS, crew, name="w1", phase="Pending", scheduled=False, unschedulable="0/1 nodes: cpu")
    plan = decide(job, replace(observed, pods=(head, placed, pending)))
    assert said(plan, SUCCEEDED)[1] == "WorkersPending"
    assert "1 of at least 2" in said(plan, SUCCEEDED)[2]
    assert "0/1 nodes: cpu" in said(plan, SUCCEEDED)[2]
    enough = replace(observed, pods=(head, placed, pod(ROLE_WORKERS, crew, name="w2"), pending))
    assert said(decide(job, enough), SUCCEEDED)[1] == "Running"


def test_a_head_that_cannot_start_says_why():
    job = training()
    observed = started(job)
    stuck = pod(ROLE_HEAD, observed.head, phase="Pending", waiting="ErrImagePull: no such image")
    plan = decide(job, replace(observed, pods=(stuck,)))
    assert said(plan, SUCCEEDED)[1] == "Pending"
    assert "ErrImagePull" in said(plan, SUCCEEDED)[2]


def test_a_lost_head_is_told_while_its_successor_starts():
    job = training()
    observed = started(job)
    dead = pod(ROLE_HEAD, observed.head, name="a", phase="Failed", exit_code=137, terminated="OOMKilled")
    alive = pod(ROLE_HEAD, observed.head, name="b")
    message = said(decide(job, replace(observed, pods=(dead, alive))), SUCCEEDED)[2]
    assert "Attempt 2 of 4" in message
    assert "out of memory" in message


# Edits


@pytest.mark.parametrize(
    "edit",
    [
        {"trainer": {"epochs": 9}},
        {"checkpoint": {"everySteps": 7}},
        {"scaling": {"resourcesPerWorker": {"cpu": "2", "memory": "2Gi"}}},
        {"image": "registry/mine:2"},
    ],
)
def test_an_edit_that_pods_see_starts_them_anew_once_the_old_are_gone(edit):
    job = training()
    observed = started(job)
    job = edited(after(job, decide(job, observed)), **edit)
    plan = decide(job, observed)
    assert {ref.name for ref in plan.delete} == {"train-train-head", "train-train-workers"}
    assert not plan.apply
    lingering = replace(observed, jobs=())
    plan = decide(job, lingering)
    assert not plan.apply
    assert "previous run" in said(plan, SUCCEEDED)[2]
    plan = decide(job, replace(lingering, pods=()))
    assert kinds(plan).count("Job") == 2


def test_an_edit_of_the_run_policy_only_patches_the_job():
    job = training()
    observed = started(job)
    job = edited(job, runPolicy={"backoffLimit": 9, "activeDeadlineSeconds": 60})
    plan = decide(job, observed)
    assert not plan.delete
    assert [p.body for p in plan.patch] == [{"spec": {"backoffLimit": 9, "activeDeadlineSeconds": 60}}]


def test_workers_that_ended_early_come_back():
    observed = started(training())
    jobs = tuple(replace(j, complete=True) if j.role == ROLE_WORKERS else j for j in observed.jobs)
    plan = decide(training(), replace(observed, jobs=jobs))
    assert [ref.name for ref in plan.delete] == ["train-train-workers"]
    head_only = replace(observed, jobs=jobs[:1], pods=observed.pods[:1])
    assert [m["metadata"]["name"] for m in decide(training(), head_only).apply if m["kind"] == "Job"] == [
        "train-train-workers"
    ]


@BOTH
def test_suspend_takes_the_pods_and_resume_brings_them_back(job):
    observed = started(job)
    job = edited(after(job, decide(job, observed)), runPolicy={"suspend": True})
    plan = decide(job, observed)
    assert len(plan.delete) == 2
    assert said(plan, SUCCEEDED)[:2] == ("Unknown", "Suspended")
    resumed = edited(after(job, plan), runPolicy={"suspend": False})
    plan = decide(resumed, replace(observed, jobs=(), pods=()))
    assert kinds(plan).count("Job") == 2
    assert plan.status.dataset_fingerprint == FINGERPRINT


# The end


def test_success_is_read_from_the_termination_message_and_the_workers_go():
    job = training()
    plan = decide(job, ending(started(job), ROLE_HEAD, trained(), complete=True))
    assert said(plan, SUCCEEDED) == ("True", "Succeeded", "Trained")
    assert plan.status.model_version.uri == "models:/tweets/4"
    assert plan.status.completion_time == "2026-01-02T03:04:05Z"
    assert [ref.name for ref in plan.delete] == ["train-train-workers"]


FAILURES = [
    (failed(Reason.GATE_FAILED, "accuracy 0.5 is below 0.6"), "PodFailurePolicy", "GateFailed", "below 0.6"),
    (failed(Reason.TRAINING_DIVERGED, "loss is NaN"), "BackoffLimitExceeded", "TrainingDiverged", "NaN"),
    (failed(Reason.INTERNAL_ERROR, "disk full"), "BackoffLimitExceeded", "BackoffLimitExceeded", "disk full"),
    ("killed", "BackoffLimitExceeded", "BackoffLimitExceeded", "runPolicy.backoffLimit"),
    ("", "DeadlineExceeded", "DeadlineExceeded", "activeDeadlineSeconds"),
    ("odd", "PodFailurePolicy", "InternalError", "odd"),
]


@BOTH
@pytest.mark.parametrize(("message", "job_reason", "reason", "words"), FAILURES)
def test_failures_say_what_happened(job, message, job_reason, reason, words):
    plan = decide(job, ending(started(job), ROLE_HEAD, message, failed=True, reason=job_reason))
    status, found, text = said(plan, SUCCEEDED)
    assert (status, found) == ("False", reason)
    assert words in text
    assert [event.type for event in plan.events] == ["Warning"]


def test_the_newest_pod_speaks():
    job = training()
    observed = ending(started(job), ROLE_HEAD, "old", failed=True, reason="BackoffLimitExceeded")
    newer = replace(observed.pods[0], name="z", created=later(9), termination="newest")
    older = replace(observed.pods[0], created=later(1))
    plan = decide(job, replace(observed, pods=(newer, older)))
    assert said(plan, SUCCEEDED)[2].endswith("newest")


@BOTH
def test_the_end_stays_whatever_comes(job):
    observed = ending(started(job), ROLE_HEAD, trained(), complete=True)
    done = after(job, decide(job, observed))
    gone = replace(observed, jobs=(), pods=(), config=None, dataset=None)
    for seen in (observed, gone, replace(gone, dataset=ready_dataset("tweets", "sha256:new"))):
        plan = decide(done, seen, later(99))
        assert plan.status is None
        assert not plan.apply


def test_an_edit_after_the_end_is_answered_once():
    job = training()
    observed = ending(started(job), ROLE_HEAD, trained(), complete=True)
    done = edited(after(job, decide(job, observed)), trainer={"epochs": 9})
    plan = decide(done, observed)
    assert [event.reason for event in plan.events] == ["SpecChanged"]
    assert "no effect" in plan.events[0].message
    assert said(plan, SUCCEEDED)[:2] == ("True", "Succeeded")
    assert not decide(after(done, plan), observed).events


def test_a_time_to_live_ends_the_resource_also_when_set_afterwards():
    job = training()
    observed = ending(started(job), ROLE_HEAD, trained(), complete=True)
    done = edited(after(job, decide(job, observed)), runPolicy={"ttlSecondsAfterFinished": 60})
    plan = decide(done, observed, later(20))
    assert (plan.look_again, plan.events, plan.delete_resource) == (40, (), False)
    assert decide(done, observed, later(61)).delete_resource


@BOTH
@pytest.mark.parametrize("said_last", ["", '{"training": {"trainerStatus": {"metrics": {"loss": null}}}}', "Killed"])
def test_a_job_that_is_complete_without_a_readable_report_has_not_succeeded(job, said_last):
    plan = decide(job, ending(started(job), ROLE_HEAD, said_last, complete=True))
    status, reason, message = said(plan, SUCCEEDED)
    assert (status, reason) == ("False", "InternalError")
    assert f"pod {ROLE_HEAD}-pod ended well, but its report cannot be read" in message
    assert said_last in message
    gone = replace(ending(started(job), ROLE_HEAD, complete=True), pods=())
    assert "the pod and its report are gone" in said(decide(job, gone), SUCCEEDED)[2]


def test_of_a_complete_job_the_pod_that_succeeded_has_the_word():
    job = training()
    observed = ending(started(job), ROLE_HEAD, trained(), complete=True)
    later_pod = replace(next(p for p in observed.pods if p.role == ROLE_HEAD), name="z", phase="Failed", termination="")
    plan = decide(job, replace(observed, pods=(*observed.pods, later_pod)))
    assert said(plan, SUCCEEDED)[:2] == ("True", "Succeeded")
