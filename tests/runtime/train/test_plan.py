"""From a TrainingJob's spec to the plan that workers are told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mizzen.train.plan import DEFAULT_LEARNING_RATE, TrainPlan, plan_of
from mizzen.train.schedule import Ramp
from mizzen_api.trainingjob import TrainingJobSpec
from mizzen_api.trainingjob_trainer import Trainer
from mizzen_api.workload import ResolvedDataset, ResolvedModel

DATASET = ResolvedDataset(name="d", uri="/artifacts/d", fingerprint="sha256:1")
TRAINER = {
    "strategy": "ddp",
    "precision": "bf16",
    "epochs": 5,
    "batchSize": 128,
    "gradientAccumulationSteps": 4,
    "optimizer": "sgd",
    "momentum": 0.8,
    "learningRateSchedule": "linear",
    "warmupFraction": 0.05,
    "weightDecay": 0.1,
    "maxGradientNorm": 0.5,
    "compile": True,
    "activationCheckpointing": True,
    "channelsLast": True,
    "compression": {"method": "powersgd", "rank": 4},
    "progressive": {"batchSize": {"from": 32, "to": 128}, "imageSize": {"from": 16, "to": 32}, "until": 0.4},
    "distillation": {"teacherUri": "models:/big/7"},
    "onNonFinite": "Skip",
    "maxSkippedSteps": 3,
    "seed": 11,
}


def spec(**changes: Any) -> TrainingJobSpec:
    return TrainingJobSpec.model_validate(
        {"datasetRef": {"name": "d"}, "model": {"name": "cnn"}, "register": {"name": "m"}, **changes}
    )


def test_all_of_a_trainer_is_in_the_plan() -> None:
    job = spec(
        trainer=TRAINER,
        scaling={"minWorkers": 1, "maxWorkers": 4, "onResize": "ScaleBatch"},
        checkpoint={"everySteps": 50, "snapshotEverySteps": 5},
    )
    plan = plan_of(job, DATASET, ResolvedModel(name="cnn", config={"width": 8, "lr": 0.3}), 2, "nvidia")
    assert (plan.model, plan.settings, plan.learning_rate) == ("cnn", {"width": 8}, 0.3)
    assert (plan.optimizer, plan.momentum, plan.accumulation, plan.batch_size) == ("sgd", 0.8, 4, 128)
    assert (plan.learning_rate_schedule, plan.warmup_fraction, plan.max_gradient_norm) == ("linear", 0.05, 0.5)
    assert (plan.compile, plan.activation_checkpointing, plan.channels_last, plan.precision) == (
        True,
        True,
        True,
        "bf16",
    )
    assert plan.progressive is not None and plan.progressive.batch_size == Ramp(32, 128)
    assert (plan.progressive.image_size, plan.progressive.depth, plan.progressive.until) == (Ramp(16, 32), None, 0.4)
    assert plan.compression is not None and (plan.compression.method, plan.compression.rank) == ("powersgd", 4)
    assert plan.distillation is not None and plan.distillation.teacher_uri == "models:/big/7"
    assert (plan.on_non_finite, plan.max_skipped_steps, plan.seed, plan.accelerator) == ("Skip", 3, 11, "nvidia")
    assert (plan.checkpoint_every, plan.snapshot_every, plan.threads) == (50, 5, 2)
    assert [plan.batch_factor(world) for world in (1, 2, 4)] == [0.25, 0.5, 1.0]


def test_no_setting_of_the_api_is_forgotten() -> None:
    """A new field of the trainer block must reach the loop, or be named here with what else reads it."""
    elsewhere = {"entrypoint", "gradient_accumulation_steps"}  # a training function; `accumulation`
    assert set(Trainer.model_fields) - elsewhere <= set(TrainPlan.__dataclass_fields__)


def test_a_plan_crosses_processes_as_json() -> None:
    job = spec(trainer={**TRAINER, "strategy": "fsdp", "compression": None, "fsdp": {"cpuOffload": True}})
    plan = plan_of(job, DATASET, ResolvedModel(entrypoint="net:build", config={"width": 8}), 1)
    again = TrainPlan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again == plan and again.config_hash == plan.config_hash
    assert again.fsdp is not None and again.fsdp.cpu_offload
    assert (again.entrypoint, again.model, again.learning_rate) == ("net:build", "", DEFAULT_LEARNING_RATE)


@pytest.mark.parametrize(
    "name", ["dataset_uri", "checkpoint_every", "threads", "accelerator", "max_workers", "micro_rows"]
)
def test_where_a_run_happens_does_not_change_what_it_is(name: str) -> None:
    plan = plan_of(spec(), DATASET, ResolvedModel(uri="models:/x/3"), 1)
    assert plan.model_uri == "models:/x/3"
    other = TrainPlan.from_dict({**plan.to_dict(), name: "elsewhere" if name in {"dataset_uri", "accelerator"} else 99})
    assert other.config_hash == plan.config_hash
    assert TrainPlan.from_dict({**plan.to_dict(), "momentum": 0.5}).config_hash != plan.config_hash
