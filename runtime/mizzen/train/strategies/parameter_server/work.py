"""What a member of the group does under a parameter server: pieces, evaluations, the end, as the coordinator says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import ray

from mizzen import entrypoints
from mizzen.train.group.job import Job
from mizzen.train.group.messages import Began
from mizzen.train.group.process_group import Formation
from mizzen.train.group.station import EVALUATE, SAVE, Station
from mizzen.train.group.work import publish
from mizzen.train.seams import Place, TrainState
from mizzen.train.strategies.parameter_server.client import Client
from mizzen.train.strategies.parameter_server.messages import Done, Kind, Work
from mizzen.train.strategies.parameter_server.strategy import ParameterServer
from mizzen_api import contract

if TYPE_CHECKING:
    from mizzen.train.loop import Loop

WAIT = "wait for other workers"


class ServedWork:
    """A member's Work. It is alone in its group: others may come, go and hang without its noticing."""

    def __init__(self, job: Job, station: Station) -> None:
        self.job, self.station = job, station
        self._metrics: dict[str, float] = {}

    def prepare(self) -> None:
        self.loop: Loop = entrypoints.load(self.job.build, "build")(self.job.plan)
        self.loop.join(Place())

    def train(self, formation: Formation) -> dict[str, float]:
        loop, station = self.loop, self.station
        strategy = loop.crew.strategy
        assert isinstance(strategy, ParameterServer)
        coordinator = ray.get_actor(self.job.coordinator)
        self._client = Client(coordinator, station.member, loop.root, loop.plan.compression)
        self._client.join(len(loop.train_part))
        strategy.client = self._client
        station.at_step(0)
        station.tell(Began(station.member, formation.generation, 0))
        done: Done | None = None
        while (work := self._next(done)).kind is not Kind.END:
            done = self._do(work, strategy)
            station.stepped(work.step)
        return self._metrics

    def close(self, *, keep: bool) -> None:
        """The coordinator keeps what is worth it."""

    def _next(self, done: Done | None) -> Work:
        with self.station.doing(WAIT):
            return self._client.next(done)

    def _do(self, work: Work, strategy: ParameterServer) -> Done:
        self._client.pull()
        if work.kind is Kind.EVALUATE:
            return Done(work, metrics=self._evaluate(contract.SPLITS[1], "validation_"))
        if work.kind is Kind.CONCLUDE:
            self._metrics = self._evaluate(contract.SPLITS[2], "test_")
            self._conclude()
            return Done(work, metrics=self._metrics)
        return self._gradient(work, strategy)

    def _gradient(self, work: Work, strategy: ParameterServer) -> Done:
        loop, client, piece = self.loop, self._client, work.piece
        assert piece is not None
        strategy.work, strategy.pushed = work, False
        state = loop.state
        state.step, state.epoch, state.row = piece.step, piece.epoch, piece.row
        rows = loop.rows()[piece.row : piece.row + piece.count][piece.index :: piece.of]
        shape = loop.schedule.at(TrainState(epoch=piece.epoch, row=piece.row))
        crew = replace(loop.crew, place=Place(piece.index, 1))  # random numbers are functions of step and rank
        loss = loop.stepper.step(crew, state, rows, shape)
        residual = client.residual() if work.keep else None
        return Done(work, strategy.pushed, loss, {}, client.buffers(), residual, loop.counters(), client.note)

    def _evaluate(self, split: str, prefix: str) -> dict[str, float]:
        with self.station.doing(EVALUATE):
            found = self.loop.evaluate(split)
        return {
            f"{prefix}{name}": value for name, value in found.items() if name != "majority_rate" or prefix == "test_"
        }

    def _conclude(self) -> None:
        self.loop.check_weights()
        with self.station.doing(SAVE):
            publish(self.loop.save, Path(self.job.run_folder))
