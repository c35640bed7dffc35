"""A new group's first act: all ranks come to the state of the one that is furthest, or to what outlived a crash.

In this order: the memory of a rank that trained a moment ago, a snapshot in some host's shared memory, a durable
checkpoint, and the weights of rank 0 as they were built.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from mizzen.train.checkpoints.restore import Restored, state_of
from mizzen.train.group.keeping import Keeper
from mizzen.train.seams import Place

if TYPE_CHECKING:
    from mizzen.train.seams import Tensors, Trainee

MEMORY, SNAPSHOT, CHECKPOINT = "memory", "snapshot", "checkpoint"
BUCKET_BYTES = 16 * 2**20  # small tensors travel together


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
    if not sharded:
        steps = wire.gather(trainee.state.step if warm else -1)
        source = steps.index(max(steps))
        if steps[source] >= 0:
            locals_ = wire.gather_tensors(local if warm and trainee.state.step == steps[source] else {})
            _copy(trainee, wire, source, locals_, everything=len(set(steps)) > 1)
            return Handed(trainee.state.step, MEMORY)
    return _from_what_is_kept(trainee, wire, keeper, sharded=sharded, say=say)


def _from_what_is_kept(
    trainee: Trainee, wire: Wire, keeper: Keeper, *, sharded: bool, say: Callable[[str], None]
) -> Handed:
    here = keeper.in_memory()
    checkpoint = keeper.durable(say) if wire.place.rank == 0 else None
    durable = wire.tell(0, {"folder": checkpoint.folder, "step": checkpoint.step} if checkpoint else None)
    steps = wire.gather(here.state.step if here is not None else -1)
    source = steps.index(max(steps))
    in_memory = min(steps) == max(steps) if sharded else steps[source] >= 0  # shards: each rank reads all of them
    if in_memory and steps[source] >= 0 and (durable is None or steps[source] >= durable["step"]):
        if sharded or wire.place.rank == source:
            assert here is not None
            here.into(trainee)
        if not sharded:
            _copy(trainee, wire, source, wire.spread(source, here.local if here is not None else []))
        return Handed(trainee.state.step, SNAPSHOT)
    if durable is not None:
        restored = keeper.open(durable["folder"]).load() if sharded or wire.place.rank == 0 else None
        _load_durable(trainee, wire, restored, sharded=sharded)
        return Handed(trainee.state.step, CHECKPOINT)
    if not sharded:
        _copy(trainee, wire, 0, [])
    return Handed(0, "")


def _load_durable(trainee: Trainee, wire: Wire, restored: Restored | None, *, sharded: bool) -> None:
    if restored is not None:
        restored.into(trainee)
    if not sharded:
        _copy(trainee, wire, 0, wire.spread(0, restored.local if restored is not None else []))


def _copy(
    trainee: Trainee, wire: Wire, source: int, local: Sequence[Mapping[str, Tensor]], *, everything: bool = True
) -> None:
    """State, tensors and what single ranks had: alike on all ranks afterwards."""
    is_source = wire.place.rank == source
    state = state_of(wire.tell(source, asdict(trainee.state) if is_source else None) or {})
    mine = trainee.tensors()
    tensors = wire.send_tensors(source, mine if is_source else {}, _device(mine)) if everything else mine
    trainee.load(tensors, local, state)


def _device(tensors: Tensors) -> torch.device:
    """Where this rank's model is."""
    return next((value.device for value in tensors.values() if value.dim()), torch.device("cpu"))


class Wire:
    """Collectives over JSON values and named tensors. All ranks call each method alike."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def gather(self, value: int) -> list[int]:
        """Everybody's, in the order of ranks."""
        mine = torch.tensor([value], dtype=torch.int64)
        found = [torch.zeros_like(mine) for _ in range(self.place.world)]
        dist.all_gather(found, mine)
        return [int(one) for one in found]

    def tell(self, source: int, value: Any) -> Any:
        """The source's JSON value, on all ranks."""
        text = json.dumps(value).encode() if self.place.rank == source else b""
        size = torch.tensor([len(text)], dtype=torch.int64)
        dist.broadcast(size, src=source)
        data = (
            torch.frombuffer(bytearray(text), dtype=torch.uint8) if text else torch.empty(int(size), dtype=torch.uint8)
        )
        dist.broadcast(data, src=source)
        return json.loads(data.numpy().tobytes())

    def send_tensors(self, source: int, tensors: Mapping[str, Tensor], device: torch.device) -> Tensors:
        """The source's tensors, on all ranks; those that are on its device arrive on this rank's."""
        is_source = self.place.rank == source
        table = self.tell(source, [_row(name, tensor) for name, tensor in tensors.items()])
        found = {}
        for name, shape, dtype, on_cpu in table:
            where = torch.device("cpu") if on_cpu else device
            kind = getattr(torch, dtype)
            found[name] = tensors[name].detach() if is_source else torch.empty(shape, dtype=kind, device=where)
        for bucket in _buckets(found):
            flat = _flatten_dense_tensors(bucket)  # type: ignore[no-untyped-call]
            dist.broadcast(flat, src=source)
            if not is_source:
                values = _unflatten_dense_tensors(flat, bucket)  # type: ignore[no-untyped-call]
                for tensor, value in zip(bucket, values, strict=True):
                    tensor.copy_(value)
        return found

    def gather_tensors(self, mine: Mapping[str, Tensor]) -> list[Tensors]:
        """What each rank has; those that have nothing are left out."""
        sizes = self.gather(len(mine))
        device = _device(dict(mine))
        return [
            self.send_tensors(rank, mine if rank == self.place.rank else {}, device)
            for rank, size in enumerate(sizes)
            if size
        ]

    def spread(self, source: int, several: Sequence[Mapping[str, Tensor]]) -> list[Tensors]:
        """The source's list of tensors, on all ranks."""
        count = self.tell(source, len(several))
        cpu = torch.device("cpu")
        return [
            self.send_tensors(source, dict(several[number].items()) if self.place.rank == source else {}, cpu)
            for number in range(count)
        ]


def _row(name: str, tensor: Tensor) -> tuple[str, list[int], str, bool]:
    return name, list(tensor.shape), str(tensor.dtype).removeprefix("torch."), tensor.device.type == "cpu"


def _buckets(tensors: Tensors) -> list[list[Tensor]]:
    """In order, of one dtype and device each."""
    open_: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    sizes: dict[tuple[torch.dtype, torch.device], int] = {}
    done = []
    for tensor in tensors.values():
        key = tensor.dtype, tensor.device
        open_.setdefault(key, []).append(tensor)
        sizes[key] = sizes.get(key, 0) + tensor.nbytes
        if sizes[key] >= BUCKET_BYTES:
            done.append(open_.pop(key))
            del sizes[key]
    return done + list(open_.values())
