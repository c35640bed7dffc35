"""The training loop as it is, whose first rank also writes down the loss of each step. Workers import this."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mizzen.train.group import process_group
from mizzen.train.loop import Loop
from mizzen.train.plan import TrainPlan
from mizzen.train.seams import StepResult


class NotedLoop(Loop):
    """A Loop that leaves a line for each step: step, loss over all rows of it, workers."""

    notebook: Path

    def steps(self, until_epoch: int | None = None) -> Iterator[StepResult]:
        for result in super().steps(until_epoch):
            if self.rank == 0:
                with self.notebook.open("a") as file:
                    file.write(json.dumps([result.step, result.loss, self.world]) + "\n")
            yield result


def build(plan: dict[str, Any]) -> NotedLoop:
    """`plan` is a TrainPlan's, and `notebook`, a file."""
    settings = dict(plan)
    notebook = Path(settings.pop("notebook"))
    process_group.warm_up()
    loop = NotedLoop(TrainPlan.from_dict(settings))
    loop.notebook = notebook
    return loop
