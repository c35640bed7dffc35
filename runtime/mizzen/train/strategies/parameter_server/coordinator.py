"""The actor that all workers ask: what to work on, how a gradient counts, when a batch is whole; it keeps checkpoints.

It holds no gradient and, but for the snapshot, no weights: these go between workers and servers directly.
"""

from __future__ import annotations

import asyncio
import logging
import statistics
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch

from mizzen.train.checkpoints.restore import Restored
from mizzen.train.group.keeping import Keeper, Keeping
from mizzen.train.plan import TrainPlan
from mizzen.train.schedule import Schedule
from mizzen.train.seams import Place, TrainState
from mizzen.train.step import MICRO_BATCH, SKIPPED
from mizzen.train.strategies.parameter_server.ledger import Answer, Ledger, Piece, Position, Verdict
from mizzen.train.strategies.parameter_server.messages import Arrays, Done, Kind, Model, Progress, Welcome, Work
from mizzen.train.strategies.parameter_server.server import Part, Server
from mizzen.train.strategies.parameter_server.shard import OptimizerSettings
from mizzen.train.strategies.parameter_server.whole import Whole, piece_names
from mizzen_api.trainingjob_trainer import ParameterServer

log = logging.getLogger(__name__)

LEDGER = "parameter_server"  # of TrainState.extras
PATIENCE, LEAST_PATIENCE = 10.0, 10.0  # times the usual time of a piece, and seconds, after which none waits for it
_RESTARTS = {"max_restarts": -1, "max_task_retries": -1}


@dataclass
class _Begun:
    """All that is there once the first worker has brought the model."""

    whole: Whole
    ledger: Ledger
    schedule: Schedule
    servers: list[Any]


