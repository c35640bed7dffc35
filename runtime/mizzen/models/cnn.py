"""`cnn`: three pairs of convolutions, each pair at half the size and twice the width; for small images.

"Very Deep Convolutional Networks for Large-Scale Image Recognition" (Simonyan and Zisserman, 2014) in small, with
batch norm and a mean over places, so that it takes images of any size.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class CnnConfig:
    channels: int
    num_classes: int
    width: int = 32
    dropout: float = 0.2


def _pair(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
        nn.Conv2d(after, after, 3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
        nn.MaxPool2d(2, ceil_mode=True),
    )


class Cnn(nn.Module):
    """x (B, channels, H, W) to logits (B, C)."""

    def __init__(self, config: CnnConfig) -> None:
        super().__init__()
        W = config.width
        self.blocks = nn.Sequential(_pair(config.channels, W), _pair(W, 2 * W), _pair(2 * W, 4 * W))
        self.drop = nn.Dropout(config.dropout)
        self.head = nn.Linear(4 * W, config.num_classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        logits_BC: Tensor = self.head(self.drop(self.blocks(x_BCHW).mean(dim=(2, 3))))
        return logits_BC
