"""What each Ray Train worker runs: the loop on its rank, with reports to the driver and durable checkpoints."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mizzen.errors import UserError
from mizzen_api import contract

if TYPE_CHECKING:
    from mizzen.train.loop import Loop
    from mizzen.train.seams import StepResult

REPORT_SECONDS = 1.0
FINAL = "final"  # the trained model, in the run folder
OUTCOME_FILE = "outcome.json"  # metrics, or the user's error, in the run folder


def train_on_ray(settings: dict[str, Any]) -> None:
    """Train from the newest checkpoint to the end. Rank 0 leaves model and outcome in the run folder."""
    import ray.train

    from mizzen.train.loop import Loop
    from mizzen.train.plan import TrainPlan

    context = ray.train.get_context()
    loop = Loop(TrainPlan.from_dict(settings["plan"]), context.get_world_rank(), context.get_world_size())
    Worker(loop, settings["driver_url"], Path(settings["run_folder"])).train()


class Worker:
    """One rank. Whatever all ranks must do together, they do in the same order: evaluate, save."""

    def __init__(self, loop: Loop, driver_url: str, run_folder: Path) -> None:
        self.loop, self.driver_url, self.run_folder = loop, driver_url, run_folder
        self._losses: list[float] = []
        self._rows = 0
        self._since = time.monotonic()

    def train(self) -> None:
        loop = self.loop
        self._tell(event="started", resumed_from_step=self._resume())
        try:
            for result in loop.run():
                self._after(result)
                if result.step % loop.plan.checkpoint_every == 0 and result.step < loop.total_steps:
                    self._save()
            test = {f"test_{key}": value for key, value in loop.evaluate(contract.SPLITS[2]).items()}
            loop.check_weights()
        except UserError as error:  # losses and weights are the same on all ranks, so all of them come here
            self._leave({"reason": str(error.reason), "message": error.message})
            return
        self._finish({**loop.state.metrics, **test})

    def _resume(self) -> int | None:
        import ray.train

        from mizzen.train import checkpoint

        newest = ray.train.get_checkpoint()
        if newest is None:
            return None
        with newest.as_directory() as folder:
            self.loop.state = checkpoint.load(Path(folder), self.loop.module, self.loop.optimizer)
        return self.loop.state.step

    def _after(self, result: StepResult) -> None:
        """Gather the step's numbers; report at the end of an epoch, and about once a second."""
        self._losses.append(result.loss)
        self._rows += result.rows
        metrics: dict[str, float] = {}
        if result.ends_epoch:
            validation = self.loop.evaluate(contract.SPLITS[1])
            metrics = {f"validation_{key}": value for key, value in validation.items() if key != "majority_rate"}
            self.loop.state.metrics |= metrics
        passed = time.monotonic() - self._since
        if result.ends_epoch or passed >= REPORT_SECONDS:
            loss = sum(self._losses) / len(self._losses)
            speed = self._rows / max(passed, 1e-6)
            self._tell(event="step", rows=self._rows, samples_per_second=speed, metrics={"loss": loss, **metrics})
            self._losses, self._rows, self._since = [], 0, time.monotonic()

    def _save(self) -> None:
        """A durable checkpoint. A barrier for all ranks: Ray Train waits until each has reported."""
        import ray.train

        from mizzen.train import checkpoint

        with contextlib.ExitStack() as stack:
            kept = None
            if self.loop.rank == 0:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                checkpoint.save(folder, self.loop.module, self.loop.optimizer, self.loop.state)
                kept = ray.train.Checkpoint.from_directory(folder)
            ray.train.report({"step": self.loop.state.step}, checkpoint=kept)

    def _finish(self, metrics: dict[str, float]) -> None:
        loop = self.loop
        if loop.rank == 0:
            draft, final = self.run_folder / f".{FINAL}", self.run_folder / FINAL
            shutil.rmtree(draft, ignore_errors=True)
            loop.save(draft)
            shutil.rmtree(final, ignore_errors=True)
            draft.rename(final)
            self._tell(event="trained", metrics=metrics)
        self._leave({"step": loop.state.step, "metrics": metrics})

    def _tell(self, **report: Any) -> None:
        from mizzen.workload.reporter import send

        loop = self.loop
        if loop.rank == 0:
            place = {"step": loop.state.step, "total_steps": loop.total_steps, "epoch": loop.state.epoch}
            send(self.driver_url, {"workers": loop.world, **place, **report})

    def _leave(self, outcome: dict[str, Any]) -> None:
        """The last thing that a run does: a head that finds an outcome trains no more."""
        if self.loop.rank == 0:
            draft = self.run_folder / f".{OUTCOME_FILE}"
            draft.write_text(json.dumps(outcome))
            draft.rename(self.run_folder / OUTCOME_FILE)
