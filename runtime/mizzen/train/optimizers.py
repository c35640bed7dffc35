"""The optimizers that a plan may name, in their fused form where torch has it for the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from mizzen.train.plan import TrainPlan

BETAS = (0.9, 0.98)
_FUSED_ON = ("cpu", "cuda", "xpu", "mps")


def optimizer_of(plan: TrainPlan, module: nn.Module, *, sharded: bool = False) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter, 2017), or SGD with Nesterov's momentum. Shards take the foreach form."""
    groups = decay_groups(module, plan.weight_decay)
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    form = {"fused": True} if not sharded and devices <= set(_FUSED_ON) else {"foreach": True}
    if plan.optimizer == "sgd":
        nesterov = plan.momentum > 0
        return torch.optim.SGD(groups, lr=plan.learning_rate, momentum=plan.momentum, nesterov=nesterov, **form)
    return torch.optim.AdamW(groups, lr=plan.learning_rate, betas=BETAS, **form)


def decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; biases and norms do not."""
    matrices = [parameter for parameter in module.parameters() if parameter.dim() >= 2]
    vectors = [parameter for parameter in module.parameters() if parameter.dim() < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
