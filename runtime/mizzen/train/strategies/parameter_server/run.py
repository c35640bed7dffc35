"""The driver's side: workers on the nodes that are there, each on its own, and one coordinator beside the driver.

The same members on the same nodes as in group.run. But nobody is stopped when another comes or goes.
"""

from __future__ import annotations

import logging
import secrets
import time
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mizzen.train.group import messages as m
from mizzen.train.group.base import CLOSE_SECONDS, BaseGroup, Listener, Past
from mizzen.train.group.job import Job
from mizzen.train.group.member import Letter
from mizzen.train.group.messages import Failure, Fault, Outcome, Settings
from mizzen.train.group.nodes import Slots
from mizzen.train.group.process_group import Formation
from mizzen.train.group.station import Report
from mizzen.train.strategies.parameter_server.coordinator import Coordinator
from mizzen.train.strategies.parameter_server.messages import Progress

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 0.5
SAVE_SECONDS = 60.0
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0  # seconds until the next worker is tried where one was lost
NODE_MISSES = 3  # tries that a node's death may cost before it is known
_CALLS = 1000  # that wait in the coordinator at once


@dataclass
class Worker:
    """A member, from its start to its end."""

    number: int
    place: str
    address: str
    heard: float
    is_ready: bool = False
    trains: bool = False


@dataclass
class Place:
    """Where a worker may be. A node that is dead is known as such only after seconds, in which nothing starts there."""

    address: str
    misses: int = 0
    free_at: float = 0.0

    def miss(self, now: float, *, is_ready: bool) -> int:
        """A worker was lost here: how many in a row never became ready."""
        self.misses = 0 if is_ready else self.misses + 1
        self.free_at = now + min(LONGEST_WAIT, FIRST_WAIT * 2**self.misses)
        return self.misses


