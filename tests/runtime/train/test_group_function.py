"""A training function of the user's own, on one rank in this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from mizzen.data.materialize import Version
from mizzen.errors import UserError
from mizzen.models import artifact
from mizzen.train.group import process_group
from mizzen.train.group.function import Context, FunctionWork, _flattened, _whole
from mizzen.train.group.job import Job
from mizzen.train.group.keeping import Keeping
from mizzen.train.group.messages import Began, Held
from mizzen.train.group.process_group import Formation, Rendezvous
from mizzen.train.group.station import Regroup, Station
from mizzen.train.plan import TrainPlan

Function = Callable[[Context], None]


class Rank:
    """One member's work without the member."""

    def __init__(self, version: Version, folder: Path, function: Function) -> None:
        plan = TrainPlan(
            "text-bag", {"embedding_dim": 8}, version.uri, version.fingerprint, learning_rate=0.05, batch_size=64
        )
        keeping = Keeping(f"function-{os.getpid()}", "", snapshot_every=2, memory=(str(folder),))
        job = Job(plan.to_dict(), keeping, str(folder), function="tests.runtime.train.group_under_test:train")
        self.station = Station(1)
        self.work = FunctionWork(job, self.station)
        self.work.prepare()
        self.work._function = function
        self._meeting, self._generation = Rendezvous("127.0.0.1"), 0

    def train(self) -> dict[str, float]:
        self._generation += 1
        name = str(self._generation)
        self.station.order(Formation(self._generation, 0, 1, name, self._meeting.host, self._meeting.port))
        try:
            return self.work.train(self.station.next_formation())
        finally:
            process_group.leave()


@pytest.fixture
def rank(version: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Function], Rank]]:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    made: list[Rank] = []

    def make(function: Function) -> Rank:
        made.append(Rank(version, tmp_path, function))
        return made[-1]

    yield make
    for one in made:
        one.work.close(keep=False)


def few_steps(context: Context, until: int = 4) -> None:
    model = context.model()
    optimizer = torch.optim.Adam(model.parameters(), lr=context.config["learning_rate"])
    counts = {"seen": 0}
    step = context.restore(model=model, optimizer=optimizer, counts=counts)
    for inputs, targets in list(context.shard("train").batches(64))[step:until]:
        loss = torch.nn.functional.cross_entropy(model(*inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step, counts["seen"] = step + 1, counts["seen"] + len(targets)
        context.report({"loss": loss.item()}, step=step)
        context.save(step=step, model=model, optimizer=optimizer, counts=counts)


def test_what_it_leaves_is_measured_and_written(rank: Callable[[Function], Rank], tmp_path: Path) -> None:
    metrics = rank(few_steps).train()
    assert metrics["loss"] > 0
    assert 0 <= metrics["test_accuracy"] <= 1
    assert artifact.load(tmp_path / "final").recipe.model == "text-bag"


def test_it_is_called_again_from_where_it_saved(rank: Callable[[Function], Rank]) -> None:
    one = rank(few_steps)
    seen: list[int] = []

    def held_after_two(context: Context) -> None:
        seen.append(context.restore())
        one.station.hold(1, 2, save=False)
        if len(seen) == 1:
            one.station.order(Formation(2, 0, 1, "2", one._meeting.host, one._meeting.port))
        few_steps(context)

    one.work._function = held_after_two
    with pytest.raises(Regroup):
        one.train()
    news, _ = one.station.take(0)
    assert Held(1, 1, 2) in news
    one.train()
    assert seen == [0, 2]
    assert Began(1, 2, 2, "memory") in one.station.take(0)[0]


def never_asks(context: Context) -> None:
    context.report({"loss": 1.0}, step=1)


def saves_an_object(context: Context) -> None:
    context.save(step=1, thing={"x": object()})


def restores_another(context: Context) -> None:
    context.save(step=1, model=context.model())
    context.restore(optimizer={})


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (never_asks, r"trainer.entrypoint trained no model: take it from context.model\(\)"),
        (saves_an_object, "trainer.entrypoint cannot save thing/x, which is of type object: save tensors, numbers"),
        (restores_another, "trainer.entrypoint restores optimizer, and saved model"),
    ],
)
def test_what_the_user_must_mend_is_said(rank: Callable[[Function], Rank], function: Function, words: str) -> None:
    with pytest.raises(UserError, match=words):
        rank(function).train()
    assert not dist.is_initialized()


def test_states_are_taken_apart_and_put_together_without_pickle() -> None:
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    tensors: dict[str, torch.Tensor] = {}
    leaves = _flattened("optimizer", optimizer.state_dict(), tensors)
    assert sorted(tensors)[0] == "optimizer/state/0/exp_avg"
    other: Any = torch.optim.Adam(torch.nn.Linear(3, 2).parameters(), lr=0.5)
    other.load_state_dict(_whole(leaves, tensors))
    assert other.param_groups[0]["lr"] == 0.1
    found = other.state_dict()["state"][0]["exp_avg"]
    torch.testing.assert_close(found, optimizer.state_dict()["state"][0]["exp_avg"])
