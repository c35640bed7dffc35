"""The loop on a GPU, where there is one: precisions, the compiler, memory formats, and memory that really runs out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mizzen.models.building import Recipe
from mizzen.train.float8 import Float8Linear, to_float8
from mizzen.train.loop import Loop
from mizzen.train.step import MICRO_BATCH
from mizzen.train.tasks.base import Examples
from mizzen.train.tasks.table import TableTask
from tests.runtime.train.toys import CLASSES, FEATURES, TABLE_SHAPE, image_task, plan, rows

pytestmark = pytest.mark.filterwarnings("ignore:TensorFloat32")  # an advice of the compiler
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
WIDE = {"hidden_dim": 64, "num_layers": 2, "dropout": 0.0}


def table(count: int = 300) -> TableTask:
    x, y = rows(count)
    return TableTask(TABLE_SHAPE, lambda _: Examples({"features": x}, y), "cuda:0")


def losses(**changes: Any) -> list[float]:
    loop = Loop(plan(accelerator="gpu", settings=WIDE, epochs=6, learning_rate=3e-3, **changes), task=table())
    found = [result.loss for result in loop.steps()]
    assert not [note for note in loop.notes if "set compile" not in note]
    assert next(loop.module.parameters()).is_cuda
    assert loop.evaluate("test")["accuracy"] > 0.8
    return found


@needs_gpu
@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"precision": "fp8"},
        {"compile": True},
        {"compile": True, "precision": "fp8"},
        {"accumulation": 4},
        {"activation_checkpointing": True},
    ],
)
def test_settings_train_alike(changes: dict[str, Any]) -> None:
    assert losses(**changes) == pytest.approx(losses(), abs=0.05)


@needs_gpu
def test_channels_last_and_augmented_images() -> None:
    task = image_task()
    task.device, task.augment = torch.device("cuda:0"), ("flip", "crop", "rotate", "jitter")
    loop = Loop(plan(model="cnn", settings={"width": 8}, accelerator="gpu", channels_last=True), task=task)
    assert all(result.loss < 10 for result in loop.steps())
    assert loop.module.blocks[0][0].weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[index,union-attr]


class Swelling(nn.Module):
    """Takes 64 MiB for each row."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, len(CLASSES))

    def forward(self, x_BF: Tensor) -> Tensor:
        swollen = x_BF.repeat(1, 2**24 // FEATURES)
        answer: Tensor = self.linear(x_BF) + 0 * (swollen.exp().mean() if self.training else 0)
        return answer


@needs_gpu
def test_memory_that_really_runs_out() -> None:
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(5 * 2**30 / whole)
    try:
        loop = Loop(
            plan(accelerator="gpu", epochs=1), task=table(), built=(Recipe(TABLE_SHAPE, entrypoint="t:S"), Swelling())
        )
        assert len(list(loop.steps())) == 5
        assert loop.state.extras[MICRO_BATCH] in {16, 32}
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@needs_gpu
def test_products_in_fp8_are_near_those_in_fp32() -> None:
    torch.manual_seed(0)
    plain = nn.Linear(64, 32).cuda()
    other = nn.Sequential(plain)
    assert to_float8(other) == 1 and isinstance(other[0], Float8Linear) and other[0].weight is plain.weight
    x = torch.randn(50, 64, device="cuda", requires_grad=True)
    found, expected = other(x), plain(x)
    assert ((found - expected).norm() / expected.norm()).item() < 0.05
    (gx,) = torch.autograd.grad(found.float().square().sum(), x)
    (wanted,) = torch.autograd.grad(expected.square().sum(), x)
    assert ((gx - wanted).norm() / wanted.norm()).item() < 0.1


def test_what_cannot_be_multiplied_in_fp8_stays() -> None:
    module = nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 3), nn.Linear(20, 16))
    assert to_float8(module) == 1
    assert [type(part) for part in module] == [Float8Linear, nn.Linear, nn.Linear]
    torch.testing.assert_close(
        module[0](torch.ones(2, 64)), nn.functional.linear(torch.ones(2, 64), module[0].weight, module[0].bias)
    )
