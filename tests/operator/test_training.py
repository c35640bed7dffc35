"""What is a TrainingJob's alone: accelerators, user code, versions to go on from, elastic edits, queues, its news."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mizzen_api import contract
from mizzen_api.accelerators import TABLE
from mizzen_api.conditions import ConditionType
from mizzen_api.contract import ROLE_HEAD, ROLE_WORKERS
from mizzen_api.trainingjob import TrainerStatus
from mizzen_api.workload import Progress, TrainingReport, WorkloadConfig
from mizzen_operator.observed import Found, Missing, Observed, Refusal, Unreachable
from mizzen_operator.plan import Manifest, Plan
from mizzen_operator.planners.news import news
from mizzen_operator.settings import Offer
from tests.operator.builders import (
    NOW,
    SETTINGS,
    after,
    child,
    decide,
    edited,
    later,
    pod,
    ready_dataset,
    said,
    started,
    training,
)

SUCCEEDED = ConditionType.SUCCEEDED
CODE = {"configMapRef": {"name": "net"}}


def first(job, **seen: Any) -> Plan:
    return decide(job, Observed(dataset=ready_dataset(), fresh_token="t", has_claim=True, **seen))


def config_of(plan: Plan) -> WorkloadConfig:
    return WorkloadConfig.model_validate_json(child(plan, "ConfigMap", "train-train")["data"]["config.json"])


def template(plan: Plan, job: str = "train-train-workers") -> Manifest:
    spec: Manifest = child(plan, "Job", job)["spec"]["template"]["spec"]
    return spec


def env(spec: Manifest) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in spec["containers"][0]["env"] if "value" in entry}


def unscheduled(spec: Manifest) -> list[Manifest]:
    """Tolerations, without those of nodes that do not answer."""
    return [t for t in spec.get("tolerations", []) if not t["key"].startswith("node.kubernetes.io/")]


# Accelerators


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.vendor)
def test_a_worker_asks_for_what_the_cluster_offers(row):
    count = {} if row.vendor == "cpu" else {"accelerators": 4}
    job = training(scaling={"resourcesPerWorker": {"cpu": "2", "memory": "1Gi", **count}})
    plan = first(job, offers=frozenset({row.resource} - {""}))
    spec = template(plan)
    amounts = {"cpu": "2", "memory": "1Gi"} | ({row.resource: "4"} if row.resource else {})
    assert spec["containers"][0]["resources"] == {"requests": amounts, "limits": amounts}
    taints = [{"key": row.resource, "operator": "Exists", "effect": "NoSchedule"}] if row.resource else []
    assert unscheduled(spec) == taints
    assert row.environment.items() <= env(spec).items()
    assert unscheduled(template(plan, "train-train-head")) == [], "the head trains nothing"
    assert plan.status.accelerator == config_of(plan).accelerator == row.vendor


def test_one_accelerator_unless_more_are_asked_for():
    spec = template(first(training(accelerator="gpu")))
    assert spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_the_chart_says_where_the_nodes_are():
    lab = {"key": "team", "operator": "Exists"}
    settings = replace(SETTINGS, accelerators=(Offer("amd.com/gpu", {"pool": "mi300"}, (lab,)),))
    plan = decide(training(), Observed(dataset=ready_dataset(), offers=frozenset({"nvidia.com/gpu"})), NOW, settings)
    spec = template(plan)
    assert spec["nodeSelector"] == {"pool": "mi300"}
    assert unscheduled(spec)[1:] == [lab]
    assert plan.status.accelerator == "amd", "what the chart says counts more than what nodes show"


def test_a_job_keeps_its_accelerator_while_nodes_come_and_go():
    job = training()
    observed = started(job, offers=frozenset({"nvidia.com/gpu"}))
    again = decide(job, replace(observed, offers=frozenset()))
    assert not again.delete
    assert again.status.accelerator == "nvidia"
    named = edited(after(job, again), accelerator="gpu")
    assert config_of(decide(named, replace(observed, jobs=(), pods=(), offers=frozenset()))).accelerator == "nvidia"
    on_cpus = edited(after(job, again), accelerator="cpu")
    assert len(decide(on_cpus, observed).delete) == 2
    assert config_of(decide(on_cpus, replace(observed, jobs=(), pods=()))).accelerator == "cpu"


# User code


def test_an_image_and_code_of_ones_own_reach_head_and_workers():
    plan = first(training(image="registry/mine:2", code=CODE, model={"entrypoint": "net:build"}), code="aa")
    for name in ("train-train-head", "train-train-workers"):
        spec = template(plan, name)
        (container,) = spec["containers"]
        assert container["image"] == "registry/mine:2"
        assert env(spec)["PYTHONPATH"] == contract.CODE_DIR
        assert {"name": "code", "configMap": {"name": "net"}} in spec["volumes"]
        assert {"name": "code", "mountPath": contract.CODE_DIR, "readOnly": True} in container["volumeMounts"]
    config = config_of(plan)
    assert (config.model.entrypoint, config.code_fingerprint) == ("net:build", "aa")


def test_code_that_is_not_there_is_waited_for():
    plan = first(training(code=CODE))
    assert said(plan, SUCCEEDED)[:2] == ("Unknown", "CodeNotFound")
    assert "'net'" in said(plan, SUCCEEDED)[2]
    assert not plan.apply
    assert plan.look_again, "nobody tells of ConfigMaps that come"


def test_a_change_of_the_code_starts_the_pods_anew_and_its_loss_does_not():
    job = training(code=CODE)
    observed = started(job, code="aa")
    assert not decide(job, observed).delete
    assert len(decide(job, replace(observed, code="bb")).delete) == 2
    lost = decide(job, replace(observed, code=None))
    assert not lost.delete
    assert said(lost, SUCCEEDED)[1] == "CodeNotFound"


# Versions to go on from


def test_an_alias_is_what_it_was_when_the_job_began():
    uris = {"models:/big@champion": Found("models:/big/7"), "models:/small/3": Found("models:/small/3")}
    teacher = {"distillation": {"teacherUri": "models:/big@champion"}}
    job = training(model={"uri": "models:/small/3"}, trainer=teacher)
    config = config_of(first(job, models=uris))
    assert config.model.uri == "models:/small/3"
    assert config.training_spec.trainer.distillation.teacher_uri == "models:/big/7"
    observed = started(job, models=uris)
    moved = replace(observed, models=uris | {"models:/big@champion": Found("models:/big/8")})
    plan = decide(job, moved)
    assert not plan.delete
    assert config_of(plan).training_spec.trainer.distillation.teacher_uri == "models:/big/7"
    assert not decide(job, replace(observed, models={})).delete


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Missing("no such alias"), "ModelNotFound"),
        (Unreachable("MLflow is away"), "RegistryUnreachable"),
        (None, "RegistryUnreachable"),
    ],
)
def test_versions_that_cannot_be_found_are_waited_for(answer, reason):
    plan = first(training(model={"uri": "models:/m@a"}), models={"models:/m@a": answer} if answer else {})
    assert said(plan, SUCCEEDED)[1] == reason
    assert plan.look_again
    assert not plan.apply


# Elastic


@pytest.mark.parametrize("most", [1, 5])
def test_more_or_fewer_workers_while_the_head_runs_on(most):
    job = training(scaling={"minWorkers": 1, "maxWorkers": 3})
    observed = started(job)
    job = edited(after(job, decide(job, observed)), scaling={"minWorkers": 1, "maxWorkers": most})
    plan = decide(job, observed)
    assert not plan.delete
    assert [(p.ref.name, p.body) for p in plan.patch] == [("train-train-workers", {"spec": {"parallelism": most}})]
    assert config_of(plan).training_spec.scaling.max_workers == most, "the driver reads it again"


def test_the_default_number_of_workers_is_no_different_from_one_that_is_written():
    """Defaults are not in the hash: neither may be the empty rest of a block."""
    job = training()
    more = edited(job, scaling={"maxWorkers": 2})
    assert not decide(more, started(job)).delete


# Queues

QUEUED = {contract.LABEL_QUEUE: "team-a", contract.LABEL_QUEUE_PRIORITY: "low", "team": "a"}


def test_the_queue_is_told_of_both_jobs_and_of_the_least_that_will_do():
    plan = first(training(labels=QUEUED, scaling={"minWorkers": 2, "maxWorkers": 4}))
    head, workers = (child(plan, "Job", f"train-train-{role}")["metadata"] for role in ("head", "workers"))
    for meta in (head, workers):
        assert meta["labels"][contract.LABEL_QUEUE] == "team-a"
        assert meta["labels"][contract.LABEL_QUEUE_PRIORITY] == "low"
        assert "team" not in meta["labels"]
    assert workers["annotations"][contract.ANNOTATION_QUEUE_LEAST] == "2"
    assert contract.ANNOTATION_QUEUE_LEAST not in head["annotations"]


def test_what_the_queue_holds_back_is_said():
    job = training(labels=QUEUED)
    observed = started(job)
    held = replace(observed, jobs=tuple(replace(each, suspended=True) for each in observed.jobs), pods=())
    plan = decide(job, held)
    assert said(plan, SUCCEEDED)[:2] == ("Unknown", "Queued")
    assert "queue 'team-a' has not admitted Job train-train-head" in said(plan, SUCCEEDED)[2]
    assert not plan.delete


def test_in_a_queue_the_parallelism_is_the_queues():
    job = training(labels=QUEUED, scaling={"minWorkers": 1, "maxWorkers": 4})
    observed = started(job)
    admitted = tuple(replace(j, parallelism=2) if j.role == ROLE_WORKERS else j for j in observed.jobs)
    observed = replace(observed, jobs=admitted)
    plan = decide(job, observed)
    assert (plan.patch, plan.delete) == ((), ())
    more = edited(after(job, plan), scaling={"minWorkers": 1, "maxWorkers": 6})
    assert [ref.name for ref in decide(more, observed).delete] == ["train-train-workers"]


# Pods that do not come, or do not stay


def quota(seconds: float = 0) -> Refusal:
    return Refusal(
        'pods "x" is forbidden: exceeded quota: team, used: cpu=4, limited: cpu=4', NOW - timedelta(seconds=seconds)
    )


def refused(observed: Observed, role: str, refusal: Refusal) -> Observed:
    jobs = tuple(replace(job, refusal=refusal) if job.role == role else job for job in observed.jobs)
    return replace(observed, jobs=jobs, pods=tuple(p for p in observed.pods if p.role != role))


def test_more_workers_than_the_quota_allows():
    job = training(scaling={"minWorkers": 2, "maxWorkers": 3})
    observed = refused(started(job), ROLE_WORKERS, quota())
    status, reason, message = said(decide(job, observed), SUCCEEDED)
    assert (status, reason) == ("Unknown", "WorkersPending")
    assert "0 of at least 2 workers" in message
    assert "exceeded quota: team" in message
    enough = training()
    message = said(decide(enough, refused(started(enough), ROLE_HEAD, quota())), SUCCEEDED)[2]
    assert message.startswith("The head waits: ")
    assert "exceeded quota" in message


def test_a_refusal_of_long_ago_no_longer_holds():
    job = training(scaling={"minWorkers": 2, "maxWorkers": 3})
    plan = decide(job, refused(started(job), ROLE_WORKERS, quota(seconds=600)))
    assert "quota" not in said(plan, SUCCEEDED)[2]


def test_a_job_that_runs_with_fewer_than_it_might_says_why():
    job = training(scaling={"minWorkers": 1, "maxWorkers": 3})
    observed = started(job)
    jobs = tuple(replace(j, refusal=quota()) if j.role == ROLE_WORKERS else j for j in observed.jobs)
    progress = Progress(training=TrainingReport(trainer_status=TrainerStatus(progress_percentage=40)))
    status, reason, message = said(decide(job, replace(observed, jobs=jobs, progress=progress)), SUCCEEDED)
    assert (status, reason) == ("Unknown", "Running")
    assert message.startswith("40 % done; 1 of 3 workers have a place: ")
    assert "exceeded quota" in message


def test_below_the_least_nothing_runs_even_where_nobody_knows_why():
    job = training(scaling={"minWorkers": 2, "maxWorkers": 3})
    plan = decide(job, replace(started(job), progress=Progress(message="Epoch 2 of 5")))
    assert said(plan, SUCCEEDED)[1] == "WorkersPending"
    assert "1 of at least 2 workers have a place: nothing runs" in said(plan, SUCCEEDED)[2]


def crashed(observed: Observed, **fields: Any) -> Observed:
    given = {"exit_code": 137, "terminated": "OOMKilled", "restarts": 2, "ended_at": NOW, **fields}
    return replace(observed, pods=tuple(replace(p, **given) if p.role == ROLE_WORKERS else p for p in observed.pods))


def test_a_worker_that_ran_out_of_memory_names_the_field_to_raise():
    job = training()
    observed = crashed(started(job))
    plan = decide(job, observed)
    assert said(plan, SUCCEEDED)[1] == "WorkersFailing"
    assert "2 times" in said(plan, SUCCEEDED)[2]
    assert "OOMKilled): raise scaling.resourcesPerWorker.memory" in said(plan, SUCCEEDED)[2]
    assert said(decide(job, observed, later(120)), SUCCEEDED)[1] == "Running", "it has run for two minutes since"
    waiting = crashed(started(job), waiting="CrashLoopBackOff: back-off 40s", exit_code=1, terminated="Error")
    assert said(decide(job, waiting, later(120)), SUCCEEDED)[1] == "WorkersFailing"


@pytest.mark.parametrize("fields", [{"exit_code": 143}, {"exit_code": 0}, {"terminating": True}])
def test_a_worker_that_was_told_to_stop_has_not_failed(fields):
    job = training()
    assert said(decide(job, crashed(started(job), **fields)), SUCCEEDED)[1] == "Running"


def test_a_head_that_was_taken_away_is_no_attempt():
    job = training()
    observed = started(job)
    crash = pod(ROLE_HEAD, observed.head, name="a", phase="Failed", exit_code=1, termination="boom")
    drained = pod(ROLE_HEAD, observed.head, name="b", phase="Failed", exit_code=143, disrupted="node n is drained")
    alive = pod(ROLE_HEAD, observed.head, name="c")
    message = said(decide(job, replace(observed, pods=(crash, drained, alive))), SUCCEEDED)[2]
    assert message.startswith("The head was taken off its node (node n is drained)")
    again = pod(ROLE_HEAD, observed.head, name="b2", phase="Failed", exit_code=1, termination="boom")
    message = said(decide(job, replace(observed, pods=(crash, drained, again, alive))), SUCCEEDED)[2]
    assert message == "Attempt 3 of 4; the last failed: boom"


def test_pods_leave_a_node_that_does_not_answer_after_half_a_minute():
    for name in ("train-train-head", "train-train-workers"):
        waits = {t["key"]: t["tolerationSeconds"] for t in template(first(training()), name)["tolerations"]}
        assert waits == {"node.kubernetes.io/not-ready": 30, "node.kubernetes.io/unreachable": 30}


# The metric of the table


@pytest.mark.parametrize(
    ("metrics", "shown"),
    [
        ({}, None),
        ({"loss": 2.0}, None),
        ({"validation_loss": 1.5, "validation_accuracy": 0.61234}, "validation accuracy 0.6123"),
        ({"validation_accuracy": 0.6, "test_accuracy": 0.7}, "test accuracy 0.7"),
        ({"test_accuracy": 0.7, "test_f1": 0.5}, "test f1 0.5"),
        ({"validation_rmse": 3.0, "validation_loss": 9.0}, "validation loss 9"),
    ],
)
def test_the_metric_that_tells_most(metrics, shown):
    job = training(register={"name": "m", "gates": [{"metric": "f1", "min": 0.4}]})
    report = TrainingReport(trainer_status=TrainerStatus(metrics=metrics))
    plan = decide(job, replace(started(job), progress=Progress(training=report)))
    assert plan.status.metric == shown


def test_nobody_trains_without_a_head():
    job = training()
    running = replace(started(job), progress=Progress(training=TrainingReport(trainer_status=TrainerStatus(workers=2))))
    job = after(job, decide(job, running))
    slow = decide(job, replace(running, progress=None))
    assert slow.status.trainer_status.workers == 2, "an answer that is late says nothing"
    headless = replace(running, progress=None, pods=())
    assert decide(job, headless).status.trainer_status.workers == 0
    suspended = edited(job, runPolicy={"suspend": True})
    assert decide(suspended, running).status.trainer_status.workers == 0


# News


def told(before: dict[str, Any] | None, now: dict[str, Any]) -> list[tuple[str, str]]:
    old = TrainerStatus(**before) if before is not None else None
    return [(event.reason, event.message) for event in news(old, TrainerStatus(**now))]


@pytest.mark.parametrize(
    ("before", "now", "reasons"),
    [
        (None, {"workers": 2, "step": 0}, []),
        ({"workers": 2}, {"workers": 2, "step": 9}, []),
        ({"workers": 2}, {"workers": 3}, ["Resized"]),
        ({"workers": 2}, {"workers": 0}, []),
        ({"workers": 0}, {"workers": 2}, []),
        ({"workers": 2, "restarts": 1}, {"workers": 1, "restarts": 2}, ["Recovered", "Resized"]),
        ({"workers": 2, "restarts": 1}, {"workers": 0, "restarts": 2}, []),
        ({"workers": 2}, {"workers": 2, "checkpoint_step": 100}, ["Checkpointed"]),
        ({"workers": 2, "checkpoint_step": 100}, {"workers": 2, "checkpoint_step": 200}, []),
    ],
)
def test_events_of_a_training(before, now, reasons):
    assert [reason for reason, _ in told(before, now)] == reasons


def test_a_recovery_says_what_it_cost():
    now = {"workers": 1, "restarts": 1, "resumed_from_step": 90, "lost_steps": 4, "seconds_to_recover": 2.34}
    assert told({"workers": 1}, now) == [
        ("Recovered", "Training goes on from step 90 on 1 worker after 2.3 s; 4 steps are done again")
    ]


def test_news_are_told_once():
    job = training()
    report = TrainingReport(trainer_status=TrainerStatus(workers=2, checkpoint_step=5))
    observed = replace(started(job), progress=Progress(training=report))
    plan = decide(job, observed)
    assert "Checkpointed" in [event.reason for event in plan.events]
    assert decide(after(job, plan), observed).events == ()
    assert json.loads(child(plan, "ConfigMap", "train-train")["data"]["config.json"])["name"] == "train"
