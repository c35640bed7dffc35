"""Models with one defect each, which the checks must find."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mizzen.models import Model


def with_module(model: Model, module: nn.Module) -> Model:
    """The same pipeline and settings around another module."""
    return type(model)(replace(model.trained, module=module))


class Around(nn.Module):
    """Calls the module within; a defect changes its inputs or its answer."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *inputs: Tensor) -> Tensor:
        answer: Tensor = self.inner(*inputs)
        return answer


class Spoiled(Around):
    """The last row's first number is none."""

    def forward(self, *inputs: Tensor) -> Tensor:
        answer = super().forward(*inputs).clone()
        answer[-1, 0] = torch.nan
        return answer


class Wider(Around):
    def forward(self, *inputs: Tensor) -> Tensor:
        answer = super().forward(*inputs)
        return torch.cat([answer, answer], dim=1)


class Pooled(Around):
    """One answer for the whole batch."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return super().forward(*inputs).mean(dim=0, keepdim=True)


class Noisy(Around):
    """Dropout that evaluation does not end."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(*inputs), 0.5, training=True)


class AcrossBatch(Around):
    """Takes the mean of whatever rows came together."""

    def forward(self, *inputs: Tensor) -> Tensor:
        answer = super().forward(*inputs)
        return answer - 0.5 * answer.mean(dim=0)


class FirstRow(Around):
    """Gives the first row of a batch more than the others."""

    def forward(self, *inputs: Tensor) -> Tensor:
        answer = super().forward(*inputs)
        return torch.cat([answer[:1] if len(answer) == 1 else answer[:1] + 1, answer[1:]])


class CountsPadding(nn.Module):
    """A mean of embeddings that takes padding for words."""

    def __init__(self, vocab_size: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, 8)
        self.head = nn.Linear(8, classes)

    def forward(self, ids_BT: Tensor, lengths_B: Tensor) -> Tensor:
        answer: Tensor = self.head(self.embedding(ids_BT).mean(dim=1))
        return answer


class Detached(Around):
    def forward(self, *inputs: Tensor) -> Tensor:
        return super().forward(*inputs).detach()


class Unused(Around):
    """Has a layer that nothing goes through, or one that is multiplied by zero."""

    def __init__(self, inner: nn.Module, *, zero: bool = False) -> None:
        super().__init__(inner)
        self.aside, self.zero = nn.Linear(3, 2), zero

    def forward(self, *inputs: Tensor) -> Tensor:
        answer = super().forward(*inputs)
        return answer + 0 * self.aside(torch.ones(3)) if self.zero else answer


class Blind(Around):
    """Does not look at its inputs."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return super().forward(*(torch.ones_like(part) for part in inputs))


class LateBlock(nn.Module):
    """A residual block that starts as zero, as in many good networks: gradients come in the second step."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.head = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)), nn.Linear(4, 3)
        nn.init.zeros_(self.block[-1].weight)  # type: ignore[arg-type]

    def forward(self, x_BF: Tensor) -> Tensor:
        answer: Tensor = self.head(x_BF + self.block(x_BF))
        return answer


def rows() -> list[dict[str, Any]]:
    """For the models of the fixture `shelf`, of several lengths."""
    return [
        {"text": "This product is excellent", "label": "good"},
        {"text": "awful", "label": "bad"},
        {"text": "This product is a waste for us today", "label": "bad"},
        {"text": "a pleasure indeed", "label": "good"},
    ]
