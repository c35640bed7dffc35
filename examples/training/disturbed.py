"""Draw docs/images/disturbed.svg: the loss of a training that nobody disturbs, and of one whose parts are killed.

    python -m examples.training.disturbed docs/images/disturbed.svg [EPOCHS]

Both are the same plan with the same seed: a small CNN on Fashion-MNIST, two workers, each on a Ray node of its own. In
the second one a worker gets kill -9, later all processes of the other node do, and a new node joins. In a checkout
only, as it borrows the nodes from the tests; Fashion-MNIST is Debian's dataset-fashion-mnist.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import matplotlib as mpl
import numpy as np

from benchmarks.train_data import fashion
from mizzen.train.group.base import Listener
from mizzen.train.group.job import Job
from mizzen.train.group.keeping import Keeping
from mizzen.train.group.messages import Outcome, Recovered, Settings
from mizzen.train.group.run import Group
from mizzen.train.plan import TrainPlan
from tests.runtime.train.ray_nodes import HEAD, RayNodes, cluster

EPOCHS, BATCH = 1, 256
FIRST, SECOND, THIRD = "127.10.0.2", "127.10.0.3", 4
KILLED_AT, NODE_KILLED_AT, JOINS_AT = 0.2, 0.45, 0.65  # of all steps
PATIENCE = 300.0
WINDOW = 10  # steps that one point of the curves is the mean of


@dataclass
class Curve:
    """What a run leaves: losses and workers by step, what was done to it, and how it ended."""

    losses: list[float] = field(default_factory=list)
    workers: list[int] = field(default_factory=list)
    written: int = 0  # lines: more than steps where some were done again
    marks: list[tuple[int, str]] = field(default_factory=list)
    recovered: list[Recovered] = field(default_factory=list)
    outcome: Outcome = field(default_factory=Outcome)


class Run:
    """A group in a thread of its own."""

    def __init__(self, plan: TrainPlan, folder: Path) -> None:
        folder.mkdir()
        self.curve, self._notebook = Curve(), folder / "steps.jsonl"
        job = Job(
            {**plan.to_dict(), "notebook": str(self._notebook)},
            Keeping(f"{folder.name}-{os.getpid()}", (folder / "store").as_uri()),
            str(folder),
            build="examples.training.noted:build",
        )
        listener = Listener(on_recovered=self.curve.recovered.append, say=lambda text: print(f"  {text}"))
        self.group = Group(job, Settings(least=1, most=2, patience=60.0), HEAD, listener=listener)
        self._thread = threading.Thread(target=self._train, daemon=True)
        self._thread.start()

    def _train(self) -> None:
        self.curve.outcome = self.group.run()

    def lines(self) -> list[tuple[int, float, int]]:
        text = self._notebook.read_text() if self._notebook.exists() else ""
        return [tuple(json.loads(line)) for line in text.splitlines() if line.endswith("]")]

    @property
    def step(self) -> int:
        return self.lines()[-1][0] if self._notebook.exists() else 0

    def when(self, step: int, workers: int) -> None:
        """Wait for a step that so many do."""
        self.until(lambda: self.step >= step and self.lines()[-1][2] == workers, f"{workers} workers at {step}")

    def until(self, look: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not look():
            if time.monotonic() > deadline or not self._thread.is_alive():
                raise SystemExit(f"waited in vain for {what}")
            time.sleep(0.05)

    def mark(self, text: str) -> None:
        self.curve.marks.append((self.step, text))
        print(f"  step {self.step}: {text}")

    def pid(self, address: str) -> int:
        return next(pid for where, pid in self.group.processes().values() if where == address)

    def end(self) -> Curve:
        self._thread.join()
        if self.curve.outcome.failure is not None:
            raise SystemExit(self.curve.outcome.failure.text)
        lines = self.lines()
        newest = {step: (loss, workers) for step, loss, workers in lines}  # of a step that was done twice the last
        self.curve.losses = [newest[step][0] for step in sorted(newest)]
        self.curve.workers = [newest[step][1] for step in sorted(newest)]
        self.curve.written = len(lines)
        return self.curve


def main(picture: Path, epochs: int) -> None:
    version = fashion()
    plan = TrainPlan(
        "cnn", {"width": 16}, version.folder.as_uri(), "fashion", learning_rate=2e-3, epochs=epochs, batch_size=BATCH,
        max_workers=2, snapshot_every=10, checkpoint_every=100,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="mizzen-curves-") as folder, cluster(2, 3) as nodes:
        quiet = Run(plan, Path(folder) / "undisturbed").end()
        told("undisturbed", quiet)
        run = Run(plan, Path(folder) / "disturbed")
        disturb(run, nodes, len(quiet.losses))
        disturbed = run.end()
        told("disturbed", disturbed)
    record = picture.with_suffix(".json")
    record.write_text(json.dumps([asdict(quiet), asdict(disturbed)]))  # both take minutes: the drawing may be redone
    apart = abs(means(quiet.losses) - means(disturbed.losses))
    print(f"means of {WINDOW} steps are apart by {apart.mean():.4f} on average, {apart.max():.4f} at most")
    draw(picture, quiet, disturbed)


def disturb(run: Run, nodes: RayNodes, steps: int) -> None:
    run.when(int(KILLED_AT * steps), 2)
    run.mark("a worker is killed")
    os.kill(run.pid(FIRST), signal.SIGKILL)
    run.until(lambda: len(run.curve.recovered) == 1, "the first recovery")
    run.when(max(int(NODE_KILLED_AT * steps), run.step + 1), 2)
    run.mark("a node is killed")
    nodes.kill(SECOND, run.pid(SECOND))
    run.until(lambda: len(run.curve.recovered) == 2, "the second recovery")
    run.when(int(JOINS_AT * steps), 1)
    nodes.add(THIRD)
    run.when(run.step, 2)
    run.mark("a new node has joined")


def told(name: str, curve: Curve) -> None:
    metrics = curve.outcome.metrics
    print(
        f"{name}: {len(curve.losses)} steps, test accuracy {metrics['test_accuracy']:.4f}, "
        f"test loss {metrics['test_loss']:.4f}; {curve.written - len(curve.losses)} steps done again"
    )
    for one in curve.recovered:
        print(f"  recovered in {one.seconds:.1f} s, {one.lost_steps} steps lost")


def means(losses: list[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.convolve(losses, np.ones(WINDOW) / WINDOW, mode="valid")


def draw(file: Path, quiet: Curve, disturbed: Curve) -> None:
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "mizzen"  # the same picture, the same bytes
    from matplotlib import pyplot as plt

    figure, (above, below) = plt.subplots(
        2, 1, figsize=(8, 4.8), sharex=True, height_ratios=[4, 1], layout="constrained"
    )
    for curve, name, color, width in (
        (quiet, "undisturbed", "#9aa5b1", 4.0),
        (disturbed, "disturbed", "#c2410c", 1.2),
    ):
        values = means(curve.losses)
        accuracy = curve.outcome.metrics["test_accuracy"]
        steps = np.arange(WINDOW, WINDOW + len(values))
        above.plot(steps, values, color=color, linewidth=width, label=f"{name}: test accuracy {accuracy:.2%}")
    for step, text in disturbed.marks:
        above.axvline(step, color="black", linewidth=0.8, linestyle=":")
        above.annotate(
            text, (step, 0.97), (4, 0), xycoords=("data", "axes fraction"), textcoords="offset points", va="top"
        )
    above.set(ylabel=f"loss, mean of {WINDOW} steps", yscale="log")
    above.yaxis.set_major_formatter("{x:.1f}")
    above.yaxis.set_minor_formatter("{x:.1f}")
    above.legend(frameon=False, loc="lower left")
    below.step(np.arange(1, len(disturbed.workers) + 1), disturbed.workers, color="#c2410c", where="mid")
    below.set(xlabel="optimizer step", ylabel="workers", ylim=(0, 2.5), yticks=[0, 1, 2])
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else EPOCHS)
