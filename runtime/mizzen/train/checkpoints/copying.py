"""From tensors to bytes in a slot: which piece of a tensor a rank holds, and the copy itself, as fast as memory is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

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
_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


def is_sharded(tensor: Tensor) -> bool:
    return hasattr(tensor, "placements")


def held(tensor: Tensor) -> Tensor:
    """What of a tensor is on this rank."""
    return cast("DTensor", tensor).to_local() if is_sharded(tensor) else tensor.detach()


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

    def fits(self, tensors: Mapping[str, Tensor], local: Mapping[str, Tensor]) -> bool:
        return (_signature(tensors), _signature(local)) == self._signature

    def laid_out_as(self, slot: Slot) -> bool:
        return slot.pieces is self.pieces

    def forget(self, slot: Slot) -> None:
        self._targets.pop(slot, None)

    def copy(self, slot: Slot, tensors: Mapping[str, Tensor], local: Mapping[str, Tensor]) -> None:
        """Returns when the bytes are there."""
        sources = [held(tensor) for values in (tensors, local) for tensor in values.values()]
        targets = self._targets.get(slot)
        if targets is None:
            targets = self._targets[slot] = _views(slot, self.pieces)
        copy_all(targets, sources)


def copy_all(targets: list[Tensor], sources: list[Tensor]) -> None:
    """One call for all: torch copies large tensors with all its threads, and from devices without waiting for each."""
    with torch.no_grad():
        torch._foreach_copy_(targets, sources, non_blocking=True)
    for device in {source.device for source in sources if source.device.type != "cpu"}:
        torch.accelerator.synchronize(device)


def _views(slot: Slot, pieces: Iterable[Piece]) -> list[Tensor]:
    whole = torch.frombuffer(slot.memory, dtype=torch.uint8)
    views = []
    for piece in pieces:
        start = slot.data_start + piece.start
        raw = whole[start : start + piece.nbytes]
        views.append(raw.view(TORCH_DTYPES[piece.dtype]).view(piece.size))
    return views


def _signature(tensors: Mapping[str, Tensor]) -> Signature:
    return [(name, tensor.dtype, tensor.shape, is_sharded(tensor)) for name, tensor in tensors.items()]
