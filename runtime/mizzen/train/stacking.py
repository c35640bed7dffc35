"""Staged depth: train with the first blocks only, then let each new block begin as a copy of a trained one.

"Efficient Training of BERT by Progressively Stacking" (Gong et al., 2019). The module has all its blocks from the
start, so that checkpoints and shards keep their shapes; those not yet in use are skipped and get no gradients.
"""

from __future__ import annotations

from typing import Protocol, cast

import torch
from torch import nn

from mizzen.errors import UserError
from mizzen_api.conditions import Reason


class Stackable(Protocol):
    """A module that runs `blocks[:active_depth]`; None means all."""

    blocks: nn.ModuleList
    active_depth: int | None


def stackable(module: nn.Module, depth: int) -> Stackable:
    """The module as one whose depth can grow to `depth`, or a UserError that says what is missing."""
    blocks = getattr(module, "blocks", None)
    if not isinstance(blocks, nn.ModuleList) or not hasattr(module, "active_depth"):
        raise UserError(
            Reason.INVALID_PARAMETERS,
            f"trainer.progressive.depth: {type(module).__name__} has no `blocks` and `active_depth` to grow by",
        )
    if depth != len(blocks):
        raise UserError(
            Reason.INVALID_PARAMETERS,
            f"trainer.progressive.depth.to is {depth}, but the model has {len(blocks)} blocks: make them equal",
        )
    return cast("Stackable", module)


def set_depth(module: Stackable, depth: int) -> None:
    """Use the first `depth` blocks. Wrap the module for its process group anew: other parameters take part."""
    module.active_depth = depth
    for number, block in enumerate(module.blocks):
        block.requires_grad_(number < depth)
    for parameter in (p for block in module.blocks[depth:] for p in block.parameters()):
        parameter.grad = None


def grow(module: Stackable, optimizer: torch.optim.Optimizer, depth: int) -> None:
    """Blocks that are new at `depth` become copies of those before, with what the optimizer knows of them."""
    before = module.active_depth or len(module.blocks)
    for number in range(before, depth):
        _copy(module.blocks[number % before], module.blocks[number], optimizer)
    set_depth(module, depth)


@torch.no_grad()
def _copy(source: nn.Module, target: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    target.load_state_dict(source.state_dict())
    for one, other in zip(source.parameters(), target.parameters(), strict=True):
        known = optimizer.state.get(one)
        if known:
            optimizer.state[other] = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in known.items()}
