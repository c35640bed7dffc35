"""kill -9 at any point of a run: in a step, in the middle of a snapshot, in the middle of a checkpoint."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from mizzen.data.materialize import Version
from mizzen.train.checkpoints import room
from mizzen.train.checkpoints.persister import Persister
from mizzen.train.checkpoints.restore import newest_in_memory
from mizzen.train.checkpoints.snapshots import Snapshots, clear
from mizzen.train.checkpoints.store import Store
from mizzen.train.loop import Loop
from mizzen.train.plan import TrainPlan
from tests.runtime.train.lives import observed
from tests.runtime.train.trainee import TinyTrainee

UID = f"test-killed-{os.getpid()}"
DEADLINE = 60.0  # seconds


@pytest.fixture(autouse=True)
def tidy() -> Iterator[None]:
    yield
    clear(UID)


def until(found: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not found():
        assert time.monotonic() < deadline, what
        time.sleep(0.002)


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_is_the_run_that_never_was(version: Version, tmp_path: Path) -> None:
    """Dropout, momenta, learning rates, the order of rows: the same losses to the bit, each row once an epoch."""
    plan = TrainPlan(
        "text-transformer",
        {"embedding_dim": 16, "num_layers": 1, "attention_heads": 2, "dropout": 0.2},
        version.uri,
        version.fingerprint,
        learning_rate=5e-3,
        epochs=3,
        batch_size=48,
        accumulation=2,
    )
    undisturbed = Loop(plan)
    rows = observed(undisturbed)
    losses = {result.step: result.loss for result in undisturbed.steps()}
    (tmp_path / "plan.json").write_text(json.dumps(plan.to_dict()))
    log, chance = tmp_path / "steps.jsonl", random.Random()

    def steps() -> list[str]:
        return log.read_text().splitlines() if log.exists() else []

    def life(*dies_at: int) -> subprocess.Popen[str]:
        arguments = [tmp_path / "plan.json", tmp_path / "store", UID, log, *dies_at]
        return subprocess.Popen(
            [sys.executable, "-m", "tests.runtime.train.lives", *map(str, arguments)], stdout=subprocess.PIPE, text=True
        )

    begins = []

    def ended(process: subprocess.Popen[str]) -> int:
        out, _ = process.communicate(timeout=DEADLINE)
        begins.append(int(out.split()[1]))
        return process.returncode

    process, life_time = life(), chance.randint(5, 15)
    until(lambda: len(steps()) >= life_time, "it trains")
    time.sleep(chance.random() * 0.02)
    process.kill()
    assert ended(process) == -signal.SIGKILL
    assert ended(life(begins[-1] + 8)) == -signal.SIGKILL  # in the middle of a copy
    halves = [
        path for path in room.slot_files(room.run_folder(room.MEMORY, UID)) if not path.read_bytes()[:8].strip(b"\0")
    ]
    assert halves, "a slot was cut short"
    clear(UID)  # the memory is lost as well: what is durable counts
    assert ended(life()) == 0
    assert begins[0] == 0 < begins[1] and 0 < begins[2] < len(losses)
    assert begins[2] % 4 == 0

    told = [json.loads(line) for line in steps()]
    assert [one for one in told if one["loss"] != losses[one["step"]]] == []
    last = {one["step"]: one["rows"] for one in told}
    assert last.keys() == losses.keys()
    assert [row for step in sorted(last) for row in last[step]] == rows
    assert len(rows) == plan.epochs * len(set(rows)) == plan.epochs * len(undisturbed.train_part)
    assert newest_in_memory(UID) is None, "a run that is over leaves nothing in memory"


class LargeTrainee(TinyTrainee):
    """With 200 MB more, so that writing takes its time."""

    def local_tensors(self) -> dict[str, torch.Tensor]:
        return {"ballast": torch.full((50_000_000,), float(self.state.step))}


def test_a_killed_writer_leaves_no_half_and_its_successor_writes_the_next(tmp_path: Path) -> None:
    store, trainee, snapshots = tmp_path / "store", LargeTrainee(), Snapshots(UID)
    persister = Persister(str(store))
    try:
        trainee.advance(1)
        persister.submit(snapshots.take(trainee))  # type: ignore[arg-type]
        drafts: list[Path] = []
        until(lambda: bool(drafts.extend(store.glob("*/.*")) or drafts), "it writes")
        os.kill(int(drafts[0].suffix[1:]), signal.SIGKILL)
        until(lambda: persister.status().running == -1, "the death is noticed")
        assert "ended" in persister.status().error
        assert Store(str(store)).newest() is None
        trainee.advance(1)
        persister.submit(snapshots.take(trainee))  # type: ignore[arg-type]
        assert persister.flush(DEADLINE)
        assert persister.status().error == ""
        found = Store(str(store)).newest()
        assert found is not None and found.step == 2
    finally:
        persister.close()
        snapshots.close()


def test_what_was_handed_over_is_written_though_the_training_dies(tmp_path: Path) -> None:
    store = tmp_path / "store"
    code = (
        "import os, signal\n"
        "from tests.runtime.train.test_checkpoints_killed import LargeTrainee, Persister, Snapshots\n"
        f"trainee, snapshots, persister = LargeTrainee(), Snapshots({UID!r}), Persister({str(store)!r})\n"
        "trainee.advance(3)\npersister.submit(snapshots.take(trainee))\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    until(lambda: Store(str(store)).checkpoints() != [], "the writer finishes")
    found = Store(str(store)).newest()
    assert found is not None and found.step == 3
    assert float(found.load().local[0]["ballast"][-1]) == 3.0
