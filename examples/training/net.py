"""A model of one's own for texts, and a training function of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from mizzen.models.shapes import DataShape
    from mizzen.train.group.function import Context

STEPS, BATCH = 200, 256


class Net(nn.Module):
    """The mean of the words' embeddings, and a layer."""

    def __init__(self, width: int, data: DataShape) -> None:
        super().__init__()
        self.words = nn.Embedding(data.vocab_size, width, padding_idx=0)
        self.classes = nn.Linear(width, data.outputs)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        classes: Tensor = self.classes(self.words(ids).sum(dim=1) / lengths.clamp(min=1)[:, None])
        return classes


def build(config: dict[str, Any], data: DataShape) -> Net:
    return Net(config["width"], data)


def train(context: Context) -> None:
    model = context.model()
    optimizer = torch.optim.Adam(model.parameters(), lr=context.config["learning_rate"])
    step = context.restore(model=model, optimizer=optimizer)
    ddp = DistributedDataParallel(model) if context.world > 1 else model
    rows = context.shard("train")
    while step < STEPS:
        for inputs, targets in rows.batches(BATCH // context.world, epoch=step):
            loss = cross_entropy(ddp(*inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            context.report({"loss": loss.item()}, step=step)
            if step % 20 == 0:
                context.save(step=step, model=model, optimizer=optimizer)
            if step == STEPS:
                break
