"""One life of a training that a test kills: goes on from the newest whole thing, and tells each step in a file.

python -m tests.runtime.train.lives PLAN.json STORE UID STEPS.jsonl [half-a-copy STEP]
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from mizzen.train.checkpoints import copying
from mizzen.train.checkpoints.persister import Persister
from mizzen.train.checkpoints.restore import newest
from mizzen.train.checkpoints.snapshots import Snapshots
from mizzen.train.checkpoints.store import Store
from mizzen.train.loop import Loop
from mizzen.train.plan import TrainPlan

SNAPSHOT_EVERY, CHECKPOINT_EVERY = 2, 4  # steps


def observed(loop: Loop) -> list[int]:
    """Filled with the rows of each batch."""
    rows: list[int] = []
    batch = loop.task.batch

    def noted(examples: Any, picked: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("training"):
            rows.extend(int(row) for row in picked)
        return batch(examples, picked, *args, **kwargs)

    loop.task.batch = noted  # type: ignore[method-assign]
    return rows


def die_in_a_copy(at: int, snapshots: Snapshots) -> None:
    """By a real SIGKILL, when half of the tensors of the first snapshot from step `at` on are in the slot."""
    copy_all = copying.copy_all

    def half(targets: list[Any], sources: list[Any]) -> None:
        if snapshots.newest() is not None and snapshots.newest().step >= at:  # type: ignore[union-attr]
            copy_all(targets[: len(targets) // 2], sources[: len(sources) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        copy_all(targets, sources)

    copying.copy_all = half


def live(plan: TrainPlan, store: str, uid: str, steps: Path, dies_at: int | None) -> None:
    loop, snapshots, persister = Loop(plan), Snapshots(uid), Persister(store)
    if dies_at is not None:
        die_in_a_copy(dies_at, snapshots)
    restored = newest(Store(store), uid)
    if restored is not None:
        restored.into(loop)
    print(f"from {loop.state.step} {restored.source if restored else 'nothing'}", flush=True)
    rows = observed(loop)
    with steps.open("a", buffering=1) as log:
        for result in loop.steps():
            log.write(
                json.dumps({"step": result.step, "epoch": result.epoch, "loss": result.loss, "rows": rows}) + "\n"
            )
            rows.clear()
            if result.step % SNAPSHOT_EVERY == 0:
                snapshot = snapshots.take(loop)
                if snapshot is not None and result.step % CHECKPOINT_EVERY == 0:
                    persister.submit(snapshot)
    assert persister.close()
    snapshots.close()


if __name__ == "__main__":
    arguments = sys.argv[1:]
    live(
        TrainPlan.from_dict(json.loads(Path(arguments[0]).read_bytes())),
        arguments[1],
        arguments[2],
        Path(arguments[3]),
        int(arguments[4]) if arguments[4:] else None,
    )
