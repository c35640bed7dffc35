"""Ray Train as this driver wants it: elastic, resumed by its name, without helpers that need a dashboard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray.train
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

from mizzen.train.plan import TrainPlan
from mizzen.train.worker import train_on_ray
from mizzen.workload.reporter import send
from mizzen_api.trainingjob import Checkpoint, Scaling

# A bug that fails at once must end some day; lost workers of a long run must not end it.
MAX_FAILURES = 30
RESIZE_INTERVAL_SECONDS = 15.0
GLOO_TIMEOUT_SECONDS = 120


class ElasticTrainer(TorchTrainer):  # type: ignore[misc]  # Ray ships no types
    """Without the actor that frees a dead controller's placement group: it asks the API server that we leave out.

    Here the driver ends when its controller does, and the whole cluster with it.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [callback for callback in callbacks if not isinstance(callback, PlacementGroupCleanerCallback)]


class TellErrors(ray.train.UserCallback):  # type: ignore[misc]
    """Tells the driver why workers failed, before Ray Train starts the group again. Runs in Ray's controller."""

    def __init__(self, driver_url: str) -> None:
        self.driver_url = driver_url

    def after_exception(self, run_context: object, worker_exceptions: dict[int, Exception]) -> None:  # noqa: ARG002
        rank = min(worker_exceptions)
        send(self.driver_url, {"event": "failed", "rank": rank, "error": gist(worker_exceptions[rank])})


def gist(error: Exception) -> str:
    """The error itself, or of one that carries its traceback as text what follows the last frame."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    frames = [number for number, line in enumerate(lines) if line.startswith("  File ")]
    if frames:
        return " ".join(line for line in lines[frames[-1] :] if not line.startswith(" "))[:500]
    return ": ".join([type(error).__name__, *([" ".join(lines)] if lines else [])])[:500]


def trainer_of(
    plan: TrainPlan, scaling: Scaling, checkpoint: Checkpoint, uid: str, driver_url: str, run_folder: Path
) -> ElasticTrainer:
    """Runs with as many workers as there are, from `minWorkers` to `maxWorkers`; the same uid resumes the same run."""
    low, high = scaling.min_workers, scaling.max_workers
    elastic = {"elastic_resize_monitor_interval_s": RESIZE_INTERVAL_SECONDS} if low < high else {}
    return ElasticTrainer(
        train_on_ray,
        train_loop_config={"plan": plan.to_dict(), "driver_url": driver_url, "run_folder": str(run_folder)},
        torch_config=TorchConfig(backend="gloo", timeout_s=GLOO_TIMEOUT_SECONDS),
        scaling_config=ray.train.ScalingConfig(
            num_workers=(low, high) if low < high else high,
            resources_per_worker={"CPU": 1},
            placement_strategy="SPREAD",
            **elastic,
        ),
        run_config=ray.train.RunConfig(
            name=f"ray-{uid}",
            storage_path=str(run_folder),
            callbacks=[TellErrors(driver_url)],
            failure_config=ray.train.FailureConfig(max_failures=MAX_FAILURES),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=checkpoint.keep),
        ),
    )
