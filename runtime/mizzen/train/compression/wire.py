"""The process group as compression uses it: three collectives, and what they send counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class Wire:
    """`sent` counts bytes that leave this rank. An all-reduce is counted as a ring: 2 (n-1)/n of the tensor."""

    def __init__(self, group: ProcessGroup | None = None) -> None:
        self.group = group
        self.rank, self.world = dist.get_rank(group), dist.get_world_size(group)
        self.sent = 0

    def all_to_all(self, parts: Sequence[Tensor], receive: int) -> list[Tensor]:
        """Part r goes to rank r; each rank sends this one `receive` bytes. uint8."""
        self.sent += sum(part.numel() for rank, part in enumerate(parts) if rank != self.rank)
        out = parts[0].new_empty(receive * self.world)
        dist.all_to_all_single(
            out, torch.cat(list(parts)), [receive] * self.world, [part.numel() for part in parts], group=self.group
        )
        return list(torch.split(out, receive)) if receive else [out] * self.world

    def all_gather(self, mine: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """Every rank's bytes, `sizes` of them. all_gather itself wants equally many on all."""
        self.sent += mine.numel() * (self.world - 1)
        out = mine.new_empty(sum(sizes))
        dist.all_to_all_single(out, mine.repeat(self.world), list(sizes), [mine.numel()] * self.world, group=self.group)
        return list(torch.split(out, list(sizes)))

    def mean(self, tensor: Tensor) -> None:
        """The mean over ranks, in place; the same bits on all of them."""
        self.sent += ring_bytes(tensor.nbytes, self.world)
        tensor.div_(self.world)
        dist.all_reduce(tensor, group=self.group)

    def worst(self, seconds: Sequence[float], device: torch.device) -> list[float]:
        """The largest of all ranks, so that all of them decide alike."""
        values = torch.tensor(list(seconds), dtype=torch.float32, device=device)
        dist.all_reduce(values, dist.ReduceOp.MAX, group=self.group)
        return [float(value) for value in values.tolist()]


def ring_bytes(size: int, world: int) -> int:
    """What a rank sends in a ring all-reduce of `size` bytes."""
    return 2 * (world - 1) * size // world
