"""A new group's first act: all ranks come to the state of the one that is furthest, or to what outlived a crash.

In this order: the memory of a rank that trained a moment ago, a snapshot in some host's shared memory, a durable
checkpoint, and the weights of rank 0 as they were built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from mizzen.train.checkpoints.restore import Restored, state_of
from mizzen.train.group import shards
from mizzen.train.group.keeping import Keeper
from mizzen.train.group.wire import Wire, device_of
from mizzen.train.seams import Place

if TYPE_CHECKING:
    from mizzen.train.seams import Tensors, Trainee

MEMORY, SNAPSHOT, CHECKPOINT = "memory", "snapshot", "checkpoint"


@dataclass(frozen=True)
class Handed:
    """Where the group goes on from. `source` is empty for a run that begins."""

    step: int
    source: str


def hand_over(
    trainee: Trainee,
    place: Place,
    keeper: Keeper,
    *,
    warm: bool,
    local: Tensors,
    sharded: bool,
    say: Callable[[str], None],
) -> Handed:
    """Called by all ranks once they have joined. `warm`: this rank has trained, or been loaded, before.

    `local` is what this rank alone had in its former group.
    """
    wire = Wire(place)
    if sharded:
        return _sharded(trainee, wire, keeper, say)
    steps = wire.gather(trainee.state.step if warm else -1)
    source = steps.index(max(steps))
    if steps[source] >= 0:
        theirs = wire.gather_tensors(local if warm and trainee.state.step == steps[source] else {})
        _copy(trainee, wire, source, theirs, everything=len(set(steps)) > 1)
        return Handed(trainee.state.step, MEMORY)
    return _from_what_is_kept(trainee, wire, keeper, say)


def _from_what_is_kept(trainee: Trainee, wire: Wire, keeper: Keeper, say: Callable[[str], None]) -> Handed:
    """One rank reads it, and the others have it from that one."""
    here = keeper.in_memory()
    steps = wire.gather(here.state.step if here is not None else -1)
    source = steps.index(max(steps))
    durable = _newest_durable(wire, keeper, say)
    if steps[source] >= 0 and (durable is None or steps[source] >= durable.step):
        _load_at(source, trainee, wire, here)
        return Handed(trainee.state.step, SNAPSHOT)
    if durable is not None:
        _load_at(0, trainee, wire, keeper.open(durable.folder).load() if wire.place.rank == 0 else None)
        return Handed(trainee.state.step, CHECKPOINT)
    _copy(trainee, wire, 0, [])
    return Handed(0, "")


def _sharded(trainee: Trainee, wire: Wire, keeper: Keeper, say: Callable[[str], None]) -> Handed:
    """Shards of another group are worth nothing as they are: each rank takes its new ones from what all hosts kept."""
    durable = _newest_durable(wire, keeper, say)
    snapshot = shards.newest(wire, keeper.snapshots())
    if snapshot is not None and (durable is None or snapshot.state.step >= durable.step):
        snapshot.into(trainee)
        return Handed(trainee.state.step, SNAPSHOT)
    if durable is not None:
        keeper.open(durable.folder).load().into(trainee)
        return Handed(trainee.state.step, CHECKPOINT)
    return Handed(0, "")


@dataclass(frozen=True)
class _Durable:
    folder: str
    step: int


def _newest_durable(wire: Wire, keeper: Keeper, say: Callable[[str], None]) -> _Durable | None:
    """Rank 0 looks, and checks its bytes."""
    found = keeper.durable(say) if wire.place.rank == 0 else None
    told = wire.tell(0, {"folder": found.folder, "step": found.step} if found is not None else None)
    return _Durable(**told) if told is not None else None


def _load_at(source: int, trainee: Trainee, wire: Wire, restored: Restored | None) -> None:
    """The source loads what it found, all others copy that."""
    is_source = wire.place.rank == source
    if is_source:
        assert restored is not None
        restored.into(trainee)
    _copy(trainee, wire, source, wire.spread(source, restored.local if is_source and restored is not None else []))


def _copy(
    trainee: Trainee, wire: Wire, source: int, local: Sequence[Mapping[str, Tensor]], *, everything: bool = True
) -> None:
    """State, tensors and what single ranks had: alike on all ranks afterwards."""
    is_source = wire.place.rank == source
    state = state_of(wire.tell(source, asdict(trainee.state) if is_source else None) or {})
    mine = trainee.tensors()
    tensors = wire.send_tensors(source, mine if is_source else {}, device_of(mine)) if everything else mine
    trainee.load(tensors, local, state)
