"""Distillation: a student learns from the labels and from what a frozen teacher makes of the same inputs.

The loop wraps the student in `Distilled` and takes `distillation_loss` of its outputs into the step's loss.

Logits: T² KL(softmax(teacher / T) ‖ softmax(student / T)), "Distilling the Knowledge in a Neural Network" (Hinton
et al., 2015). Hidden states: mean squared error after a linear map, each block of the student with the evenly spaced
one of the teacher, "TinyBERT: Distilling BERT for Natural Language Understanding" (Jiao et al., 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax, mse_loss

from mizzen.errors import UserError
from mizzen.models.layers import token_mask
from mizzen_api.conditions import Reason
from mizzen_api.trainingjob_trainer import Distillation

Features = list[Tensor]


@dataclass
class DistilledOutput:
    """What both made of one batch. `hidden` is the squared error of hidden states, summed over rows."""

    student: Tensor
    teacher: Tensor
    hidden: Tensor


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Sum over rows of logits (B, C). Outputs of one column are values, not logits: their squared error."""
    student, teacher = student.float(), teacher.float()
    if student.dim() == 1 or student.shape[-1] == 1:
        return mse_loss(student, teacher, reduction="sum")
    soft = log_softmax(student / temperature, dim=-1)
    return (
        temperature**2
        * kl_div(soft, log_softmax(teacher / temperature, dim=-1), log_target=True, reduction="none").sum(dim=-1).sum()
    )


def distillation_loss(settings: Distillation, output: DistilledOutput, hard_loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Sum over rows: (1 - weight) hard + weight soft + hidden_states hidden."""
    soft = soft_loss(output.student, output.teacher, settings.temperature)
    loss = (1 - settings.weight) * hard_loss(output.student) + settings.weight * soft
    return loss + settings.hidden_states * output.hidden if settings.hidden_states else loss


class Distilled(nn.Module):
    """A student beside its teacher. Parameters are the student's and the maps between hidden states.

    `student` keeps its own weights under `student.`; the teacher is no part of the state.
    """

    def __init__(
        self, student: nn.Module, teacher: nn.Module, settings: Distillation, example: tuple[Any, ...]
    ) -> None:
        super().__init__()
        self.student = student
        self.settings = settings
        # Not a submodule: it has no gradients, no checkpoint and no place in a process group.
        self._teacher = [teacher.eval().requires_grad_(requires_grad=False)]
        self.maps = nn.ModuleList(self._maps(example)) if settings.hidden_states else nn.ModuleList()

    def forward(self, *inputs: Tensor) -> DistilledOutput:
        keep = _kept(inputs)
        with _hidden(self.student, wanted=bool(self.maps)) as mine:
            student: Tensor = self.student(*inputs)
        with torch.no_grad(), _hidden(self._teacher[0], wanted=bool(self.maps)) as its:
            teacher: Tensor = self._teacher[0](*inputs)
        if student.shape != teacher.shape:
            raise _unlike(student, teacher)
        return DistilledOutput(student, teacher, self._hidden_error(mine, its, keep, student))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Distilled:
        """The way of `to`: both of them go."""
        self._teacher[0]._apply(fn, recurse)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _hidden_error(self, mine: Features, its: Features, keep: Tensor | None, student: Tensor) -> Tensor:
        total = student.new_zeros((), dtype=torch.float32)
        for at, linear in enumerate(self.maps):
            teacher = its[_partner(at, len(mine), len(its))]
            difference = linear(_pooled(mine[at])).float() - _pooled(teacher).float()
            total = total + _row_means(difference.square(), keep).sum()
        return total

    def _maps(self, example: tuple[Any, ...]) -> Iterator[nn.Linear]:
        with torch.no_grad(), _hidden(self.student) as mine, _hidden(self._teacher[0]) as its:
            self.student(*example)
            self._teacher[0](*example)
        if not mine or not its:
            without = "student" if not mine else "teacher"
            raise UserError(
                Reason.INVALID_PARAMETERS,
                f"trainer.distillation.hiddenStates: the {without} has no `blocks` whose outputs could be compared; "
                "set it to 0 to learn from the logits alone",
            )
        for at, one in enumerate(mine):
            other = its[_partner(at, len(mine), len(its))]
            yield nn.Linear(_pooled(one).shape[-1], _pooled(other).shape[-1], bias=False)


def _partner(block: int, mine: int, its: int) -> int:
    """The teacher's block for one of the student: evenly spaced, the last with the last."""
    return round((block + 1) * its / mine) - 1 if its >= mine else min(its - 1, block * its // mine)


def _pooled(features: Tensor) -> Tensor:
    """(B, T, D) and (B, D) as they are; images (B, C, H, W) by their mean over places: sizes may differ."""
    return features.mean(dim=(2, 3)) if features.dim() == 4 else features


def _row_means(error: Tensor, keep: Tensor | None) -> Tensor:
    """One mean for each row; padding does not count."""
    if error.dim() == 3 and keep is not None:
        weights = keep.to(error.dtype)
        return (error.mean(dim=-1) * weights).sum(dim=1) / weights.sum(dim=1)
    return error.flatten(1).mean(dim=1)


def _kept(inputs: tuple[Tensor, ...]) -> Tensor | None:
    """Text comes as ids (B, T) and lengths (B,)."""
    if len(inputs) == 2 and inputs[0].dim() == 2 and inputs[1].dim() == 1:
        return token_mask(inputs[1], inputs[0].shape[1])
    return None


@contextmanager
def _hidden(module: nn.Module, *, wanted: bool = True) -> Iterator[Features]:
    """Outputs of the module's `blocks` in the forward pass inside the context."""
    found: Features = []
    blocks = getattr(module, "blocks", None)
    handles = []
    if wanted and isinstance(blocks, nn.ModuleList | nn.Sequential):
        handles = [block.register_forward_hook(lambda _m, _i, output: found.append(output)) for block in blocks]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _unlike(student: Tensor, teacher: Tensor) -> UserError:
    return UserError(
        Reason.INVALID_PARAMETERS,
        f"trainer.distillation: the teacher answers with shape {tuple(teacher.shape[1:])}, the student with "
        f"{tuple(student.shape[1:])}: take a teacher that was trained on the same classes",
    )
