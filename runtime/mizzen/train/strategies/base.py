"""The Strategy protocol: what the loop asks of the group that it trains in, and tensors by the names of seams.Trainee.

A rank's life: `wrap` once for each generation of the group, then for every step forward and backward (all micro-batches
but the last inside `no_sync`), `clip`, `update`. A change of the group ends with `close`, and a new strategy begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from mizzen.train.seams import Tensors

MODEL, OPTIMIZER = "model/", "optimizer/"


class Strategy(Protocol):
    """All ranks call these in the same order, where `lockstep` is true."""

    sharded: bool  # a rank holds a part of each tensor: a module must be built anew to join another group
    note: str  # what a person should know of how it works here; empty for most
    lockstep: bool  # every micro-batch meets the other ranks: all must take equally many, and no rank may repeat one

    def wrap(self, module: nn.Module) -> nn.Module:
        """What forward is called on. After backward, gradients are the mean over the ranks' gradients.

        Weights stay this rank's own: nothing is broadcast, for the group copies them from the rank that is furthest.
        """

    def no_sync(self, model: nn.Module) -> AbstractContextManager[object]:
        """Backward inside gathers gradients here and sends none; the next one outside sends the sum."""

    def sum(self, tensor: Tensor) -> None:
        """Add up a small tensor over all ranks, in place: losses and counts."""

    def most(self, tensor: Tensor) -> None:
        """The largest of all ranks, elementwise, in place."""

    def align(self, module: nn.Module) -> None:
        """Give all ranks the same buffers (running means of norms) before they measure or save."""

    def clip(self, parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
        """Scale gradients down to `max_norm`; the norm before, over all parameters of all ranks, as a plain tensor."""

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """One optimizer step from the gradients that are there."""

    def tensors(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
        """Views by the names of seams.Trainee.tensors."""

    def load(self, module: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
        """The inverse, in place."""

    def local_tensors(self) -> Tensors:
        """What this rank alone has."""

    def load_local(self, local: Sequence[Mapping[str, Tensor]]) -> None:
        """What each rank of a former group had; every rank takes the mean (see seams.Trainee.load)."""

    def counters(self) -> dict[str, float | str]:
        """For the status: bytes_sent, bytes_uncompressed, compression, dropped_gradients, ..."""

    def close(self) -> None:
        """Forget the group. It may be broken already."""


def named_tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
    """`model/NAME` of parameters and buffers, `optimizer/NAME|SLOT` of what the optimizer knows: views, no copies."""
    found = {f"{MODEL}{name}": value.detach() for name, value in module.state_dict().items()}
    for name, parameter in module.named_parameters():
        for slot, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                found[f"{OPTIMIZER}{name}|{slot}"] = value
    return found


@torch.no_grad()
def load_named_tensors(module: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse. Tensors that exist keep their place in memory; KeyError where one of the model's is missing."""
    for name, value in module.state_dict().items():
        value.copy_(tensors[f"{MODEL}{name}"])
    slots: dict[str, list[str]] = {}
    for key in tensors:  # values of a mapping may be read from a store when they are asked for, one at a time
        if key.startswith(OPTIMIZER):
            name, _, slot = key.removeprefix(OPTIMIZER).rpartition("|")
            slots.setdefault(name, []).append(slot)
    fused = any(group.get("fused") or group.get("capturable") for group in optimizer.param_groups)
    for name, parameter in module.named_parameters():
        state = optimizer.state[parameter] if name in slots else optimizer.state.pop(parameter, {})
        for slot in slots.get(name, []):
            value = tensors[f"{OPTIMIZER}{name}|{slot}"]
            if slot in state:
                state[slot].copy_(value)
            else:
                # As Optimizer.load_state_dict has it: a step count stays on the CPU, unless a kernel reads it.
                device = parameter.device if slot != "step" or fused else torch.device("cpu")
                state[slot] = value.detach().to(device, copy=True)


def whole_weights(module: nn.Module, *, keep: bool) -> Tensors:
    """The module's state on the CPU, gathered where ranks have shards of it: all ranks call it. Empty unless `keep`."""
    found = {}
    for name, value in module.state_dict().items():
        whole = value.full_tensor() if hasattr(value, "full_tensor") else value
        if keep:
            found[name] = whole.detach().cpu()
    return found
