"""From tensors to bytes in a slot: which piece of a tensor a rank holds, and the copy itself, as fast as memory is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from mizzen.train.checkpoints import staging
from mizzen.train.checkpoints.pieces import LOCAL, REPLICATED, SHARD, Piece, laid_out

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

    from mizzen.train.checkpoints.slots import Slot

TORCH_DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu, "I16": torch.int16, "U16": torch.uint16,
    "F16": torch.float16, "BF16": torch.bfloat16, "I32": torch.int32, "U32": torch.uint32, "F32": torch.float32,
    "F64": torch.float64, "I64": torch.int64, "U64": torch.uint64, "C64": torch.complex64,
}  # fmt: skip
_PLAIN = (Tensor, nn.Parameter)
_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


def is_sharded(tensor: Tensor) -> bool:
    return type(tensor) not in _PLAIN and hasattr(tensor, "placements")


def held(tensor: Tensor) -> Tensor:
    """What of a tensor is on this rank."""
    return cast("DTensor", tensor).to_local() if is_sharded(tensor) else tensor


def piece_of(name: str, tensor: Tensor, kind: str = REPLICATED) -> Piece:
    """The box that this rank holds. A DTensor may be sharded along one dimension of a one-dimensional mesh."""
    dtype, shape = _NAMES[tensor.dtype], tuple(tensor.shape)
    if not is_sharded(tensor):
        return Piece(name, dtype, shape, (0,) * len(shape), shape, kind)
    offsets, size = box_of(cast("DTensor", tensor))
    return Piece(name, dtype, shape, offsets, size, SHARD)


def box_of(tensor: DTensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Offsets and size of this rank's shard in the whole. Shards are those of torch.chunk: the last may be empty."""
    from torch.distributed.tensor import Replicate, Shard

    (placement,) = tensor.placements
    offsets, size = [0] * tensor.dim(), list(tensor.shape)
    if isinstance(placement, Replicate):
        return tuple(offsets), tuple(size)
    assert isinstance(placement, Shard), f"no rule for {placement}"
    whole, mesh = size[placement.dim], tensor.device_mesh
    chunk = -(-whole // mesh.size())
    first = min(mesh.get_local_rank() * chunk, whole)
    offsets[placement.dim], size[placement.dim] = first, min(chunk, whole - first)
    return tuple(offsets), tuple(size)


Signature = list[tuple[str, torch.dtype, torch.Size, bool]]


class Copier:
    """Copies tensors of one layout into slots of that layout. What a slot's bytes look like is made once for each."""

    def __init__(self, tensors: Mapping[str, Tensor], local: Mapping[str, Tensor]) -> None:
        pieces = [piece_of(name, tensor) for name, tensor in tensors.items()]
        pieces += [piece_of(name, tensor, LOCAL) for name, tensor in local.items()]
        self.pieces, self.data_bytes = laid_out(pieces)
        self._signature = _signature(tensors), _signature(local)
        self._targets: dict[Slot, list[Tensor]] = {}
        self._pinned: set[Slot] = set()
        self._staging: staging.Staging | None = None
        self.on_gpu = any(tensor.is_cuda for values in (tensors, local) for tensor in values.values())
        self._looked = False  # whether a device has room to stage

    def fits(self, tensors: Mapping[str, Tensor], local: Mapping[str, Tensor]) -> bool:
        return (_signature(tensors), _signature(local)) == self._signature

    def laid_out_as(self, slot: Slot) -> bool:
        return slot.pieces is self.pieces

    def prepare(self, slot: Slot) -> None:
        """What the first copy into a slot would wait for."""
        self._targets[slot] = views(data_of(slot), self.pieces)
        if self.on_gpu and staging.pin(slot.memory):
            self._pinned.add(slot)

    def forget(self, slot: Slot) -> None:
        """Before the slot's memory goes."""
        self._targets.pop(slot, None)
        if slot in self._pinned:
            self._pinned.remove(slot)
            staging.unpin(slot.memory)

    def close(self) -> None:
        for slot in list(self._targets):
            self.forget(slot)

    def copy(self, slot: Slot, tensors: Mapping[str, Tensor], local: Mapping[str, Tensor]) -> Callable[[], None] | None:
        """Copy what the tensors are now. The bytes are in the slot, or will be when what it returns was called."""
        sources = [held(tensor) for values in (tensors, local) for tensor in values.values()]
        targets = self._targets[slot]
        if not self._looked:
            self._looked, self._staging = True, staging.Staging.of(sources, self.pieces, self.data_bytes)
        if self._staging is not None:
            return self._staging.copy(sources, targets, data_of(slot))
        copy_all(targets, sources)
        return None


def copy_all(targets: list[Tensor], sources: list[Tensor]) -> None:
    """One call for all: torch copies large tensors with all its threads, and from devices without waiting for each."""
    with torch.no_grad():
        torch._foreach_copy_(targets, sources, non_blocking=True)
    for device in {source.device for source in sources if source.device.type != "cpu"}:
        torch.accelerator.synchronize(device)


def data_of(slot: Slot) -> Tensor:
    """The slot's bytes of tensors, (data_bytes,) uint8."""
    whole = torch.frombuffer(slot.memory, dtype=torch.uint8)
    return whole[slot.data_start : slot.data_start + slot.data_bytes]


def views(data: Tensor, pieces: Iterable[Piece]) -> list[Tensor]:
    """The pieces as tensors that look into `data`, (bytes,) uint8."""
    return [
        data[piece.start : piece.start + piece.nbytes].view(TORCH_DTYPES[piece.dtype]).view(piece.size)
        for piece in pieces
    ]


def _signature(tensors: Mapping[str, Tensor]) -> Signature:
    return [(name, tensor.dtype, tensor.shape, is_sharded(tensor)) for name, tensor in tensors.items()]
