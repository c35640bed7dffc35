"""Where Ray Tune's events become our record: each trial's start, its epochs, its end."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.experiment import Trial

from mizzen.search.record import FinishedTrial, State
from mizzen.search.trial import FAILED

if TYPE_CHECKING:
    from mizzen.search.childruns import ChildRuns
    from mizzen.search.telemetry import Telemetry

log = logging.getLogger(__name__)

KEPT = ("accuracy", "loss", "train_loss")


class RecordCallback(tune.Callback):  # type: ignore[misc]  # Ray ships no types
    """Names trials by their order, follows their epochs, and writes them down when they end."""

    def __init__(self, telemetry: Telemetry, runs: ChildRuns, prefix: str, first: int) -> None:
        self.telemetry, self.runs, self.prefix = telemetry, runs, prefix
        self.next_number = first
        self.names: dict[str, str] = {}
        self.history: dict[str, list[dict[str, float]]] = {}
        self.started: dict[str, float] = {}

    def on_trial_start(self, trial: Trial, **_: Any) -> None:
        if trial.trial_id not in self.names:
            self.names[trial.trial_id] = f"{self.prefix}-{self.next_number:03d}"
            self.next_number += 1
        self.history[trial.trial_id] = []
        self.started[trial.trial_id] = time.monotonic()
        self.telemetry.running.add(trial.trial_id)
        self.telemetry.publish()
        log.info("trial %s starts: %s", self.names[trial.trial_id], trial.config)

    def on_trial_result(self, trial: Trial, result: dict[str, Any], **_: Any) -> None:
        if FAILED not in result:
            self.history[trial.trial_id].append({key: float(result[key]) for key in KEPT if key in result})

    def on_trial_complete(self, trial: Trial, **_: Any) -> None:
        failure = trial.last_result.get(FAILED)
        full = trial.last_result.get("epoch", 0) >= self.telemetry.spec.epochs
        state: State = "failed" if failure else "succeeded" if full else "pruned"
        self._finish(trial, state, str(failure or ""))

    def on_trial_error(self, trial: Trial, **_: Any) -> None:
        self._finish(trial, "failed", "its worker was lost again and again: see the workers' pods for memory and CPU")

    def _finish(self, trial: Trial, state: State, error: str) -> None:
        record = self.telemetry.record
        best: dict[str, float] = {}
        history = self.history.get(trial.trial_id, [])
        for metrics in history:
            if record.better(metrics, best):
                best = metrics
        done = FinishedTrial(
            name=self.names[trial.trial_id],
            state=state,
            parameters=dict(trial.config),
            metrics=best,
            history=history,
            seconds=round(time.monotonic() - self.started[trial.trial_id], 3),
            error=error,
        )
        record.add(done)
        self.telemetry.running.discard(trial.trial_id)
        self.telemetry.publish()
        self.runs.add(done)
        measured = ", ".join(f"{key} {value:.4f}" for key, value in best.items())
        log.info("trial %s %s after %.1f s: %s", done.name, state, done.seconds, error or measured)


class StopWhenOver(tune.Stopper):  # type: ignore[misc]  # Ray ships no types
    """Ends the whole search at its goal, or when too many trials failed."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.telemetry = telemetry

    def __getstate__(self) -> dict[str, Any]:
        """Ray Tune pickles its stoppers into its own (pod-local, never read) state: there is nothing to keep."""
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002 (the base class names them)
        return False

    def stop_all(self) -> bool:
        return self.telemetry.over
