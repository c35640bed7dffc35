"""Arithmetic of forward and backward: autocast, and for fp16 a loss scale that is part of the run's state."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from mizzen.train.seams import TrainState

SCALE, GOOD_STEPS = "loss_scale", "loss_scale_good_steps"
FIRST_SCALE = 65536.0
GROW_AFTER = 2000  # steps without an overflow
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp8": torch.bfloat16}


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Weights stay fp32. fp8 is that of the linear layers (float8.py); all else is bf16 then."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_AUTOCAST[precision])


class LossScale:
    """Keeps small gradients above what fp16 can hold: "Mixed Precision Training" (Micikevicius et al., 2017).

    torch's GradScaler decides rank by rank; this one goes by the norm over all ranks, and its two numbers lie in
    `state.extras`, so that a resumed run scales as the lost one did.
    """

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled

    def of(self, state: TrainState) -> float:
        return float(state.extras.get(SCALE, FIRST_SCALE)) if self.enabled else 1.0

    def unscale(self, parameters: Iterable[nn.Parameter], state: TrainState) -> None:
        """Gradients as they would be without."""
        if not self.enabled:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        torch._foreach_mul_(gradients, 1.0 / self.of(state))

    def after(self, state: TrainState, *, finite: bool) -> None:
        """Half after an overflow, twice as much after many steps without."""
        if not self.enabled:
            return
        scale, good = self.of(state), int(state.extras.get(GOOD_STEPS, 0)) + 1
        if not finite:
            scale, good = scale / 2, 0
        elif good >= GROW_AFTER:
            scale, good = scale * 2, 0
        state.extras[SCALE], state.extras[GOOD_STEPS] = scale, good
