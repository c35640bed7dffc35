"""What each rank still owes to the average gradient, kept by the names of parameters: buckets change, names do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

RESIDUAL, BASIS = "residual/", "basis/"


@dataclass(frozen=True)
class Part:
    """A parameter's place in a bucket of flat gradients."""

    name: str
    shape: tuple[int, ...]
    start: int
    count: int

    @property
    def slice(self) -> slice:
        return slice(self.start, self.start + self.count)


@dataclass(frozen=True)
class Layout:
    """Which parts of a bucket are compressed. The others, too small to matter, travel as they are."""

    packed: tuple[Part, ...]
    plain: tuple[Part, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(part.name for part in self.packed)

    @property
    def count(self) -> int:
        return sum(part.count for part in self.packed)

    def gather(self, flat: Tensor, parts: Sequence[Part]) -> Tensor:
        """These parts, one after the other, in fp32; a view where there is one alone."""
        if not parts:
            return flat.new_empty(0, dtype=torch.float32)
        if len(parts) == 1:
            return flat[parts[0].slice].float()
        return torch.cat([flat[part.slice] for part in parts]).float()

    def scatter(self, flat: Tensor, parts: Sequence[Part], values: Tensor) -> None:
        """The inverse, in place."""
        for part, value in zip(parts, torch.split(values, [part.count for part in parts]), strict=True):
            flat[part.slice].copy_(value)


class Residuals:
    """fp32 tensors for each compressed parameter. A step uses them as one flat tensor for each bucket."""

    def __init__(self, world: int) -> None:
        self.world = world
        self._own: dict[str, Tensor] = {}  # views of the buckets' flat tensors
        self._flat: dict[tuple[str, ...], Tensor] = {}
        self._shares: dict[tuple[str, ...], tuple[int, Tensor]] = {}  # start and values of an owner's chunk
        self._kept: dict[str, Tensor] = {}  # other tensors that a method carries from step to step

    def of(self, layout: Layout, device: torch.device) -> Tensor:
        """The bucket's residuals, for use in place. Parameters keep theirs when buckets are formed anew."""
        known = self._flat.get(layout.names)
        if known is not None:
            return known
        self._fold()
        zeros = torch.zeros(layout.count, device=device)
        for part, value in zip(layout.packed, torch.split(zeros, [part.count for part in layout.packed]), strict=True):
            if part.name in self._own:
                value.copy_(self._own[part.name].view(-1))
            self._own[part.name] = value.view(part.shape)
        taken = set(layout.names)
        self._flat = {names: flat for names, flat in self._flat.items() if taken.isdisjoint(names)}
        self._flat[layout.names] = zeros
        return zeros

    def share(self, layout: Layout, start: int, count: int, device: torch.device) -> Tensor:
        """What the owner of a chunk owes to the mean itself, since it was quantised a second time."""
        if layout.names not in self._shares:
            self._shares[layout.names] = start, torch.zeros(count, device=device)
        return self._shares[layout.names][1]

    def kept(self, name: str, first: Callable[[], Tensor]) -> Tensor:
        """A tensor that lives from step to step, made by `first` where there is none."""
        if name not in self._kept:
            self._kept[name] = first()
        return self._kept[name]

    def export(self) -> dict[str, Tensor]:
        """Copies by name, with an owner's share counted in: a mean over ranks divides by their number."""
        found = {f"{RESIDUAL}{name}": value.clone() for name, value in self._own.items()}
        for names, (start, share) in self._shares.items():
            _add(share * self.world, start, [found[f"{RESIDUAL}{name}"] for name in names])
        return {**found, **{f"{BASIS}{name}": value.clone() for name, value in self._kept.items()}}

    def load(self, local: Sequence[Mapping[str, Tensor]]) -> None:
        """Take the mean of what the old ranks had: the sum of what is owed to the average gradient stays."""
        if not local:
            return
        self._shares.clear()
        for kind, mine in ((RESIDUAL, self._own), (BASIS, self._kept)):
            for name, value in mine.items():
                found = [tensors[f"{kind}{name}"] for tensors in local if f"{kind}{name}" in tensors]
                if found and all(one.shape == value.shape for one in found):
                    value.copy_(sum(one.to(value) for one in found) / len(local))  # type: ignore[arg-type]
                elif kind == RESIDUAL:
                    value.zero_()

    def _fold(self) -> None:
        """Owners' shares become residuals of parameters: chunks are cut anew."""
        for names, (start, share) in self._shares.items():
            _add(share * self.world, start, [self._own[name] for name in names])
        self._shares.clear()


def _add(values: Tensor, start: int, tensors: Sequence[Tensor]) -> None:
    """Add a run of values to tensors that lie one after the other, from position `start` on."""
    at, end = 0, start + values.numel()
    for tensor in tensors:
        low, high = max(at, start), min(at + tensor.numel(), end)
        if low < high:
            tensor.view(-1)[low - at : high - at] += values[low - start : high - start]
        at += tensor.numel()
