"""From snapshots and checkpoints back to a Trainee, whatever number of ranks wrote them and shall read them."""

from __future__ import annotations

import logging
import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mizzen.train.checkpoints import room
from mizzen.train.checkpoints.parts import read_table
from mizzen.train.checkpoints.pieces import LOCAL, REPLICATED, SHARD, Piece
from mizzen.train.checkpoints.slots import Header, View
from mizzen.train.checkpoints.store import Checkpoint, Store
from mizzen.train.seams import TrainState

if TYPE_CHECKING:
    from torch import Tensor

    from mizzen.train.seams import Trainee

log = logging.getLogger(__name__)

Read = Callable[[int, int], bytes]  # from a byte to another


@dataclass(frozen=True)
class Restored:
    """What a run was at a step. `source` says where it comes from, for the log and the status."""

    tensors: StoredTensors
    local: list[StoredTensors]  # of all ranks of then that could be found, in their order
    state: TrainState
    source: str
    durable: bool

    def into(self, trainee: Trainee) -> None:
        trainee.load(self.tensors, self.local, self.state)


class StoredTensors(Mapping[str, "Tensor"]):
    """Tensors at rest, whole again from the pieces that ranks wrote. Read when they are asked for."""

    def __init__(self, found: Iterable[tuple[Piece, Read]]) -> None:
        self._pieces: dict[str, list[tuple[Piece, Read]]] = {}
        for piece, read in found:
            self._pieces.setdefault(piece.name, []).append((piece, read))

    def __getitem__(self, name: str) -> Tensor:
        """The whole tensor, on the CPU."""
        shape = self.shape(name)
        return self.box(name, (0,) * len(shape), shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._pieces)

    def __len__(self) -> int:
        return len(self._pieces)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._pieces[name][0][0].shape

    def box(self, name: str, offsets: Sequence[int], size: Sequence[int]) -> Tensor:
        """A part of a tensor: what a rank of a sharded training needs. Reads no more than the pieces that it meets."""
        import torch

        from mizzen.train.checkpoints.copying import TORCH_DTYPES

        first = self._pieces[name][0][0]
        target = torch.empty(tuple(size), dtype=TORCH_DTYPES[first.dtype])
        filled = 0
        for piece, read in self._pieces[name]:
            there, here = _overlap(piece, offsets, size)
            part = target[here]
            if part.numel():
                part.copy_(_tensor(piece, read)[there])
                filled += part.numel()
        assert filled == target.numel(), f"{name}: {filled} of {target.numel()} elements are there"
        return target


def _overlap(piece: Piece, offsets: Sequence[int], size: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where a piece and a box meet, in the piece's and in the box's own indices."""
    there, here = [], []
    for at, length, start, wanted in zip(piece.offsets, piece.size, offsets, size, strict=True):
        low, high = max(at, start), min(at + length, start + wanted)
        high = max(high, low)
        there.append(slice(low - at, high - at))
        here.append(slice(low - start, high - start))
    return tuple(there), tuple(here)


def _tensor(piece: Piece, read: Read) -> Tensor:
    import torch

    from mizzen.train.checkpoints.copying import TORCH_DTYPES

    if not piece.nbytes:
        return torch.empty(piece.size, dtype=TORCH_DTYPES[piece.dtype])
    raw = bytearray(read(piece.start, piece.start + piece.nbytes))
    return torch.frombuffer(raw, dtype=torch.uint8).view(TORCH_DTYPES[piece.dtype]).view(piece.size)


def restored_from_store(checkpoint: Checkpoint) -> Restored:
    shared: list[tuple[Piece, Read]] = []
    local = []
    for part in checkpoint.parts:
        path = f"{checkpoint.folder}/{part.file}"
        found = [(piece, _from_store(checkpoint.store, path)) for piece in read_table(checkpoint.store.files, path)]
        shared += [one for one in found if one[0].kind != LOCAL]
        local.append(StoredTensors(one for one in found if one[0].kind == LOCAL))
    source = f"checkpoint {checkpoint.store.uri}/{checkpoint.folder}"
    return Restored(StoredTensors(shared), local, state_of(checkpoint.state), source, durable=True)


@dataclass(frozen=True)
class Found:
    """A whole snapshot of this host, of any rank of the run."""

    view: View
    header: Header

    @property
    def rank(self) -> int:
        return int(self.header.state["rank"])

    @property
    def world(self) -> int:
        return int(self.header.state["world"])

    @property
    def formation(self) -> tuple[int, str]:
        """Snapshots that were taken together have it in common."""
        return self.header.step, str(self.header.state["group"])


def snapshots_here(run_uid: str, roots: Sequence[Path] | None = None) -> list[Found]:
    """All whole ones, newest first. Their bytes are not checked yet."""
    found = []
    for root in roots if roots is not None else room.roots():
        for path in room.slot_files(room.run_folder(root, run_uid)):
            try:
                view = View(path)
            except (OSError, ValueError):  # it has just been removed, or was not made yet
                continue
            header = view.header()
            if header is not None:
                found.append(Found(view, header))
    return sorted(found, key=lambda one: (-one.header.step, -one.header.record.taken, one.rank))


def newest_in_memory(run_uid: str, roots: Sequence[Path] | None = None) -> Restored | None:
    """The newest step that snapshots of this host have whole. Shards need those of all ranks, replicas one."""
    together: dict[tuple[int, str], list[Found]] = {}
    for one in snapshots_here(run_uid, roots):
        together.setdefault(one.formation, []).append(one)
    for (step, _), found in sorted(together.items(), key=lambda item: -item[0][0]):
        sound = [one for one in found if one.view.is_sound(one.header)]
        if len(sound) < len(found):
            log.warning("a snapshot of step %d in memory is corrupted", step)
        by_rank = {one.rank: one for one in sound}
        if sound and (len(by_rank) == sound[0].world or not _is_sharded(sound[0])):
            return _restored_from_memory([by_rank[rank] for rank in sorted(by_rank)])
    return None


def newest(store: Store | None, run_uid: str, roots: Sequence[Path] | None = None) -> Restored | None:
    """The newest whole thing of a run, in this host's memory or durable. OSError where the store is away."""
    here = newest_in_memory(run_uid, roots)
    if store is None:
        return here
    checkpoint = store.newest()
    if checkpoint is None or (here is not None and here.state.step >= checkpoint.step):
        return here
    return checkpoint.load()


def state_of(values: Mapping[str, Any]) -> TrainState:
    known = {one.name for one in fields(TrainState)}
    return TrainState(**{name: value for name, value in values.items() if name in known})


def _restored_from_memory(found: list[Found]) -> Restored:
    shared: list[tuple[Piece, Read]] = []
    local = []
    for number, one in enumerate(found):
        pieces = [(piece, _from_memory(one)) for piece in one.header.pieces]
        # All have the replicated ones alike, so that one's are enough.
        shared += [each for each in pieces if each[0].kind == SHARD or (each[0].kind == REPLICATED and not number)]
        local.append(StoredTensors(each for each in pieces if each[0].kind == LOCAL))
    first = found[0].header
    source = f"snapshot of step {first.step} in memory"
    return Restored(StoredTensors(shared), local, state_of(first.state["state"]), source, durable=False)


def _is_sharded(found: Found) -> bool:
    return any(piece.kind == SHARD for piece in found.header.pieces)


def _from_store(store: Store, path: str) -> Read:
    return lambda start, end: store.files.read(path, start, end)


def _from_memory(found: Found) -> Read:
    memory: mmap.mmap = found.view.memory
    at = found.header.data_start
    return lambda start, end: memory[at + start : at + end]