class Coordinator:
    """An asynchronous actor: its methods take turns at each await, and nothing else runs between."""

    def __init__(self, plan: dict[str, Any], keeping: Keeping, name: str) -> None:
        torch.set_num_threads(1)
        self.plan = TrainPlan.from_dict(plan)
        self.settings = self.plan.parameter_server or ParameterServer()
        self._keeper = Keeper(keeping)
        self._keeper.regroup(Place(), name)
        self._every = min(keeping.snapshot_every, keeping.checkpoint_every)
        self._begun: _Begun | None = None
        self._shapes: Model | None = None
        self._beginner = -1
        self._changed = asyncio.Condition()
        self._keeping = asyncio.Lock()  # `whole` is filled and read by one at a time
        self._chores: list[Work] = []  # evaluations, and the end
        self._doing: dict[int, tuple[Work, float]] = {}
        self._took: deque[float] = deque(maxlen=64)
        self._gone: set[int] = set()
        self._residuals: dict[int, torch.Tensor] = {}
        self._told: dict[int, dict[str, float | str]] = {}  # what workers count
        self._losses: list[float] = []
        self._rows = self._kept_step = self._durable_step = self._began_at = 0
        self._asked_at = time.monotonic()
        self._held = False
        self._evaluated = 0  # epochs
        self._concluding = self._concluded = False
        self._source = ""
        self._notes: list[str] = []

    # Workers.

    async def join(self, worker: int, model: Model) -> Welcome:
        """The first one brings the weights, with `begin`; the others wait for it."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._begun is not None or self._beginner in (-1, worker))
            if self._begun is None:
                self._beginner, self._shapes = worker, model
                return Welcome([], begin=True)
        begun = self._begun
        begun.ledger.join(worker)
        await self._tell()
        whole = begun.whole
        residual = None if whole.residual is None else whole.residual.numpy()
        buffers = {name: value.numpy() for name, value in whole.buffers_now().items()}
        return Welcome(begun.servers, buffers=buffers, residual=residual)

    async def begin(self, worker: int, weights: Arrays) -> None:
        """Weights as they were built; what is kept of the run takes their place."""
        if self._begun is not None or worker != self._beginner:
            return
        assert self._shapes is not None
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}
        state = TrainState(config_hash=self.plan.config_hash)
        whole = Whole(self._shapes.shapes, self.settings.servers, tensors, state)
        restored = await asyncio.to_thread(self._restore)
        if self._begun is not None:  # by another, where this one was taken for dead meanwhile
            return
        if restored is not None:
            restored.into(whole)
        ledger = self._ledger(self._shapes.rows, whole.state)
        me = ray.get_runtime_context().current_actor
        actor = ray.remote(Server).options(num_cpus=0, scheduling_strategy="SPREAD", **_RESTARTS)
        self._begun = _Begun(whole, ledger, self._schedule(self._shapes.rows, 1), [])
        self._begun.servers = [actor.remote(me, index) for index in range(len(whole.cut))]
        self._kept_step = self._durable_step = self._began_at = whole.state.step
        self._evaluated = whole.state.epoch
        await self._tell()

    async def next(self, worker: int, done: Done | None) -> Work:
        """Take a worker's last work, and wait until there is more."""
        begun = self._is_begun()
        work, since = self._doing.pop(worker, (None, 0.0))
        if work is not None and work.kind is Kind.TRAIN:
            self._took.append(time.monotonic() - since)
        if done is not None:
            await self._finish(begun, worker, done)
            await self._tell()
        while worker not in self._gone:  # a call of the dead must not take what nobody would do
            work = self._work(begun, worker)
            if work is not None:
                self._doing[worker] = work, time.monotonic()
                return work
            async with self._changed:
                try:
                    await asyncio.wait_for(self._changed.wait(), timeout=1.0)
                except TimeoutError:
                    self._lose_patience(begun.ledger)
        return Work(Kind.END)

    async def settle(self, worker: int, piece: Piece) -> Verdict:
        """Before a push: how the gradient counts."""
        verdict = self._is_begun().ledger.settle(worker, piece)
        if not verdict.scale:
            await self._tell()
        return verdict

    async def part(self, server: int) -> Part:
        """For a server that begins, or begins again: the newest snapshot's part."""
        begun = self._is_begun()
        if begun.whole.state.step < begun.ledger.steps_done:
            log.warning("server %d goes on from the snapshot of step %d", server, begun.whole.state.step)
            self._notes.append(f"a parameter server was lost: its part went back to step {begun.whole.state.step}")
        plan = self.plan
        settings = OptimizerSettings(plan.optimizer, plan.momentum, plan.weight_decay)
        return Part(begun.whole.cut[server], settings, begun.whole.part(server, begun.ledger.version))

    # The driver.

    async def leave(self, worker: int) -> None:
        """It is gone: nobody waits for it, and its work goes to others."""
        self._gone.add(worker)
        work, _ = self._doing.pop(worker, (None, 0.0))
        if work is not None and work.kind in (Kind.EVALUATE, Kind.CONCLUDE):
            self._chores.append(work)
        self._residuals.pop(worker, None)
        if self._beginner == worker and self._begun is None:
            self._beginner = -1
        if self._begun is not None:
            self._begun.ledger.leave(worker)
        await self._tell()

    async def hold(self, held: bool) -> None:
        """There are too few workers: no new work."""
        self._held = held
        await self._tell()

    async def progress(self) -> Progress:
        kept, now = self._keeper.kept, time.monotonic()
        begun, losses, rows, seconds = self._begun, self._losses, self._rows, max(1e-3, now - self._asked_at)
        self._asked_at = now
        self._losses, self._rows = [], 0
        if begun is None:
            return Progress(0, 0, 0, [], 0, {}, {}, (), kept.snapshot, kept.checkpoint, kept.trouble)
        state, step = begun.whole.state, begun.ledger.steps_done
        return Progress(
            step, begun.schedule.total_steps(), begun.ledger.epochs_done, losses, rows, dict(state.metrics),
            self._counters(begun), tuple(dict.fromkeys(self._notes)), kept.snapshot, kept.checkpoint, kept.trouble,
            (self._began_at, self._source), self._concluded, seconds,
        )  # fmt: skip

    async def save(self) -> bool:
        """Make what is there durable, now."""
        if self._begun is None:
            return False
        async with self._keeping:
            await self._collect(self._begun)
            return await asyncio.to_thread(self._keeper.save, self._begun.whole)

    async def close(self, keep: bool) -> None:
        await asyncio.to_thread(lambda: self._keeper.close(keep=keep))

    def _work(self, begun: _Begun, worker: int) -> Work | None:
        ledger = begun.ledger
        if self._held and not self._concluded:
            return None
        if self._chores:
            return self._chores.pop(0)
        if self._concluded:
            return Work(Kind.END)
        answer = ledger.ask(worker)
        if isinstance(answer, Piece):
            place = TrainState(step=answer.step, epoch=answer.epoch, row=answer.row)
            schedule = self._schedule(ledger.rows, len(ledger.workers))
            near = (answer.step + 2) // self._every > self._kept_step // self._every
            rate = schedule.at(place).lr
            return Work(Kind.TRAIN, ledger.steps_done, answer.epoch, answer, rate, ledger.is_sync(answer.step), near)
        busy = any(work.kind is not Kind.TRAIN for work, _ in self._doing.values())
        if answer is Answer.END and not busy and not self._concluding:
            self._concluding = True
            return Work(Kind.CONCLUDE, ledger.steps_done, ledger.epochs)
        return None

    async def _finish(self, begun: _Begun, worker: int, done: Done) -> None:
        work, state = done.work, begun.whole.state
        if work.kind is Kind.EVALUATE:
            state.metrics |= done.metrics
        elif work.kind is Kind.CONCLUDE:
            self._concluded = True
            state.metrics |= done.metrics
        elif work.piece is not None:
            self._note(worker, work.piece, done)
            step = begun.ledger.finish(worker, work.piece, pushed=done.pushed)
            if step is not None:
                await self._apply(begun, step, work.learning_rate)
            await self._after(begun)

    def _note(self, worker: int, piece: Piece, done: Done) -> None:
        begun = self._is_begun()
        self._losses.append(done.loss)
        self._rows += piece.rows if done.pushed else 0
        self._told[worker] = done.counters
        if done.note and done.note not in self._notes:
            self._notes.append(done.note)
        begun.whole.buffers({name: torch.from_numpy(np.array(value)) for name, value in done.buffers.items()})
        if done.residual is not None:
            self._residuals[worker] = torch.from_numpy(np.array(done.residual))

    async def _apply(self, begun: _Begun, step: int, learning_rate: float) -> None:
        version = begun.ledger.version
        await asyncio.gather(*(server.apply.remote(version, learning_rate) for server in begun.servers))
        begun.ledger.applied(step)

    async def _after(self, begun: _Begun) -> None:
        """What is due every few steps, and at the end of an epoch."""
        ledger = begun.ledger
        epochs = ledger.epochs_done
        if epochs > self._evaluated:
            self._evaluated = epochs
            self._chores.append(Work(Kind.EVALUATE, ledger.steps_done, epochs))
        if ledger.steps_done // self._every > self._kept_step // self._every:
            self._kept_step = ledger.steps_done
            async with self._keeping:
                await self._collect(begun)
                self._keeper.take(begun.whole, durable=self._is_durable(ledger.steps_done))

    async def _collect(self, begun: _Begun) -> None:
        """Everything into `whole`. The ledger is read first: a push in between is then known to its server alone."""
        ledger, whole = begun.ledger, begun.whole
        kept, step, epoch = ledger.to_dict(), ledger.steps_done, ledger.epochs_done
        states = list(await asyncio.gather(*(server.state.remote() for server in begun.servers)))
        whole.fill(states, piece_names(kept["open"]))
        if self._residuals:
            whole.residual = torch.stack(list(self._residuals.values())).mean(0)
        whole.state.step, whole.state.epoch = step, epoch
        whole.state.row = kept["position"][2] if kept["position"][1] == epoch else 0
        whole.state.extras[LEDGER] = kept

    def _restore(self) -> Restored | None:
        """The newest of what is in memory here and what is durable."""
        here, durable = self._keeper.in_memory(), self._keeper.durable(self._notes.append)
        if here is not None and (durable is None or here.state.step >= durable.step):
            self._source = "snapshot"
            return here
        if durable is not None:
            self._source = "checkpoint"
            return self._keeper.open(durable.folder).load()
        return None

    def _ledger(self, rows: int, state: TrainState) -> Ledger:
        settings = self.settings

        def batch_size(place: Position) -> int:
            workers = len(ledger.workers)
            return self._schedule(rows, workers).at(TrainState(epoch=place.epoch, row=place.row)).batch_size

        ledger = Ledger(
            rows, self.plan.epochs, batch_size, settings.mode, settings.staleness, settings.warmup_steps,
            Position(state.step, state.epoch, state.row),
        )  # fmt: skip
        if LEDGER in state.extras:
            ledger.restore(state.extras[LEDGER])
        return ledger

    def _schedule(self, rows: int, workers: int) -> Schedule:
        return Schedule.from_plan(self.plan, rows, self.plan.batch_factor(max(1, workers)))

    def _is_durable(self, step: int) -> bool:
        """Steps may be passed over where updates overtake each other."""
        every = self._keeper.keeping.checkpoint_every
        due = step // every > self._durable_step // every
        if due:
            self._durable_step = step
        return due

    def _counters(self, begun: _Begun) -> dict[str, float | str]:
        """Bytes are those of one worker, as under DDP: of the one that sent most."""
        told = list(self._told.values())
        found: dict[str, float | str] = {"dropped_gradients": begun.ledger.dropped}
        for name, together in (("bytes_sent", max), ("bytes_uncompressed", max), (SKIPPED, sum), (MICRO_BATCH, min)):
            values = [float(one[name]) for one in told if name in one]
            if values:
                found[name] = together(values)
        methods = {str(one["compression"]) for one in told if "compression" in one}
        return {**found, "compression": " and ".join(sorted(methods))} if methods else found

    def _lose_patience(self, ledger: Ledger) -> None:
        """A worker that hangs holds the others back no longer than this."""
        worker = ledger.holding_back()
        if worker is None or worker not in self._doing:
            return
        usual = statistics.median(self._took) if self._took else None
        patience = max(LEAST_PATIENCE, PATIENCE * usual) if usual is not None else 60 * LEAST_PATIENCE
        if time.monotonic() - self._doing[worker][1] > patience:
            log.warning("nobody waits for worker %d any more: it has taken %.0f s", worker, patience)
            ledger.leave_out(worker)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _is_begun(self) -> _Begun:
        assert self._begun is not None, "a worker joins first"
        return self._begun
