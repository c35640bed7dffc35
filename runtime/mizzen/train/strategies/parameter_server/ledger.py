"""Who works on what, and how old its weights may be: the rules of staleness as a pure state machine, without Ray.

A batch is cut into pieces, as many as there are workers. A worker asks for a piece, pulls weights, computes the piece's
gradient, settles how it counts, pushes it, and finishes the piece. The version of the weights is the number of updates.

    sync       one update for each batch, from the mean over its pieces; the next batch begins when it is applied
    async      one update for each piece; nobody waits
    bounded    the same, but a piece begins only if no gradient under way can become staler than the bound

The first `warmup` batches are synchronous in all modes. Stale Synchronous Parallel: Ho et al., NeurIPS 2013. A gradient
of staleness tau counts 1 / (1 + tau), as in Zhang et al., IJCAI 2016 (arXiv:1511.05950).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

Mode = Literal["sync", "async", "bounded"]


@dataclass(frozen=True, order=True)
class Piece:
    """Of the rows [row : row + count] of an epoch's order every `of`-th from `index` on. `step` counts batches."""

    step: int
    epoch: int
    row: int
    count: int
    index: int
    of: int

    @property
    def rows(self) -> int:
        return len(range(self.index, self.count, self.of))

    @property
    def share(self) -> float:
        """Part of its batch."""
        return self.rows / self.count

    @property
    def name(self) -> str:
        return f"{self.step}.{self.index}.{self.of}"


class Answer(StrEnum):
    """In place of a piece."""

    WAIT = "wait"
    END = "end"  # all rows are used


@dataclass(frozen=True)
class Verdict:
    """How a gradient counts. `scale` 0: not at all."""

    scale: float
    staleness: int


@dataclass
class Position:
    """Where the next batch begins."""

    step: int = 0
    epoch: int = 0
    row: int = 0


@dataclass
class _UnderWay:
    piece: Piece
    version: int
    left_out: bool = False  # it takes too long: others wait for it no more


