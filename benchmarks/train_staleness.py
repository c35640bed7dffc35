"""A parameter server with one slow worker of four: seconds to a fixed accuracy, bounded, synchronous, asynchronous.

The time that a piece takes is set (train_staleness_paced.py), for four workers share two cores here; messages, pulls,
pushes and updates are real, and so is the learning: staleness costs accuracy, not only time.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import train_data
from harness import Options, Row

from mizzen.train.plan import TrainPlan
from mizzen_api.trainingjob_trainer import ParameterServer

WORKERS = 4
SEEDS = (1, 2, 3)
ACCURACY = 0.72  # of the validation split
MODES = {"bounded": "bounded staleness (4)", "sync": "synchronous", "async": "asynchronous"}


@dataclass
class Course:
    """Validation accuracy as time passes, since the first worker began."""

    points: list[tuple[float, float]] = field(default_factory=list)
    dropped: int = 0

    def seconds_to(self, accuracy: float) -> float:
        """On a line between two measurements; infinite where it is never reached."""
        before = (0.0, 0.0)
        for at, reached in self.points:
            if reached >= accuracy:
                part = (accuracy - before[1]) / max(reached - before[1], 1e-9)
                return before[0] + part * (at - before[0])
            before = at, reached
        return float("inf")


def staleness(options: Options) -> list[Row]:
    plan = TrainPlan(
        "text-bag", {"embedding_dim": 16}, str(train_data.tweets().folder), "", 1e-2, epochs=2 if options.short else 5,
        batch_size=512, strategy="parameter-server", accelerator="cpu",
    )  # fmt: skip
    seeds = SEEDS[:1] if options.short else SEEDS
    courses = {
        mode: [course(replace(plan, seed=seed, parameter_server=ParameterServer(mode=mode))) for seed in seeds]
        for mode in (list(MODES)[:2] if options.short else MODES)
    }
    spent = {mode: [one.seconds_to(ACCURACY) for one in found] for mode, found in courses.items()}
    ours = statistics.median(spent["bounded"])
    rows = []
    for mode, found in courses.items():
        end = statistics.median(one.points[-1][1] for one in found)
        rows.append(Row(f"{MODES[mode]}: to {ACCURACY:.0%}", "s", statistics.median(spent[mode]), samples=spent[mode]))
        rows.append(Row(f"{MODES[mode]}: accuracy in the end", "%", 100 * end))
        rows.append(Row(f"{MODES[mode]}: gradients dropped", "", sum(one.dropped for one in found)))
        if mode != "bounded":
            times = statistics.median(spent[mode]) / ours
            rows.append(
                Row(f"bounded: times sooner than {MODES[mode]}", "×", times, 1.0 if mode == "sync" else None, "min")
            )
    return rows


def course(plan: TrainPlan) -> Course:
    import ray

    from mizzen.train.group.base import Listener
    from mizzen.train.group.job import Job
    from mizzen.train.group.keeping import Keeping
    from mizzen.train.group.messages import Settings
    from mizzen.train.group.nodes import Slots
    from mizzen.train.group.run import group_of
    from mizzen.train.group.station import Report
    from mizzen.workload.ray_head import lean_environment

    found, began = Course(), list[float]()

    def heard(report: Report) -> None:
        found.dropped = int(report.counters.get("dropped_gradients", 0))
        if "validation_accuracy" in report.metrics:
            found.points.append((time.monotonic() - began[0], report.metrics["validation_accuracy"]))

    listener = Listener(on_began=lambda *_: began.append(time.monotonic()), on_report=heard)
    with tempfile.TemporaryDirectory(prefix="mizzen-bench-") as folder:
        os.environ |= {
            "MIZZEN_BENCH_RUN": folder,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
        }
        lean_environment()
        ray.init(address="local", num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        try:
            keeping = Keeping(Path(folder).name, "", snapshot_every=50, checkpoint_every=10_000, memory=(folder,))
            job = Job(plan.to_dict(), keeping, folder, build="train_staleness_paced:build")
            group = group_of(
                job, Settings(WORKERS, WORKERS, patience=120.0), ray.util.get_node_ip_address(),
                slots=Slots(WORKERS, {"num_cpus": 1}), listener=listener,
            )  # fmt: skip
            outcome = group.run()
        finally:
            ray.shutdown()
    if outcome.failure is not None:
        raise SystemExit(outcome.failure.text)
    return found
