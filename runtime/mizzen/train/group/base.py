"""What every kind of group is to its driver: run until an outcome, hear what is told from outside, let pods leave."""

from __future__ import annotations

import queue
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from mizzen.train.group import messages as m
from mizzen.train.group.job import Job
from mizzen.train.group.member import Letter
from mizzen.train.group.messages import Outcome
from mizzen.train.group.nodes import Nodes, Slots
from mizzen.train.group.station import Report

WAIT_SECONDS = 0.1
CLOSE_SECONDS = 10.0


@dataclass
class Listener:
    """What the driver wants to hear; each is called from the thread that runs the group."""

    on_report: Callable[[Report], None] = lambda _: None
    on_began: Callable[[int, int, str], None] = lambda _workers, _step, _source: None
    on_recovered: Callable[[m.Recovered], None] = lambda _: None
    on_kept: Callable[[int, int, str], None] = lambda _snapshot, _checkpoint, _trouble: None
    on_workers: Callable[[int], None] = lambda _: None
    say: Callable[[str], None] = lambda _: None


@dataclass
class Past:
    """What earlier drivers of the run counted."""

    restarts: int = 0
    lost_steps: int = 0
    furthest: int = 0  # step that one of them has seen


class BaseGroup(ABC):
    """One run. `run` blocks; `tell` may be called from other threads, for notices and wanted sizes."""

    def __init__(self, job: Job, slots: Slots | None, listener: Listener | None) -> None:
        self._listener = listener or Listener()
        self._nodes = Nodes(job, slots or Slots(), self._letter)
        self._told: queue.SimpleQueue[m.News] = queue.SimpleQueue()
        self._outcome: Outcome | None = None

    def tell(self, news: m.News) -> None:
        self._told.put(news)

    @abstractmethod
    def has_left(self, address: str) -> bool:
        """Whether a pod that was told to go may go: nothing of the run is there any more."""

    def processes(self) -> dict[int, tuple[str, int]]:
        """Members that answered: address and process id."""
        return self._nodes.processes()

    def run(self) -> Outcome:
        """Until the training has ended, by whatever. A stop that was told ends it with a checkpoint."""
        try:
            while self._outcome is None:
                self._turn()
        finally:
            finished = self._outcome is not None and self._outcome.failure is None and not self._outcome.stopped
            self._close(keep=not finished)
        return self._outcome

    def _turn(self) -> None:
        while not self._told.empty():
            self._handle(self._told.get())
        for news in self._nodes.news(WAIT_SECONDS):
            self._handle(news)

    @abstractmethod
    def _handle(self, news: m.News) -> None: ...

    @abstractmethod
    def _letter(self, number: int, letter: Letter) -> None: ...

    def _close(self, *, keep: bool) -> None:
        """`keep` what another driver could go on from."""
        self._nodes.close(CLOSE_SECONDS, keep=keep)
