"""One trial on a Ray worker: the training loop on one process, an epoch at a time, so that ASHA may end it between."""

from __future__ import annotations

import logging
import time
from typing import Any

from ray import tune

from mizzen.data.store import DatasetVersion
from mizzen.errors import MizzenError
from mizzen.train.loop import Loop
from mizzen.train.plan import TrainPlan
from mizzen_api import contract

log = logging.getLogger(__name__)

FAILED = "failure"  # key of a result that says why the trial failed


class TrialTrainable(tune.Trainable):  # type: ignore[misc]  # Ray ships no types
    """`step` is one epoch and its measurement. Actors are used again for the next trial: torch is imported once."""

    def setup(self, config: dict[str, Any], plan: dict[str, Any]) -> None:
        self._plan = plan
        self._dataset: DatasetVersion | None = None
        self._error: str | None = None
        self._begin(config)

    def step(self) -> dict[str, Any]:
        started = time.monotonic()
        if self._error is None:
            try:
                return self._epoch(started)
            except Exception as error:  # a trial's failure is a result; only a lost actor is Ray's to repeat
                self._error = _told(error)
        return {"epoch": 0, FAILED: self._error, "done": True, "accuracy": 0.0, "loss": 1e9}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Trials are short: one that is lost starts anew."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """See save_checkpoint."""

    def _begin(self, config: dict[str, Any]) -> None:
        self._error = None
        try:
            settings = dict(config)
            rate = float(settings.pop("lr", self._plan["learning_rate"]))
            plan = TrainPlan.from_dict({**self._plan, "settings": settings, "learning_rate": rate})
            self._dataset = self._dataset or DatasetVersion(plan.dataset_uri)
            self._loop = Loop(plan, dataset=self._dataset)
        except Exception as error:
            self._error = _told(error)

    def _epoch(self, started: float) -> dict[str, Any]:
        losses = [result.loss for result in self._loop.run(until_epoch=self._loop.state.epoch + 1)]
        measured = self._loop.evaluate(contract.SPLITS[1])
        return {
            "epoch": self._loop.state.epoch,
            "accuracy": measured["accuracy"],
            "loss": measured["loss"],
            "train_loss": sum(losses) / len(losses),
            "epoch_seconds": time.monotonic() - started,
            "done": self._loop.state.epoch >= self._loop.plan.epochs,
        }


def _told(error: Exception) -> str:
    if isinstance(error, MizzenError):
        return error.message
    log.exception("the trial failed")
    return f"{type(error).__name__}: {error}"
