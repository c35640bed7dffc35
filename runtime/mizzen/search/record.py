"""What is known of a search's trials, one JSON line each: what outlives the head, and what the status is made of."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from mizzen_api.searchjob import Objective, Trial, TrialCounts

State = Literal["succeeded", "pruned", "failed"]


@dataclass(frozen=True)
class FinishedTrial:
    """One trial that is over."""

    name: str
    state: State
    parameters: dict[str, Any]
    metrics: dict[str, float] = field(default_factory=dict)  # of its best epoch
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    error: str = ""


class SearchRecord:
    """Finished trials, appended to a file as they end. Reading it again is how a restarted head goes on."""

    def __init__(self, path: Path, objective: Objective) -> None:
        self.path = path
        self.objective = objective
        self.trials: list[FinishedTrial] = []
        if path.exists():
            # The last line is half a line where the head died while writing it.
            lines = [line for line in path.read_text().split("\n")[:-1] if line]
            self.trials = [FinishedTrial(**json.loads(line)) for line in lines]
            path.write_text("".join(f"{line}\n" for line in lines))

    def add(self, trial: FinishedTrial) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(trial)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.trials.append(trial)

    def better(self, metrics: dict[str, float], than: dict[str, float]) -> bool:
        name, sign = self.objective.metric, 1 if self.objective.type == "maximize" else -1
        return name in metrics and (name not in than or sign * metrics[name] > sign * than[name])

    @property
    def best(self) -> FinishedTrial | None:
        """Of equals, the first; a failed trial is never the best."""
        found: FinishedTrial | None = None
        for trial in self.trials:
            if trial.state != "failed" and self.better(trial.metrics, found.metrics if found else {}):
                found = trial
        return found

    @property
    def goal_reached(self) -> bool:
        goal, best = self.objective.goal, self.best
        if goal is None or best is None:
            return False
        value = best.metrics[self.objective.metric]
        return value >= goal if self.objective.type == "maximize" else value <= goal

    def optimal(self) -> Trial | None:
        best = self.best
        return Trial(name=best.name, parameters=best.parameters, metrics=best.metrics) if best else None

    def counts(self, running: int = 0) -> TrialCounts:
        states = [trial.state for trial in self.trials]
        return TrialCounts(
            succeeded=states.count("succeeded"),
            pruned=states.count("pruned"),
            failed=states.count("failed"),
            running=running,
        )

    @property
    def failed(self) -> list[FinishedTrial]:
        return [trial for trial in self.trials if trial.state == "failed"]
