"""The group on real Ray nodes of one machine, with failures injected for real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

from mizzen.data.materialize import Version
from mizzen.models import artifact
from mizzen.train.group.base import Listener
from mizzen.train.group.job import Job
from mizzen.train.group.keeping import Keeping
from mizzen.train.group.messages import Notice, Outcome, Recovered, Settings
from mizzen.train.group.process_group import Rendezvous
from mizzen.train.group.run import Group
from mizzen.train.plan import TrainPlan
from tests.runtime.train.group_under_test import HURRY, ROWS, steps_done, trained_alone, used_rows
from tests.runtime.train.ray_nodes import HEAD, RayNodes, cluster, until

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

SNAPSHOT_EVERY = 5


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    with cluster(2, 3) as found:
        yield found


@dataclass
class Heard:
    """What a group told."""

    began: list[tuple[int, int, str]] = field(default_factory=list)
    recovered: list[Recovered] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    @property
    def listener(self) -> Listener:
        return Listener(
            on_began=lambda *values: self.began.append(values),
            on_recovered=self.recovered.append,
            say=self.said.append,
        )


class Running:
    """A group that runs in a thread of its own."""

    def __init__(self, job: Job, settings: Settings) -> None:
        self.heard = Heard()
        self.group = Group(job, settings, HEAD, listener=self.heard.listener)
        self.outcome: Outcome | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.outcome = self.group.run()

    def end(self) -> Outcome:
        self._thread.join(120)
        assert self.outcome is not None, "the group does not end"
        return self.outcome

    @property
    def step(self) -> int:
        return self.group.controller.furthest

    def pid(self, address: str) -> int:
        return next(pid for where, pid in self.group.processes().values() if where == address)

    def steps_with(self, workers: int) -> None:
        """Wait until so many have trained some steps together."""
        until(lambda: self.group.controller.workers == workers)
        reached = self.step
        until(lambda: self.group.controller.workers == workers and self.step >= reached + 8)


def job(folder: Path, run: str, **plan: object) -> Job:
    (folder / "log").mkdir(exist_ok=True)
    return Job(
        {"epochs": 6, "rate": 0.01, "seconds": 0.02, "log": str(folder / "log"), "accelerator": "cpu", **plan},
        Keeping(f"{run}-{os.getpid()}", str(folder / "store"), 2, SNAPSHOT_EVERY, 20, (str(folder),)),
        str(folder),
        build="tests.runtime.train.group_under_test:build",
    )


def check(outcome: Outcome, folder: Path, epochs: int, rate: float = 0.01) -> None:
    """Each row once in each epoch, and the loss of a run that nobody disturbed."""
    assert outcome.failure is None
    assert outcome.step == epochs * ROWS // 12
    assert used_rows(folder / "log") == {epoch: list(range(ROWS)) for epoch in range(epochs)}
    assert outcome.metrics["test_loss"] == pytest.approx(trained_alone(epochs, rate), rel=1e-9)


def test_a_run_that_loses_what_it_can_lose(nodes: RayNodes, tmp_path: Path) -> None:
    """Killed, stopped, told to leave, a whole node taken, and others that join: one after the other, in one run."""
    epochs, (one, two) = 300, ("127.10.0.2", "127.10.0.3")  # longer than all of it takes
    running = Running(job(tmp_path, "life", epochs=epochs), Settings(1, 2, patience=60.0, stall_floor=2.0))
    running.steps_with(2)

    os.kill(running.pid(two), signal.SIGKILL)
    until(lambda: len(running.heard.recovered) == 1)
    running.steps_with(2)  # another process in its place

    stopped = running.pid(one)
    os.kill(stopped, signal.SIGSTOP)
    until(lambda: len(running.heard.recovered) == 2)
    until(lambda: not Path(f"/proc/{stopped}").exists())
    assert any("hung" in text for text in running.heard.said)
    running.steps_with(2)

    running.group.tell(Notice(two))
    until(lambda: running.group.has_left(two))
    assert len(running.heard.recovered) == 2, "an orderly leave is no failure"
    running.steps_with(1)

    three = nodes.add(4)
    running.steps_with(2)

    nodes.kill(one, running.pid(one))
    until(lambda: len(running.heard.recovered) == 3)
    assert running.heard.recovered[-1].seconds < 5.0, "long before Ray says that the node is dead"
    assert set(dict(running.group.processes().values())) >= {three}
    (tmp_path / "log" / HURRY).touch()
    check(running.end(), tmp_path, epochs)
    assert [source for _, _, source in running.heard.began[1:]] == ["memory"] * (len(running.heard.began) - 1)
    assert running.heard.recovered[-1].lost_steps == 0
    assert not list(tmp_path.glob("mizzen-*/*")), "a run that is over leaves nothing in memory"


def test_a_driver_that_dies_is_followed_by_one_that_goes_on_from_memory(nodes: RayNodes, tmp_path: Path) -> None:
    made = job(tmp_path, "heads")
    driver = [sys.executable, "-m", "tests.runtime.train.group_driver", nodes.address, str(tmp_path)]
    first = subprocess.Popen(driver, env={**os.environ, "GROUP_JOB": json.dumps(asdict(made))})
    until(lambda: steps_done(tmp_path) > 27)
    first.kill()
    first.wait()
    running = Running(made, Settings(1, 1))
    check(running.end(), tmp_path, 6)
    ((_, step, source),) = running.heard.began
    assert source == "snapshot"
    assert step % SNAPSHOT_EVERY == 0
    assert step >= 25


def test_code_that_fails_at_once_ends_the_run_and_code_that_hangs_is_ended(nodes: RayNodes, tmp_path: Path) -> None:
    settings = Settings(1, 2, patience=60.0, stall_floor=1.0, stop_patience=1.0, failures=2)
    running = Running(job(tmp_path, "hang", trouble=(30, 1, "hang")), settings)
    check(running.end(), tmp_path, 6)
    assert [news.restarts for news in running.heard.recovered] == [1]
    other = tmp_path / "other"
    other.mkdir()
    outcome = Running(job(other, "bug", trouble=(7, 0, "bug")), settings).end()
    assert outcome.failure is not None
    assert outcome.failure.text.startswith(
        "workers failed 2 times at step 7, the last time: ValueError: no luck at step 7"
    )


def test_a_training_function_goes_on_from_what_it_saved(nodes: RayNodes, version: Version, tmp_path: Path) -> None:
    steps = 150
    plan = TrainPlan(
        "text-bag", {"embedding_dim": 8}, version.uri, version.fingerprint, learning_rate=0.05, batch_size=64
    )
    made = Job(
        plan.to_dict(),
        Keeping(f"function-{os.getpid()}", str(tmp_path / "store"), memory=(str(tmp_path),)),
        str(tmp_path),
        function="tests.runtime.train.group_under_test:train",
        settings={"steps": steps},
    )
    running = Running(made, Settings(1, 2, patience=60.0))
    running.steps_with(2)
    victim = next(iter(running.group.processes().values()))
    os.kill(victim[1], signal.SIGKILL)
    outcome = running.end()
    assert outcome.failure is None
    assert outcome.step == steps
    assert all(step % 5 == 0 for _, step, _ in running.heard.began), "what was saved, and nothing else"
    assert len(running.heard.began) >= 2
    assert outcome.metrics["loss"] < 0.9, "chance has 1.1"
    assert outcome.metrics["test_accuracy"] > outcome.metrics["test_majority_rate"], "for the gates"
    trained = artifact.load(tmp_path / "final")
    assert trained.recipe.model == "text-bag"


PEER = """
import sys
import torch
import torch.distributed as dist
from mizzen.train.group.process_group import Formation, form

form(Formation(1, int(sys.argv[2]), 2, "g", "127.0.0.1", int(sys.argv[1])))
print("formed", flush=True)
while True:
    dist.all_reduce(torch.ones(1000))
"""

WAITING = """
import threading, time
from mizzen.train.group import process_group
not_gloo = process_group.listening()
port = int(sys.argv[1])

def cut():
    sys.stdin.readline()
    print(process_group.cut({"127.0.0.1"}, not_gloo, port), flush=True)

threading.Thread(target=cut, daemon=True).start()
"""


def test_a_peer_that_is_silent_is_cut_from_this_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after the loss of a node whose kernel sends no farewell: the call that waits for it raises."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    meeting = Rendezvous("127.0.0.1")
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(meeting.port), str(rank)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank, code in enumerate((PEER.replace("form(Formation", WAITING + "form(Formation"), PEER))
    ]  # fmt: skip
    try:
        for rank in ranks:
            assert rank.stdout is not None
            assert rank.stdout.readline() == "formed\n"
        ranks[1].send_signal(signal.SIGSTOP)
        said, errors = ranks[0].communicate("now\n", timeout=30)
        assert int(said) >= 1
        assert "RuntimeError" in errors
        assert "Connection closed by peer" in errors
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()
