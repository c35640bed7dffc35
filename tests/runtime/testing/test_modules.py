"""Forward, backward and learning by heart: good models pass, and each defect is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from mizzen.models import Model, catalog
from mizzen.models.building import Recipe
from mizzen.models.shapes import IMAGE, TABLE, TEXT, DataShape
from mizzen.testing import check_backward, check_forward, overfits_one_batch
from tests.runtime.testing.broken import (
    Blind,
    Detached,
    LateBlock,
    Pooled,
    Spoiled,
    Unused,
    Wider,
    rows,
    with_module,
)

SHAPES = {
    TEXT: DataShape(TEXT, ("a", "b", "c"), vocab_size=50, max_length=8),
    TABLE: DataShape(TABLE, num_features=5),
    IMAGE: DataShape(IMAGE, ("a", "b"), image=(1, 16, 16)),
}


def fresh(name: str) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """A model of the catalog, and inputs of four rows that are not alike."""
    data = SHAPES[catalog.MODELS[name].modality]
    torch.manual_seed(2)
    module = Recipe.by_name(name, {}, data).build()
    if data.modality == TEXT:
        return module, (torch.randint(2, 50, (4, 8)), torch.tensor([8, 5, 8, 3]))
    size = data.image if data.modality == IMAGE else (data.num_features,)
    return module, (torch.randn(4, *size),)


@pytest.mark.parametrize("name", list(catalog.MODELS))
def test_models_of_the_catalog_pass(name: str) -> None:
    module, inputs = fresh(name)
    outputs = SHAPES[catalog.MODELS[name].modality].outputs
    assert len(check_forward(module, inputs, outputs=outputs)) == 4
    check_backward(module, inputs)
    assert overfits_one_batch(module, inputs) <= 0.05


def test_a_model_is_checked_with_rows_with_tensors_and_with_none(model: Model) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert check_forward(model, rows()).shape == (4, 2)
    assert check_forward(model, model.inputs(rows())).shape == (4, 2)
    assert check_forward(model.trained).shape == (2, 2)
    check_backward(model)
    assert overfits_one_batch(model, rows()) <= 0.05
    assert overfits_one_batch(model, rows(), 1 - torch.tensor([1, 0, 0, 1])) <= 0.05, "against what it has learnt"
    assert torch.equal(state, torch.get_rng_state()), "random numbers are the caller's own"
    assert not model.training and all(value.grad is None for value in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


DEFECTS: list[tuple[Callable[[nn.Module], nn.Module], str]] = [
    (Spoiled, r"answer is nan at \[3, 0\]: 1 of 8 numbers are not finite"),
    (Wider, r"answers 4 rows with shape \(4, 4\), not \(4, 2\)"),
    (Pooled, r"shape \(1, 2\): the first size must be that of the rows"),
]


@pytest.mark.parametrize(("defect", "said"), DEFECTS, ids=lambda value: getattr(value, "__name__", ""))
def test_forward_finds(model: Model, defect: Callable[[nn.Module], nn.Module], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_forward(with_module(model, defect(model.module)), rows())


def test_backward_finds_what_gets_no_gradient(model: Model) -> None:
    for zero, said in (
        (False, r"2 of \d+ parameters get no gradient: the loss does not depend on aside.weight, aside.bias"),
        (True, r"2 of \d+ parameters get a gradient of nothing but zeros in all 3 steps: nothing reaches aside.weight"),
    ):
        broken = with_module(model, Unused(model.module, zero=zero))
        with pytest.raises(AssertionError, match=said):
            check_backward(broken, rows())
        check_backward(broken, rows(), without=["aside.*"])


def test_backward_waits_for_a_block_that_starts_as_zero() -> None:
    check_backward(LateBlock(), torch.randn(6, 4))


@pytest.mark.parametrize(
    ("defect", "said"),
    [
        (Detached, "answer has no graph: it is detached"),
        (Spoiled, "the loss is nan in step 0"),
        (lambda module: module.requires_grad_(False), "has no parameter that wants a gradient"),
    ],
    ids=["detached", "spoiled", "frozen"],
)
def test_backward_finds(model: Model, defect: Callable[[nn.Module], nn.Module], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_backward(with_module(model, defect(model.module)), rows())


class ExplodingGradient(torch.autograd.Function):
    """The answer is right, its gradient is not."""

    @staticmethod
    def forward(context: object, values: torch.Tensor) -> torch.Tensor:
        return values.clone()

    @staticmethod
    def backward(context: object, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0] * torch.nan


def test_backward_finds_gradients_that_are_not_finite() -> None:
    class Explodes(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = ExplodingGradient.apply(super().forward(input))  # type: ignore[no-untyped-call]
            return made

    with pytest.raises(AssertionError, match=r"the gradient of weight is nan at \[0, 0\]: 12 of 12"):
        check_backward(Explodes(4, 3), torch.randn(5, 4))


def test_what_cannot_learn_by_heart_is_found(model: Model) -> None:
    with pytest.raises(
        AssertionError, match=r"does not learn one batch of 4 rows by heart: after 30 steps its loss is 0"
    ):
        overfits_one_batch(with_module(model, Blind(model.module)), rows(), steps=30)


def test_a_loss_of_ones_own_is_used() -> None:
    with pytest.raises(AssertionError, match="at best, not under"):
        overfits_one_batch(
            nn.Linear(3, 2), torch.randn(3, 3), loss=lambda outputs, _: outputs.square().mean() + 1, steps=5
        )


def test_what_cannot_be_checked_is_said(model: Model) -> None:
    with pytest.raises(TypeError, match="Linear comes without a pipeline: give the tensors that it is called with"):
        check_forward(nn.Linear(3, 2))
    with pytest.raises(ValueError, match="at least one row"):
        check_forward(model, [])
    with pytest.raises(ValueError, match="rows 0 and 1 are the same to the model"):
        overfits_one_batch(nn.Linear(3, 2), torch.ones(2, 3), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="there are 2 rows and 3 targets"):
        check_backward(nn.Linear(3, 2), torch.ones(2, 3), torch.tensor([0, 1, 0]))
    with pytest.raises(ValueError, match="row 0 has the class 'fine'; the model knows bad, good"):
        check_backward(model, {"text": "x", "label": "fine"})
