"""The learning curves of a run over all of its heads: a line in the run folder for each report."""

from __future__ import annotations

import json
from pathlib import Path

CURVES_FILE = "curves.jsonl"

Point = tuple[int, dict[str, float]]  # step, metrics


class Curves:
    """What earlier heads wrote is there at once; steps that are done again replace what they gave before."""

    def __init__(self, run_folder: Path) -> None:
        self._file = run_folder / CURVES_FILE
        self.points: list[Point] = []
        text = self._file.read_text() if self._file.exists() else ""
        whole, _, torn = text.rpartition("\n")  # a head may have died in the middle of a line
        for line in whole.splitlines():
            self._take(*json.loads(line))
        if torn:
            self._file.write_text(f"{whole}\n" if whole else "")

    def add(self, step: int, metrics: dict[str, float]) -> None:
        self._take(step, metrics)
        with self._file.open("a") as file:
            file.write(json.dumps([step, metrics]) + "\n")

    def _take(self, step: int, metrics: dict[str, float]) -> None:
        while self.points and self.points[-1][0] > step:
            self.points.pop()
        if self.points and self.points[-1][0] == step:
            metrics = {**self.points.pop()[1], **metrics}
        self.points.append((step, metrics))
