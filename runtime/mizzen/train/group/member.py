"""One process of the group: a Ray actor whose training thread does the work, while its other threads hear and tell."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mizzen.errors import UserError
from mizzen.train.group import process_group
from mizzen.train.group.job import Job
from mizzen.train.group.messages import Broke, Failure, Fault, Finished, News, Ready
from mizzen.train.group.process_group import Formation
from mizzen.train.group.station import Kept, Regroup, Report, Station

if TYPE_CHECKING:
    from mizzen.train.group.work import Work

log = logging.getLogger(__name__)

_CUT_SECONDS = 4.0
_DOOR_BACKLOG = 512  # knocks that are not looked at while the interpreter is busy


@dataclass(frozen=True)
class Letter:
    """What a poll brings to the driver. `door` is a port on which the member's kernel answers while it lives."""

    pid: int
    door: int
    news: list[News]
    reports: list[Report]
    kept: Kept
    note: str = ""


class Member:
    """The actor. Its methods return at once, but for `poll`; orders carry their generation and may arrive twice."""

    def __init__(self, number: int, address: str, job: Job) -> None:
        if address.startswith("127."):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        self._number, self._job = number, job
        self._station = Station(number)
        self._door = socket.create_server((address, 0), backlog=_DOOR_BACKLOG)
        self._door.setblocking(False)
        self._not_gloo = process_group.listening()
        self._store_port = 0
        self._work: Work | None = None
        threading.Thread(target=self._live, name="training", daemon=True).start()

    def poll(self, seconds: float) -> Letter:
        """News as soon as there are some; after so many seconds a sign of life."""
        news, reports = self._station.take(seconds)
        with contextlib.suppress(OSError):
            while True:  # those who knocked to see whether this process lives
                self._door.accept()[0].close()
        door = int(self._door.getsockname()[1])
        return Letter(os.getpid(), door, news, reports, self._station.kept, self._station.note)

    def form(self, formation: Formation) -> None:
        self._store_port = formation.store_port
        self._station.order(formation)

    def hold(self, generation: int, step: int, save: bool) -> None:
        self._station.hold(generation, step, save)

    def abort(self, generation: int, lost: tuple[str, ...]) -> None:
        def cut() -> None:
            process_group.cut(lost, self._not_gloo, self._store_port)
            process_group.abort_devices()

        self._station.abort(generation, cut, _CUT_SECONDS)

    def close(self, keep: bool) -> None:
        """The last call."""
        if self._work is not None:
            self._work.close(keep=keep)

    def _live(self) -> None:
        station = self._station
        try:
            work = _work_of(self._job, station)
            work.prepare()
            self._work = work
        except BaseException as error:
            station.out(Broke(self._number, 0, 0, self._failure(error)))
            return
        station.tell(Ready(self._number))
        while True:
            formation = station.next_formation()
            ending = self._train(work, formation)
            process_group.leave()
            station.out(*ending)

    def _train(self, work: Work, formation: Formation) -> list[News]:
        number, generation, station = self._number, formation.generation, self._station
        try:
            metrics = work.train(formation)
        except Regroup:
            told = Failure(Fault.PEER, "told to leave the group")
            return [Broke(number, generation, station.step, told)] if station.is_aborted else []
        except BaseException as error:
            failure = self._failure(error)
            trace = None if failure.fault is Fault.PEER else error
            log.warning("rank %d stops at step %d: %s", formation.rank, station.step, failure.text, exc_info=trace)
            return [Broke(number, generation, station.step, failure)]
        return [Finished(number, generation, station.step, metrics if formation.rank == 0 else {})]

    def _failure(self, error: BaseException) -> Failure:
        from mizzen import entrypoints

        if isinstance(error, UserError):
            return Failure(Fault.USER, error.message, str(error.reason))
        if self._station.is_aborted or process_group.is_peer_error(error):
            return Failure(Fault.PEER, str(error)[:500])
        return Failure(Fault.OWN, entrypoints.told(error)[:500])


def _work_of(job: Job, station: Station) -> Work:
    if job.function:
        from mizzen.train.group.function import FunctionWork

        return FunctionWork(job, station)
    if job.coordinator:
        from mizzen.train.strategies.parameter_server.work import ServedWork

        return ServedWork(job, station)
    from mizzen.train.group.work import LoopWork

    return LoopWork(job, station)