@dataclass
class Ledger:
    """`batch_size(position)` is that of the schedule, at most the rows that are left of the epoch."""

    rows: int
    epochs: int
    batch_size: Callable[[Position], int]
    mode: Mode = "bounded"
    staleness: int = 4
    warmup: int = 0
    position: Position = field(default_factory=Position)
    version: int = 0
    dropped: int = 0
    workers: set[int] = field(default_factory=set)
    _open: list[Piece] = field(default_factory=list)  # not begun, or given back
    _under_way: dict[int, _UnderWay] = field(default_factory=dict)
    _gathering: Piece | None = None  # one of the synchronous step whose update is not applied yet

    @property
    def bound(self) -> int:
        """Most updates between a worker's pull and its push: `staleness` batches, and the others' part of one."""
        workers = max(1, len(self.workers))
        return self.staleness * workers + workers - 1

    @property
    def steps_done(self) -> int:
        """Batches of which every piece is finished and applied."""
        return min((piece.step for piece in self._undone()), default=self.position.step)

    @property
    def epochs_done(self) -> int:
        return min((piece.epoch for piece in self._undone()), default=self.position.epoch)

    def is_sync(self, step: int) -> bool:
        return self.mode == "sync" or step < self.warmup

    def join(self, worker: int) -> None:
        """Nobody stops for it: it has its part of the next batch."""
        self.workers.add(worker)

    def leave(self, worker: int) -> None:
        """Its clock leaves the bound, and somebody else takes its piece."""
        self.workers.discard(worker)
        self._give_back(worker)

    def ask(self, worker: int) -> Piece | Answer:
        """The next piece for a worker that has none."""
        assert worker in self.workers
        assert worker not in self._under_way
        if not self._open and not self._may_begin(self.position.step):
            return Answer.WAIT
        if not self._open and not self._open_batch():
            return Answer.WAIT if self._under_way or self._gathering is not None else Answer.END
        piece = min(self._open)
        if not self._may_begin(piece.step):
            return Answer.WAIT
        self._open.remove(piece)
        self._under_way[worker] = _UnderWay(piece, self.version)
        if self.is_sync(piece.step):
            self._gathering = piece
        return piece

    def settle(self, worker: int, piece: Piece) -> Verdict:
        """What the gradient is worth that a worker is about to push. Too old: dropped, counted, its rows used later."""
        mine = self._under_way.get(worker)
        if mine is None or mine.piece != piece:  # given to somebody else meanwhile
            self.dropped += 1
            return Verdict(0.0, -1)
        staleness = self.version - mine.version
        if mine.left_out or (self.mode == "bounded" and staleness > self.bound):
            self.dropped += 1
            self._give_back(worker)
            return Verdict(0.0, staleness)
        return Verdict(1.0 / (1 + staleness), staleness)

    def finish(self, worker: int, piece: Piece, *, pushed: bool) -> int | None:
        """A piece is done. Returns the step that must be applied now, and then told with `applied`."""
        mine = self._under_way.get(worker)
        if mine is None or mine.piece != piece:
            return None
        del self._under_way[worker]
        if not self.is_sync(piece.step):
            self.version += pushed
            return None
        rest = [*self._open, *(one.piece for one in self._waited().values())]
        return piece.step if all(one.step != piece.step for one in rest) else None

    def applied(self, step: int) -> None:
        """The update of a synchronous step is in the weights of all servers."""
        assert self._gathering is not None
        assert self._gathering.step == step
        self._gathering = None
        self.version += 1

    def leave_out(self, worker: int) -> None:
        """Wait for it no more: its piece goes to somebody else, and its gradient will be dropped."""
        mine = self._under_way.get(worker)
        if mine is not None and not mine.left_out:
            mine.left_out = True
            self._open.append(mine.piece)

    def holding_back(self) -> int | None:
        """The worker that the others wait for most."""
        waited = self._waited()
        return min(waited, key=lambda worker: (waited[worker].piece.step, waited[worker].version), default=None)

    def to_dict(self) -> dict[str, Any]:
        """JSON: the position, and what before it is not done."""
        return {
            "position": [self.position.step, self.position.epoch, self.position.row],
            "open": [_values(piece) for piece in sorted(self._undone())],
            "version": self.version,
            "dropped": self.dropped,
        }

    def restore(self, values: dict[str, Any]) -> None:
        self.position = Position(*values["position"])
        self._open = [Piece(*piece) for piece in values["open"]]
        self._under_way.clear()
        self._gathering = None
        self.version, self.dropped = values["version"], values["dropped"]

    def _may_begin(self, step: int) -> bool:
        """Whether a worker may pull weights now for a piece of this step."""
        if self._gathering is not None and step > self._gathering.step:
            return False
        waited = self._waited().values()
        if self.is_sync(step):
            return all(one.piece.step == step for one in waited)
        if self.mode != "bounded" or not waited:
            return True
        oldest = min(one.version for one in waited)
        # If all others push before it, the oldest will be as stale as this.
        return self.version - oldest + len(waited) <= self.bound

    def _open_batch(self) -> bool:
        place = self.position
        if place.epoch >= self.epochs:
            return False
        count = min(self.batch_size(place), self.rows - place.row)
        of = min(len(self.workers), count)
        self._open = [Piece(place.step, place.epoch, place.row, count, index, of) for index in range(of)]
        ends = place.row + count >= self.rows
        self.position = Position(place.step + 1, place.epoch + ends, 0 if ends else place.row + count)
        return True

    def _give_back(self, worker: int) -> None:
        mine = self._under_way.pop(worker, None)
        if mine is not None and not mine.left_out:
            self._open.append(mine.piece)

    def _waited(self) -> dict[int, _UnderWay]:
        return {worker: one for worker, one in self._under_way.items() if not one.left_out}

    def _undone(self) -> set[Piece]:
        """What is not in the weights. Of a synchronous batch either all pieces are, or none."""
        pieces = {*self._open, *(one.piece for one in self._waited().values())}
        one = self._gathering
        if one is not None:
            pieces |= {Piece(one.step, one.epoch, one.row, one.count, index, one.of) for index in range(one.of)}
        return pieces


def _values(piece: Piece) -> list[int]:
    return [piece.step, piece.epoch, piece.row, piece.count, piece.index, piece.of]
