"""`resnet`: residual networks of basic blocks (depth 10, 18, 34) and of bottlenecks (50), for small and large images.

"Deep Residual Learning for Image Recognition" (He et al., 2015); strides of bottlenecks in the 3 × 3 convolution and
each block's last norm starting at zero as in "Accurate, Large Minibatch SGD" (Goyal et al., 2017).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Blocks at each of four sizes.
DEPTHS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
_BOTTLENECK_FROM = 50
_SMALL = 64  # images up to so many pixels keep their size in the stem


@dataclass(frozen=True)
class ResNetConfig:
    channels: int
    num_classes: int
    image_size: int
    depth: int = 18
    width: int = 64  # channels at the first size

    def __post_init__(self) -> None:
        if self.depth not in DEPTHS:
            raise ValueError(f"depth must be one of {', '.join(map(str, DEPTHS))}, not {self.depth}")


def _conv(before: int, after: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(after))


class ResBlock(nn.Module):
    """relu(shortcut(x) + body(x)); the body is two 3 × 3 convolutions, or 1 × 1, 3 × 3, 1 × 1."""

    def __init__(self, before: int, width: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        after = 4 * width if bottleneck else width
        if bottleneck:
            convs = [_conv(before, width, 1), _conv(width, width, 3, stride), _conv(width, after, 1)]
        else:
            convs = [_conv(before, width, 3, stride), _conv(width, after, 3)]
        self.body = nn.Sequential(*(part for conv in convs for part in (conv, nn.ReLU())))[:-1]
        self.shortcut = nn.Identity() if before == after and stride == 1 else _conv(before, after, 1, stride)
        nn.init.zeros_(convs[-1][1].weight)  # type: ignore[arg-type]

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return torch.relu(self.shortcut(x_BCHW) + self.body(x_BCHW))


def _stem(config: ResNetConfig) -> nn.Sequential:
    """Small images keep their size; large ones are a quarter of it afterwards, as in the paper."""
    if config.image_size <= _SMALL:
        return nn.Sequential(_conv(config.channels, config.width, 3), nn.ReLU())
    return nn.Sequential(_conv(config.channels, config.width, 7, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1))


class ResNet(nn.Module):
    """x (B, channels, H, W) to logits (B, C)."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        bottleneck = config.depth >= _BOTTLENECK_FROM
        self.stem = _stem(config)
        blocks: list[nn.Module] = []
        before = config.width
        for stage, count in enumerate(DEPTHS[config.depth]):
            width = config.width * 2**stage
            for number in range(count):
                stride = 2 if stage and not number else 1
                blocks.append(ResBlock(before, width, stride, bottleneck=bottleneck))
                before = 4 * width if bottleneck else width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(before, config.num_classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        logits_BC: Tensor = self.head(self.blocks(self.stem(x_BCHW)).mean(dim=(2, 3)))
        return logits_BC
