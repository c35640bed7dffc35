"""One server's part of the weights and of the optimizer's state, and the rules of an update. Knows no Ray."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mizzen.train.compression.codecs import decode_into
from mizzen.train.optimizers import BETAS
from mizzen.train.strategies.parameter_server.chunks import Chunk

if TYPE_CHECKING:
    from mizzen.train.compression.codecs import Codec

REMEMBERED = 4096  # names of pushes, so that one that is sent again counts once


@dataclass(frozen=True)
class OptimizerSettings:
    """As in the plan."""

    name: str = "adamw"
    momentum: float = 0.9
    weight_decay: float = 0.01


@dataclass(frozen=True)
class Push:
    """A gradient's way into the weights. `gather`: it waits for the others of its batch, weighted by `share`."""

    name: str
    codec: Codec
    learning_rate: float
    scale: float = 1.0
    share: float = 1.0
    gather: bool = False


@dataclass
class ShardState:
    """All that a server must know to go on; `slots` by chunk and name of the optimizer's state."""

    values: Tensor
    slots: dict[tuple[int, str], Tensor] = field(default_factory=dict)
    version: int = 0
    seen: list[str] = field(default_factory=list)


class Shard:
    """The optimizer is torch's own, on chunks as parameters; rates change from push to push."""

    def __init__(self, chunks: Sequence[Chunk], settings: OptimizerSettings, state: ShardState) -> None:
        self.values = state.values.clone()
        self.version = state.version
        self._seen: deque[str] = deque(state.seen, REMEMBERED)
        self._chunks = [nn.Parameter(self.values[chunk.slice]) for chunk in chunks]
        self._optimizer = _optimizer(self._chunks, chunks, settings)
        self._gathered, self._weight, self._names = torch.zeros_like(self.values), 0.0, set[str]()
        for (at, name), value in state.slots.items():
            self._optimizer.state[self._chunks[at]][name] = value.clone()

    def push(self, push: Push, payload: Tensor) -> int:
        """Use a gradient, or gather it; one that was here before is not used again. The version afterwards."""
        if push.name in self._seen or push.name in self._names:
            return self.version
        gradient = torch.empty_like(self.values)
        decode_into(push.codec, payload, gradient)
        if push.gather:
            self._gathered.add_(gradient, alpha=push.share)
            self._weight += push.share
            self._names.add(push.name)
        else:
            self._seen.append(push.name)
            self._update(gradient, push.learning_rate * push.scale)
        return self.version

    def apply(self, version: int, learning_rate: float) -> int:
        """Update with the mean of what was gathered; once, if it is asked for again. The version afterwards."""
        if version >= self.version:
            if self._weight:
                self._update(self._gathered / self._weight, learning_rate)
            self.version = version + 1
        self._seen.extend(self._names)  # one that hung may send what another worker did in its place
        self._gathered.zero_()
        self._weight = 0.0
        self._names.clear()
        return self.version

    def state(self) -> ShardState:
        """A copy. What is only gathered is not in it: its batch will be done again."""
        slots = {
            (at, name): value.detach().clone()
            for at, chunk in enumerate(self._chunks)
            for name, value in self._optimizer.state.get(chunk, {}).items()
            if isinstance(value, Tensor)
        }
        return ShardState(self.values.clone(), slots, self.version, list(self._seen))

    def _update(self, gradient: Tensor, learning_rate: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        start = 0
        for chunk in self._chunks:
            chunk.grad = gradient[start : start + chunk.numel()]
            start += chunk.numel()
        self._optimizer.step()
        self.version += 1


def _optimizer(
    parameters: Sequence[nn.Parameter], chunks: Sequence[Chunk], settings: OptimizerSettings
) -> torch.optim.Optimizer:
    """As optimizers.optimizer_of, for chunks."""
    pairs = list(zip(parameters, chunks, strict=True))
    groups = [
        {"params": [one for one, chunk in pairs if chunk.decays == decays], "weight_decay": decay}
        for decays, decay in ((True, settings.weight_decay), (False, 0.0))
    ]
    groups = [group for group in groups if group["params"]]
    if settings.name == "sgd":
        momentum = settings.momentum
        return torch.optim.SGD(groups, lr=0.0, momentum=momentum, nesterov=momentum > 0, fused=True)
    return torch.optim.AdamW(groups, lr=0.0, betas=BETAS, fused=True)


Pieces = list[tuple[int, Tensor]]  # where each begins in its whole tensor


def whole_slots(cut: Sequence[Sequence[Chunk]], states: Sequence[ShardState]) -> dict[str, dict[str, Pieces]]:
    """By parameter and slot, the pieces that there are: what a checkpoint wants whole."""
    found: dict[str, dict[str, Pieces]] = {}
    for chunks, state in zip(cut, states, strict=True):
        for (at, slot), value in sorted(state.slots.items(), key=lambda item: item[0][0]):
            found.setdefault(chunks[at].name, {}).setdefault(slot, []).append((chunks[at].start, value))
    return found


def slots_from(whole: Mapping[str, Tensor], chunks: Sequence[Chunk], prefix: str) -> dict[tuple[int, str], Tensor]:
    """A server's slots out of `PREFIXNAME|SLOT` tensors; numbers, such as a count of steps, go to all chunks."""
    found: dict[tuple[int, str], Tensor] = {}
    names = [key.removeprefix(prefix).rpartition("|") for key in whole if key.startswith(prefix)]
    for at, chunk in enumerate(chunks):
        for name, _, slot in names:
            if name == chunk.name:
                value = whole[f"{prefix}{name}|{slot}"]
                part = value.reshape(-1)[chunk.start : chunk.start + chunk.count] if value.dim() else value
                found[at, slot] = part.clone()
    return found
