"""Servers and workers on real Ray nodes of one machine, with failures injected for real."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mizzen.data.materialize import Version
from mizzen.models import artifact
from mizzen.train.group.base import Listener
from mizzen.train.group.job import Job
from mizzen.train.group.keeping import Keeping
from mizzen.train.group.messages import Notice, Outcome, Recovered, Settings, Stop
from mizzen.train.group.run import group_of
from mizzen.train.group.station import Report
from mizzen.train.loop import Loop
from mizzen.train.plan import TrainPlan
from mizzen.train.strategies.parameter_server.run import ServedGroup
from mizzen_api.trainingjob_trainer import Compression, ParameterServer
from tests.runtime.train.ray_nodes import HEAD, RayNodes, cluster, until

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

ONE, TWO, THREE = "127.10.0.2", "127.10.0.3", "127.10.0.4"


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    with cluster(2, 3) as found:
        yield found


@pytest.fixture
def plan(version: Version) -> TrainPlan:
    return TrainPlan(
        "text-bag",
        {"embedding_dim": 16, "dropout": 0.0},
        version.uri,
        version.fingerprint,
        learning_rate=2e-2,
        epochs=3,
        batch_size=64,
        max_gradient_norm=0.0,
        strategy="parameter-server",
        parameter_server=ParameterServer(mode="sync", servers=2),
    )


RUNNING: list[Running] = []


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    yield
    for running in RUNNING:
        running.stop()
    RUNNING.clear()


@dataclass
class Heard:
    began: list[tuple[int, int, str]] = field(default_factory=list)
    recovered: list[Recovered] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)

    @property
    def listener(self) -> Listener:
        return Listener(
            on_began=lambda *values: self.began.append(values),
            on_recovered=self.recovered.append,
            on_report=self.reports.append,
        )

    def counter(self, name: str) -> Any:
        return self.reports[-1].counters[name]


class Running:
    def __init__(self, plan: TrainPlan, folder: Path, run: str, settings: Settings | None = None) -> None:
        keeping = Keeping(f"{run}-{os.getpid()}", str(folder / "store"), 2, 5, 20, (str(folder),))
        self.heard = Heard()
        job = Job(plan.to_dict(), keeping, str(folder))
        group = group_of(job, settings or Settings(2, 2), HEAD, listener=self.heard.listener)
        assert isinstance(group, ServedGroup)
        self.group, self.outcome = group, None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        RUNNING.append(self)

    def _run(self) -> None:
        self.outcome: Outcome | None = self.group.run()

    def end(self) -> Outcome:
        self._thread.join(120)
        assert self.outcome is not None, "the group does not end"
        return self.outcome

    def stop(self) -> None:
        """A test that failed leaves no workers behind: others wait for their places."""
        if self._thread.is_alive():
            self.group.tell(Stop())
            self._thread.join(60)

    @property
    def step(self) -> int:
        return self.heard.reports[-1].step if self.heard.reports else 0

    def goes_on(self, steps: int = 3) -> None:
        reached = self.step
        until(lambda: self.step >= reached + steps)

    def pid(self, address: str) -> int:
        return until(lambda: next((pid for where, pid in self.group.processes().values() if where == address), 0))


def test_synchronous_workers_train_as_one_process_would(nodes: RayNodes, plan: TrainPlan, tmp_path: Path) -> None:
    running = Running(plan, tmp_path, "sync")
    outcome = running.end()
    assert outcome.failure is None
    alone = Loop(replace(plan, strategy="ddp", parameter_server=None))
    for _ in alone.steps():
        pass
    assert outcome.step == alone.total_steps == running.heard.reports[-1].total_steps
    trained = artifact.load(tmp_path / "final").module.state_dict()
    for name, value in alone.module.state_dict().items():
        torch.testing.assert_close(trained[name], value, atol=2e-4, rtol=1e-3, msg=lambda text, n=name: f"{n}: {text}")
    assert outcome.metrics["test_accuracy"] == pytest.approx(alone.evaluate("test")["accuracy"], abs=0.02)
    assert "validation_loss" in outcome.metrics
    assert not list(tmp_path.glob("mizzen-*/*")), "a run that is over leaves nothing in memory"


def test_a_run_that_loses_what_it_can_lose(nodes: RayNodes, plan: TrainPlan, tmp_path: Path) -> None:
    """A worker killed, one that leaves, a node taken with a server on it, a node that joins, a head that is stopped."""
    plan = replace(
        plan,
        epochs=10_000,
        learning_rate_schedule="constant",
        warmup_fraction=0.0,
        parameter_server=ParameterServer(mode="bounded", staleness=2, servers=2, warmup_steps=3),
        compression=Compression(method="int8", when="always"),
    )
    running = Running(plan, tmp_path, "life", Settings(1, 2))
    running.goes_on(8)

    os.kill(running.pid(TWO), signal.SIGKILL)
    until(lambda: len(running.heard.recovered) == 1)
    running.goes_on()

    running.group.tell(Notice(TWO))
    until(lambda: running.group.has_left(TWO))
    running.goes_on()

    nodes.add(4)
    assert running.pid(THREE)
    running.goes_on()

    nodes.kill(ONE, running.pid(ONE))
    until(lambda: len(running.heard.recovered) == 2, 120.0)  # Ray takes a while to see that a node is dead
    running.goes_on()
    assert running.heard.counter("compression") == "int8"
    assert 0 < running.heard.counter("bytes_sent") <= 0.25 * running.heard.counter("bytes_uncompressed")

    running.group.tell(Stop())
    stopped = running.end()
    assert stopped.stopped
    last = Running(replace(plan, epochs=1), tmp_path, "life", Settings(1, 1))  # nothing is left to do
    outcome = last.end()
    ((_, step, source),) = last.heard.began
    assert outcome.step == step >= stopped.step
    assert source in ("snapshot", "checkpoint")
    assert outcome.metrics["test_accuracy"] > 0.9


def test_a_loss_that_is_no_number_ends_the_run_with_its_step(nodes: RayNodes, plan: TrainPlan, tmp_path: Path) -> None:
    outcome = Running(replace(plan, learning_rate=1e30, optimizer="sgd"), tmp_path, "nan", Settings(1, 1)).end()
    assert outcome.failure is not None
    assert outcome.failure.reason == "TrainingDiverged"
    assert "at step" in outcome.failure.text
