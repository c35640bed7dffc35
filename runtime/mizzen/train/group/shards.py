"""A sharded run's newest snapshot that the hosts of a group have together, read from all of them at once.

Each rank's snapshot has its shards alone. Where a process died and its host did not, the shared memory of all hosts
still has the whole. A host that is lost takes its shards along: then a durable checkpoint must do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from mizzen.train.checkpoints.pieces import REPLICATED, SHARD, Piece
from mizzen.train.checkpoints.restore import Found, Restored, StoredTensors, state_of
from mizzen.train.group.wire import Wire

if TYPE_CHECKING:
    from mizzen.train.checkpoints.restore import Read


@dataclass(frozen=True)
class Kept:
    """One rank's snapshot of then, in the memory of a rank of now."""

    step: int
    group: str
    rank: int
    world: int


@dataclass(frozen=True)
class Choice:
    """A step that is whole: who of now has what each rank of then had, by the ranks of then."""

    step: int
    group: str
    holders: tuple[int, ...]


def choose(kept: Sequence[Sequence[Kept]]) -> Choice | None:
    """The newest whole one of what the ranks of now have."""
    found: dict[tuple[int, str], dict[int, int]] = {}
    worlds: dict[tuple[int, str], int] = {}
    for holder, ones in enumerate(kept):
        for one in ones:
            found.setdefault((one.step, one.group), {}).setdefault(one.rank, holder)
            worlds[one.step, one.group] = one.world
    whole = [key for key, holders in found.items() if len(holders) == worlds[key]]
    if not whole:
        return None
    step, group = max(whole)
    holders = found[step, group]
    return Choice(step, group, tuple(holders[rank] for rank in range(len(holders))))


def newest(wire: Wire, here: Sequence[Found]) -> Restored | None:
    """Called by all ranks; None on all of them where no step is whole. Its tensors are read by all ranks alike."""
    sound = {(one.formation, one.rank): one for one in here if one.view.is_sound(one.header)}
    mine = [[step, group, rank, one.world] for ((step, group), rank), one in sound.items()]
    choice = choose([[Kept(*values) for values in theirs] for theirs in wire.gather_values(mine)])
    if choice is None:
        return None
    pieces: dict[str, tuple[Piece, Read]] = {}
    state: dict[str, Any] = {}
    for rank, holder in enumerate(choice.holders):
        found = sound.get(((choice.step, choice.group), rank)) if holder == wire.place.rank else None
        told = wire.tell(holder, _told(found) if found is not None else None)
        state = told["state"]
        for number, values in enumerate(told["pieces"]):
            piece = Piece.from_dict(values)
            if piece.kind == SHARD or (piece.kind == REPLICATED and rank == 0):
                pieces[f"{rank}/{number}"] = piece, _spread(found, holder)
    source = f"snapshots of step {choice.step} in memory"
    return Restored(_Everywhere(pieces.values()), [], state_of(state), source, durable=False)


class _Everywhere(StoredTensors):
    """Tensors whose pieces are in the memories of several ranks. All ranks must ask for the same ones in one order."""

    def box(self, name: str, offsets: Sequence[int], size: Sequence[int]) -> Tensor:
        fetched = [
            (replace(piece, start=0), _bytes(read(piece.start, piece.start + piece.nbytes)))
            for piece, read in self._pieces[name]
        ]
        return StoredTensors(fetched).box(name, offsets, size)


def _told(found: Found) -> dict[str, Any]:
    return {"state": found.header.state["state"], "pieces": [piece.to_dict() for piece in found.header.pieces]}


def _bytes(raw: bytes) -> Read:
    return lambda start, end: raw[start:end]


def _spread(found: Found | None, holder: int) -> Read:
    """Reads here, where it is, and sends it to all others."""

    def read(start: int, end: int) -> bytes:
        if start == end:
            return b""
        data = torch.empty(end - start, dtype=torch.uint8)
        if found is not None:
            at = found.header.data_start
            data = torch.frombuffer(bytearray(found.view.memory[at + start : at + end]), dtype=torch.uint8)
        dist.broadcast(data, src=holder)
        return data.numpy().tobytes()

    return read
