"""A student beside its teacher."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mizzen.errors import UserError
from mizzen.models.text_bag import TextBag, TextBagConfig
from mizzen.models.text_transformer import TextTransformer, TextTransformerConfig
from mizzen.train.distill import Distilled, DistilledOutput, distillation_loss, soft_loss
from mizzen_api.trainingjob_trainer import Distillation

IDS = torch.randint(1, 50, (6, 9), generator=torch.Generator().manual_seed(0))
LENGTHS = torch.tensor([9, 3, 1, 7, 9, 2])
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def transformer(width: int, layers: int, classes: int = 3) -> TextTransformer:
    torch.manual_seed(width)
    return TextTransformer(TextTransformerConfig(50, classes, 16, width, layers, attention_heads=2, dropout=0.0))


def hard(outputs: Tensor) -> Tensor:
    return cross_entropy(outputs, LABELS, reduction="sum")


def test_the_soft_loss_is_the_paper_s() -> None:
    student, teacher = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    p, q = torch.softmax(teacher / 3, -1), torch.softmax(student / 3, -1)
    wanted = 9 * (p * (p.log() - q.log())).sum()
    assert soft_loss(student, teacher, 3.0).item() == pytest.approx(wanted.item(), rel=1e-5)
    assert soft_loss(teacher, teacher, 3.0).item() == pytest.approx(0, abs=1e-5)
    assert soft_loss(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.5], [2.0]]), 3.0).item() == pytest.approx(0.25)


def test_weights_of_the_parts() -> None:
    output = DistilledOutput(torch.randn(6, 3), torch.randn(6, 3), torch.tensor(7.0))
    soft = soft_loss(output.student, output.teacher, 2.0)
    for weight, hidden in ((0.0, 0.0), (1.0, 0.0), (0.3, 0.5)):
        settings = Distillation(teacher_uri="models:/big/7", weight=weight, hidden_states=hidden)
        wanted = (1 - weight) * hard(output.student) + weight * soft + hidden * 7.0
        assert distillation_loss(settings, output, hard).item() == pytest.approx(wanted.item(), rel=1e-6)


def test_hidden_states_pull_the_student_to_its_teacher() -> None:
    settings = Distillation(teacher_uri="models:/big/7", hidden_states=1.0, weight=1.0)
    both = Distilled(transformer(8, 2), transformer(16, 4), settings, (IDS, LENGTHS))
    assert [tuple(m.weight.shape) for m in both.maps] == [(16, 8), (16, 8)]  # type: ignore[union-attr]
    frozen = [p.clone() for p in both._teacher[0].parameters()]
    optimizer = torch.optim.Adam(both.parameters(), lr=1e-2)
    errors = []
    for _ in range(60):
        output = both(IDS, LENGTHS)
        optimizer.zero_grad()
        distillation_loss(settings, output, hard).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        errors.append((output.hidden.item(), soft_loss(output.student, output.teacher, 2.0).item()))
    assert errors[-1][0] < 0.6 * errors[0][0] and errors[-1][1] < 0.3 * errors[0][1]
    assert all(torch.equal(a, b) for a, b in zip(frozen, both._teacher[0].parameters(), strict=True))
    assert not any(name.startswith("_teacher") for name in both.state_dict())


def test_padding_does_not_count() -> None:
    settings = Distillation(teacher_uri="models:/big/7", hidden_states=1.0)
    both = Distilled(transformer(8, 1), transformer(8, 1).eval(), settings, (IDS, LENGTHS))
    alone = sum(both(IDS[i : i + 1, :n], LENGTHS[i : i + 1]).hidden.item() for i, n in enumerate(LENGTHS.tolist()))
    assert both(IDS, LENGTHS).hidden.item() == pytest.approx(alone, rel=1e-4)


def test_what_cannot_be_compared_is_said() -> None:
    bag = TextBag(TextBagConfig(50, 3, 16))
    with pytest.raises(UserError, match=r"hiddenStates: the teacher has no `blocks`"):
        Distilled(transformer(8, 1), bag, Distillation(teacher_uri="models:/x/1", hidden_states=1.0), (IDS, LENGTHS))
    other = Distilled(
        transformer(8, 1), transformer(8, 1, classes=5), Distillation(teacher_uri="models:/x/1"), (IDS, LENGTHS)
    )
    with pytest.raises(UserError, match=r"teacher answers with shape \(5,\), the student with \(3,\)"):
        other(IDS, LENGTHS)


def test_the_teacher_goes_where_the_student_goes() -> None:
    teacher = transformer(8, 1)
    settings = Distillation(teacher_uri="models:/x/1")
    both = Distilled(transformer(8, 1), teacher, settings, (IDS, LENGTHS)).to("meta")
    assert {value.device.type for value in [*teacher.parameters(), *both.parameters()]} == {"meta"}


def test_images_compare_by_their_mean() -> None:
    class Tiny(nn.Module):
        def __init__(self, channels: int, stride: int) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.Conv2d(1, channels, 3, stride=stride)])
            self.head = nn.Linear(channels, 2)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(self.blocks[0](x).mean(dim=(2, 3)))
            return y

    images = torch.randn(4, 1, 8, 8)
    both = Distilled(Tiny(3, 2), Tiny(5, 1), Distillation(teacher_uri="models:/x/1", hidden_states=1.0), (images,))
    assert both(images).hidden.item() > 0