class ServedGroup(BaseGroup):
    """Each worker trains at its own pace."""

    def __init__(
        self,
        job: Job,
        settings: Settings,
        host: str,
        *,
        slots: Slots | None = None,
        listener: Listener | None = None,
        past: Past | None = None,
    ) -> None:
        name = f"coordinator-{secrets.token_hex(4)}"
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(Coordinator).options(
            name=name, num_cpus=0, max_concurrency=_CALLS, max_restarts=0, scheduling_strategy=here
        )
        self._coordinator = actor.remote(job.plan, job.keeping, name)
        super().__init__(replace(job, coordinator=name), slots, listener)
        self._settings, self._host, self._past = settings, host, past or Past()
        self._places: dict[str, Place] = {}
        self._leaving: set[str] = set()  # addresses
        self._workers: dict[int, Worker] = {}
        self._started = self._failures = 0
        self._progress = Progress(0, 0, 0, [], 0, {}, {}, ())
        self._asked: Any = None
        self._asked_at = time.monotonic()
        self._lost_at: float | None = None  # a failure that no step has followed yet
        self._began = False
        self._count = -1

    def has_left(self, address: str) -> bool:
        return all(worker.address != address for worker in list(self._workers.values()))

    def _turn(self) -> None:
        super()._turn()
        self._look_at_silent_ones()
        self._fill_places()
        self._let_train()
        self._hear_progress()

    def _handle(self, news: m.News) -> None:
        match news:
            case m.NodeUp(place, address):
                self._places[place] = Place(address)
            case m.NodeDown(place):
                self._places.pop(place, None)
            case m.Ready(member) if member in self._workers:
                self._workers[member].is_ready = True
            case m.Gone(member, why):
                self._lost(member, Failure(Fault.OWN, why))
            case m.Broke(member, _, _, failure):
                self._broke(member, failure)
            case m.Notice(address):
                self._leaving.add(address)
                self._end([worker for worker in self._workers.values() if worker.address == address])
            case m.Scale(least, most):
                self._settings = replace(self._settings, least=least, most=most)
                self._end(list(self._workers.values())[most:])
            case m.Stop():
                self._save(SAVE_SECONDS)
                self._outcome = Outcome(self._progress.step, stopped=True)

    def _fill_places(self) -> None:
        """A worker at each place that has none, up to the wanted number."""
        taken = {worker.place for worker in self._workers.values()}
        now = time.monotonic()
        for name, place in self._places.items():
            is_free = name not in taken and place.address not in self._leaving and place.free_at <= now
            if is_free and len(self._workers) < self._settings.most:
                self._started += 1
                self._workers[self._started] = Worker(self._started, name, place.address, now)
                self._nodes.start(m.Start(self._started, name, place.address))

    def _let_train(self) -> None:
        """Nobody trains below the least number; above, each begins as soon as it is ready."""
        ready = [worker for worker in self._workers.values() if worker.is_ready]
        enough = len(ready) >= self._settings.least
        if self._began or enough:
            for worker in ready:
                if not worker.trains and enough:
                    worker.trains = True
                    formation = Formation(worker.number, 0, 1, "", self._host, 0)
                    self._nodes.form([worker.number], lambda _, one=formation: one)  # type: ignore[misc]
        count = sum(worker.trains for worker in ready)
        if count != self._count:
            self._count = count
            self._coordinator.hold.remote(not enough)
            self._listener.on_workers(count if enough else 0)
            self._listener.say("" if enough or not self._began else f"waiting for {self._settings.least} workers")

    def _broke(self, member: int, failure: Failure) -> None:
        if failure.fault is Fault.USER:
            self._outcome = Outcome(self._progress.step, failure=failure)
            return
        self._nodes.kill(member)
        self._lost(member, failure)

    def _lost(self, member: int, failure: Failure) -> None:
        """Others go on; a new one takes its place. Failures without a step between them end the run."""
        worker = self._workers.pop(member, None)
        if worker is None or self._progress.concluded:
            return
        log.warning("worker %d at %s: %s", member, worker.address, failure.text)
        self._leave(member)
        if worker.is_ready:
            self._failures += 1
            self._lost_at = self._lost_at or time.monotonic()
        place = self._places.get(worker.place)
        misses = place.miss(time.monotonic(), is_ready=worker.is_ready) if place is not None else 0
        if max(self._failures, misses - NODE_MISSES) > self._settings.failures:
            self._outcome = Outcome(self._progress.step, failure=failure)

    def _end(self, workers: list[Worker]) -> None:
        """On purpose: what they had in hand goes to others."""
        for worker in workers:
            del self._workers[worker.number]
            self._leave(worker.number)
            self._nodes.kill(worker.number)

    def _leave(self, member: int) -> None:
        self._coordinator.leave.remote(member)

    def _look_at_silent_ones(self) -> None:
        """A process that is stopped still has a kernel that answers for it."""
        limit = time.monotonic() - self._settings.stall_floor
        for worker in [one for one in self._workers.values() if one.is_ready and one.heard < limit]:
            self._nodes.kill(worker.number)
            self._lost(worker.number, Failure(Fault.OWN, f"the worker at {worker.address} hangs"))

    def _hear_progress(self) -> None:
        now = time.monotonic()
        if self._asked is None and now - self._asked_at >= PROGRESS_SECONDS:
            self._asked, self._asked_at = self._coordinator.progress.remote(), now
        if self._asked is None or not ray.wait([self._asked], timeout=0)[0]:
            return
        try:
            progress: Progress = ray.get(self._asked)
        except RayError as error:
            self._outcome = Outcome(failure=Failure(Fault.OWN, f"the coordinator is lost: {type(error).__name__}"))
            return
        self._asked = None
        self._tell(progress, now)
        if progress.concluded:
            self._outcome = Outcome(progress.step, progress.metrics)

    def _tell(self, progress: Progress, now: float) -> None:
        before, self._progress = self._progress, progress
        if progress.started_from is not None and not self._began:
            self._began = True
            self._listener.on_began(max(1, self._count), *progress.started_from)
        if progress.step > before.step:
            self._failures = 0
            if self._lost_at is not None:
                self._listener.on_recovered(
                    m.Recovered(now - self._lost_at, self._past.lost_steps, self._past.restarts)
                )
                self._lost_at = None
        self._listener.on_kept(progress.snapshot, progress.checkpoint, progress.trouble)
        metrics = progress.metrics if progress.metrics != before.metrics else {}
        if progress.losses or metrics:
            loss = {"loss": sum(progress.losses) / len(progress.losses)} if progress.losses else {}
            self._listener.on_report(
                Report(
                    progress.step, progress.total_steps, progress.epoch, progress.rows,
                    progress.rows / progress.seconds, {**loss, **metrics}, progress.counters, progress.notes,
                )
            )  # fmt: skip

    def _letter(self, number: int, letter: Letter) -> None:  # noqa: ARG002
        if number in self._workers:
            self._workers[number].heard = time.monotonic()

    def _save(self, seconds: float) -> bool:
        try:
            return bool(ray.get(self._coordinator.save.remote(), timeout=seconds))
        except RayError as error:
            log.warning("no checkpoint just in time: %s", error)
            return False

    def _close(self, *, keep: bool) -> None:
        super()._close(keep=keep)
        try:
            ray.get(self._coordinator.close.remote(keep), timeout=CLOSE_SECONDS)
        except RayError as error:
            log.warning("the coordinator did not close: %s", error)
        ray.kill(self._coordinator, no_restart=True)
