"""What each Ray Train worker runs: the loop on its rank, with reports to the driver and durable checkpoints."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from mizzen_api import contract

REPORT_SECONDS = 1.0
FINAL = "final"
OUTCOME_FILE = "outcome.json"


def train_on_ray(settings: dict[str, Any]) -> None:
    """Train from the newest checkpoint to the end. Rank 0 leaves the model and its metrics in `final_folder`."""
    import ray.train
    import torch.distributed as dist

    from mizzen.errors import UserError
    from mizzen.models import artifact
    from mizzen.train import checkpoint
    from mizzen.train.loop import Loop
    from mizzen.train.plan import TrainPlan
    from mizzen.workload.reporter import send

    plan = TrainPlan(**settings["plan"])
    driver_url, run_folder = settings["driver_url"], Path(settings["run_folder"])
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    loop = Loop(plan, rank, world)
    resumed = ray.train.get_checkpoint()
    if resumed is not None:
        with resumed.as_directory() as folder:
            loop.state = checkpoint.load(Path(folder), loop.module, loop.optimizer)

    def tell(**report: Any) -> None:
        if rank == 0:
            send(driver_url, report)

    tell(
        event="started",
        workers=world,
        resumed_from_step=loop.state.step if resumed is not None else None,
        step=loop.state.step,
        total_steps=loop.total_steps,
        epoch=loop.state.epoch,
    )

    def save() -> None:
        """A barrier for all ranks: Ray Train waits until each has reported."""
        with contextlib.ExitStack() as stack:
            kept = None
            if rank == 0:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                checkpoint.save(folder, loop.module, loop.optimizer, loop.state)
                kept = ray.train.Checkpoint.from_directory(folder)
            ray.train.report({"step": loop.state.step}, checkpoint=kept)

    losses: list[float] = []
    rows, since = 0, time.monotonic()
    try:
        for result in loop.run():
            losses.append(result.loss)
            rows += result.rows
            now = time.monotonic()
            metrics: dict[str, float] = {}
            if result.ends_epoch:
                validation = loop.evaluate(contract.SPLITS[1])
                metrics = {f"validation_{k}": v for k, v in validation.items() if k != "majority_rate"}
                loop.state.metrics |= metrics
            if result.ends_epoch or now - since >= REPORT_SECONDS:
                tell(
                    event="step",
                    workers=world,
                    step=result.step,
                    total_steps=loop.total_steps,
                    epoch=loop.state.epoch,
                    rows=rows,
                    samples_per_second=rows / max(now - since, 1e-6),
                    metrics={"loss": sum(losses) / len(losses), **metrics},
                )
                losses, rows, since = [], 0, time.monotonic()
            if result.step % plan.checkpoint_every == 0 and result.step < loop.total_steps:
                save()
    except UserError as error:  # the loss is the same on all ranks, so all of them come here
        if rank == 0:
            _write(run_folder, {"reason": str(error.reason), "message": error.message})
        return
    test = {f"test_{key}": value for key, value in loop.evaluate(contract.SPLITS[2]).items()}
    save()
    if rank == 0:
        draft = run_folder / f".{FINAL}"
        shutil.rmtree(draft, ignore_errors=True)
        pipeline = loop.dataset.folder / contract.DATASET_PIPELINE
        artifact.save(draft, plan.model, loop.config, loop.module, pipeline)
        shutil.rmtree(run_folder / FINAL, ignore_errors=True)
        draft.rename(run_folder / FINAL)
        _write(run_folder, {"step": loop.state.step, "metrics": {**loop.state.metrics, **test}})
        tell(event="trained", workers=world, step=loop.state.step, total_steps=loop.total_steps,
             epoch=loop.state.epoch, metrics={**loop.state.metrics, **test})  # fmt: skip
    if dist.is_initialized():
        dist.barrier()


def _write(folder: Path, document: dict[str, Any]) -> None:
    draft = folder / f".{OUTCOME_FILE}"
    draft.write_text(json.dumps(document))
    draft.rename(folder / OUTCOME_FILE)
