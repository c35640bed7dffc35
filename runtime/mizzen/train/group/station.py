"""Between a member's training thread and the controller's calls: news on their way out, orders on their way in."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from mizzen.train.group.messages import Beat, Held, News, Refused
from mizzen.train.group.process_group import Formation

FORM, STEP, EVALUATE, SAVE, IDLE = "form", "step", "evaluate", "save", "idle"
_REMEMBERED = 50  # durations of each activity


class Regroup(BaseException):
    """Unwinds a training whose group changes. Not an Exception, so that code of users lets it pass."""


@dataclass(frozen=True)
class Report:
    """What rank 0 tells about once a second. Counters are of the strategy: bytes, dropped gradients, ..."""

    step: int
    total_steps: int
    epoch: int
    rows: int = 0  # since the last report
    samples_per_second: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    counters: dict[str, float | str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kept:
    """What of the run outlives this process. Steps are -1 where there is none."""

    snapshot: int = -1
    checkpoint: int = -1  # the newest that is durable
    trouble: str = ""  # why the store does not take the next


class Station:
    """One member's. All methods are thread-safe; those of the training thread say so."""

    def __init__(self, member: int) -> None:
        self.member = member
        self.generation = self.step = 0
        self._changed = threading.Condition()
        self._news: list[News] = []
        self._reports: list[Report] = []
        self._order: Formation | None = None
        self._hold: tuple[int, bool] | None = None
        self._aborted = False
        self._doing, self._since = IDLE, time.monotonic()
        self._took: dict[str, deque[float]] = {}
        self._steps_here = 0
        self._inside = False  # the training thread is in a group
        self.kept, self.note = Kept(), ""  # replaced as wholes

    # The training thread.

    def next_formation(self) -> Formation:
        """Wait until there is a group to join."""
        with self._changed:
            self._changed.wait_for(lambda: self._order is not None)
            formation, self._order = self._order, None
            assert formation is not None
            self.generation, self._steps_here = formation.generation, 0
            self._hold, self._aborted, self._inside = None, False, True
            self._begin(FORM)
            return formation

    def out(self, *news: News) -> None:
        """The training thread has left its group."""
        with self._changed:
            self._inside = False
            self._begin(IDLE)
            self._news += news
            self._changed.notify_all()

    def tell(self, *news: News) -> None:
        with self._changed:
            self._news += news
            self._changed.notify_all()

    def report(self, report: Report) -> None:
        with self._changed:
            self._reports.append(report)

    def keep(self, kept: Kept) -> None:
        self.kept = kept

    def say(self, note: str) -> None:
        self.note = note

    @contextlib.contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Something that may take its time; then steps go on."""
        with self._changed:
            self._begin(what)
        yield
        with self._changed:
            self._end()
            self._begin(STEP)

    def at_step(self, step: int) -> None:
        """Where the run is now, without a step done."""
        with self._changed:
            self.step = step
            self._begin(STEP)

    def stepped(self, step: int) -> None:
        """A step is done."""
        with self._changed:
            self.step = step
            if self._steps_here or not self._took.get(STEP):
                self._end()
            self._steps_here += 1
            self._begin(STEP)
            if self._steps_here == 1:  # the group is well again: told at once
                self._news.append(self._beat())
                self._changed.notify_all()

    def alive(self) -> None:
        """Something goes on that is no step."""
        with self._changed:
            self._begin(self._doing)

    def boundary(self, step: int, save: Callable[[], None], *, always: bool = False) -> None:
        """Between two steps: go on, or wait here as the controller said. Regroup where there is a new group.

        `save` makes the step durable where the controller says so, or `always` before waiting.
        """
        while True:
            with self._changed:
                if self._aborted:
                    raise Regroup
                if self._hold is None or step < self._hold[0]:
                    return
                held, must_save = self._hold
            if must_save or always:
                with self.doing(SAVE):
                    save()
            if self._hold == (held, must_save):
                self._wait_held(step, (held, must_save))

    def _wait_held(self, step: int, told: tuple[int, bool]) -> None:
        with self._changed:
            self._news.append(Held(self.member, self.generation, step))
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._aborted or self._order is not None or self._hold != told)
            if self._order is not None:
                raise Regroup

    # The controller's calls.

    def order(self, formation: Formation) -> None:
        with self._changed:
            if formation.generation > self.generation:
                self._order = formation
                self._changed.notify_all()

    def hold(self, generation: int, step: int, save: bool) -> None:
        """The latest step that was told counts, in whatever order calls arrive."""
        with self._changed:
            if generation != self.generation or (self._hold is not None and step <= self._hold[0]):
                return
            if self.step >= step:
                self._news.append(Refused(self.member, generation, self.step))
            else:
                self._hold = step, save
            self._changed.notify_all()

    def abort(self, generation: int, cut: Callable[[], object], seconds: float) -> bool:
        """Make the training thread leave its group: whether it did in time. `cut` wakes it where it waits for peers."""
        deadline = time.monotonic() + seconds
        with self._changed:
            if generation != self.generation:
                return True
            self._aborted = True
            self._changed.notify_all()
            while self._inside and self.generation == generation and time.monotonic() < deadline:
                cut()
                self._changed.wait(0.1)
            return not self._inside

    def take(self, seconds: float) -> tuple[list[News], list[Report]]:
        """What is new, as soon as there is something; at least a sign of life."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._news), timeout=seconds)
            news, self._news = self._news, []
            reports, self._reports = self._reports, []
            return [*news, self._beat()], reports

    @property
    def is_aborted(self) -> bool:
        with self._changed:
            return self._aborted

    def _beat(self) -> Beat:
        took = self._took.get(self._doing)
        first = self._doing == STEP and not self._steps_here
        usual = statistics.median(took) if took and not first else None
        idle = time.monotonic() - self._since
        return Beat(self.member, self.generation, self.step, idle, usual, self._steps_here)

    def _begin(self, what: str) -> None:
        self._doing, self._since = what, time.monotonic()

    def _end(self) -> None:
        self._took.setdefault(self._doing, deque(maxlen=_REMEMBERED)).append(time.monotonic() - self._since)
