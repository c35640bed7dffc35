"""How a model's parameters are shared out among servers: runs of its flat form, equally long, whatever tensors are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Chunk:
    """The elements [start : start + count] of a parameter, at `at` in its server's flat tensor."""

    name: str
    start: int
    count: int
    at: int
    decays: bool

    @property
    def slice(self) -> slice:
        return slice(self.at, self.at + self.count)


@dataclass(frozen=True)
class Shapes:
    """Of the parameters that are trained, in the module's order. Matrices decay; biases and norms do not."""

    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def of(cls, module: nn.Module) -> Shapes:
        return cls(
            tuple((name, tuple(value.shape)) for name, value in module.named_parameters() if value.requires_grad)
        )

    @property
    def count(self) -> int:
        return sum(math.prod(shape) for _, shape in self.shapes)

    def cut(self, servers: int) -> list[list[Chunk]]:
        """For each server its chunks; they have equally many elements, but for one."""
        edges = [self.count * server // servers for server in range(servers + 1)]
        found: list[list[Chunk]] = [[] for _ in range(servers)]
        begin = 0
        for name, shape in self.shapes:
            end = begin + math.prod(shape)
            for server, (low, high) in enumerate(pairwise(edges)):
                first, last = max(begin, low), min(end, high)
                if first < last:
                    found[server].append(Chunk(name, first - begin, last - first, first - low, len(shape) >= 2))
            begin = end
        return found


def flat(tensors: Mapping[str, Tensor], chunks: Sequence[Chunk]) -> Tensor:
    """A server's part of tensors by name, in fp32 on the CPU."""
    parts = [tensors[chunk.name].reshape(-1)[chunk.start : chunk.start + chunk.count] for chunk in chunks]
    return torch.cat([part.detach().float().cpu() for part in parts]) if parts else torch.empty(0)


@torch.no_grad()
def unflat(values: Tensor, chunks: Sequence[Chunk], tensors: Mapping[str, Tensor]) -> None:
    """The inverse, in place."""
    for chunk in chunks:
        whole = tensors[chunk.name].view(-1)
        whole[chunk.start : chunk.start + chunk.count].copy_(values[chunk.slice])
