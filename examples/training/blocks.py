"""Train each entry of blocks.yaml in small, and print what came of it. These are the figures of docs/training.md.

    PYTHONPATH=$PWD:$PWD/examples/training python examples/training/blocks.py [NAME ...]

The first entry is registered as models:/tweets/1, and others go on from it. The registry is that of
$MLFLOW_TRACKING_URI, or one that is gone afterwards.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.train_data import fashion, tweets
from mizzen.registry.transfer import export, import_
from mizzen.train import DistributedTrainer
from mizzen.train.group.run import run_group
from mizzen.train.sdk_data import given

BLOCKS = Path(__file__).with_name("blocks.yaml")


@dataclass(frozen=True)
class Came:
    """Of one entry."""

    accuracy: float
    seconds: float
    notes: tuple[str, ...] = ()


def main(wanted: list[str]) -> None:
    with registry() as scratch:
        for entry in yaml.safe_load(BLOCKS.read_text()):
            if wanted and entry["name"] not in wanted:
                continue
            came = function(entry, scratch) if "function" in entry else fitted(entry, scratch)
            print(f"{entry['name']:28} {came.accuracy:.4f} {came.seconds:6.1f} s", flush=True)
            for note in came.notes:
                print(f"    {note}", flush=True)


class registry:  # noqa: N801
    """MLflow's, in a file of a folder that is gone afterwards."""

    def __enter__(self) -> Path:
        self._folder = tempfile.TemporaryDirectory(prefix="mizzen-blocks-")
        folder = Path(self._folder.name)
        os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        self._former = Path.cwd()
        os.chdir(folder)  # where MLflow puts the files of such a registry
        return folder

    def __exit__(self, *_: object) -> None:
        os.chdir(self._former)
        self._folder.cleanup()


def fitted(entry: dict[str, Any], scratch: Path) -> Came:
    trainer = trainer_of(entry)
    started = time.monotonic()
    result = trainer.fit(entry["model"], uri_of(entry), config=entry.get("config"))
    seconds = time.monotonic() - started
    if entry["name"] == "as it comes":
        result.save(scratch / "model")
        export(str(scratch / "model"), scratch / "exported")
        import_(scratch / "exported", "tweets", tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
    return Came(result.metrics["test_accuracy"], seconds, tuple(result.notes))


def function(entry: dict[str, Any], scratch: Path) -> Came:
    data = given(uri_of(entry), 7)
    plan = trainer_of(entry).plan(entry["model"], dict(entry["config"]), data)
    started = time.monotonic()
    outcome = run_group(plan, entry["workers"], scratch / "function", function=entry["function"])
    if outcome.failure is not None:
        raise SystemExit(outcome.failure.text)
    return Came(outcome.metrics["test_accuracy"], time.monotonic() - started)


def trainer_of(entry: dict[str, Any]) -> DistributedTrainer:
    return DistributedTrainer(accelerator="cpu", num_workers=entry.get("workers", 1), **dict(snake(entry["trainer"])))


def snake(trainer: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The manifest's names as Python's; blocks within are read as they are."""
    for name, value in trainer.items():
        yield "".join(f"_{char.lower()}" if char.isupper() else char for char in name), value


def uri_of(entry: dict[str, Any]) -> str:
    return {"tweets": tweets, "fashion": fashion}[entry["data"]]().folder.as_uri()


if __name__ == "__main__":
    main(sys.argv[1:])
