"""JSON values and named tensors between the ranks of a group, by collectives of the default process group."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from mizzen.train.seams import Place

if TYPE_CHECKING:
    from mizzen.train.seams import Tensors

BUCKET_BYTES = 16 * 2**20  # small tensors travel together


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

    def gather_values(self, value: Any) -> list[Any]:
        """Everybody's JSON value, in the order of ranks."""
        return [self.tell(rank, value if rank == self.place.rank else None) for rank in range(self.place.world)]

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
        device = device_of(dict(mine))
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


def device_of(tensors: Tensors) -> torch.device:
    """Where this rank's model is."""
    return next((value.device for value in tensors.values() if value.dim()), torch.device("cpu"))
