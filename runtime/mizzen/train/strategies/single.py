"""One rank alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mizzen.train.strategies.base import load_named_tensors, named_tensors

if TYPE_CHECKING:
    from mizzen.train.seams import Tensors


class Single:
    """Also what strategies with a group derive from."""

    sharded = False
    lockstep = False
    note = ""

    def wrap(self, module: nn.Module) -> nn.Module:
        return module

    def no_sync(self, model: nn.Module) -> AbstractContextManager[object]:  # noqa: ARG002
        return nullcontext()

    def sum(self, tensor: Tensor) -> None:
        """Alone, one's own is all."""

    def most(self, tensor: Tensor) -> None:
        """Alone, one's own is all."""

    def align(self, module: nn.Module) -> None:
        """Alone, one's own is all."""

    def clip(self, parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
        return nn.utils.clip_grad_norm_(parameters, max_norm)

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        optimizer.step()

    def tensors(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
        return named_tensors(module, optimizer)

    def load(self, module: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
        load_named_tensors(module, optimizer, tensors)

    def local_tensors(self) -> Tensors:
        return {}

    def load_local(self, local: Sequence[Mapping[str, Tensor]]) -> None:
        """There is nothing that a rank alone has."""

    def counters(self) -> dict[str, float | str]:
        return {}

    def close(self) -> None:
        """There is no group."""
