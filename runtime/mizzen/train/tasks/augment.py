"""Random changes of training images, a whole batch at once; random numbers are torch's, which the loop seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

CROP = 8  # a crop moves by up to this part of the side
MAX_ANGLE = math.radians(15)
JITTER = 0.2  # brightness and contrast change by up to this part


def augmented(x_BCHW: Tensor, steps: Sequence[str]) -> Tensor:
    """Images of 0..1, each changed in its own way by `steps`: flip, crop, rotate, jitter."""
    if "flip" in steps:
        x_BCHW = flip(x_BCHW)
    if "rotate" in steps:
        x_BCHW = rotate(x_BCHW)
    if "crop" in steps:
        x_BCHW = crop(x_BCHW)
    return jitter(x_BCHW) if "jitter" in steps else x_BCHW


def flip(x_BCHW: Tensor) -> Tensor:
    """Left and right change places in every second image."""
    turned_B111 = _uniform(x_BCHW, 0, 1) < 0.5
    return torch.where(turned_B111, x_BCHW.flip(-1), x_BCHW)


def crop(x_BCHW: Tensor) -> Tensor:
    """Moved by up to an eighth of each side; what comes into view is black."""
    B, _, H, W = x_BCHW.shape
    high, wide = H // CROP, W // CROP
    padded = pad(x_BCHW, (wide, wide, high, high))
    device = x_BCHW.device
    top_B = torch.randint(0, 2 * high + 1, (B,), device=device)
    left_B = torch.randint(0, 2 * wide + 1, (B,), device=device)
    rows_BH = top_B[:, None] + torch.arange(H, device=device)
    columns_BW = left_B[:, None] + torch.arange(W, device=device)
    moved_BHWC = padded.permute(0, 2, 3, 1)[
        torch.arange(B, device=device)[:, None, None], rows_BH[:, :, None], columns_BW[:, None, :]
    ]
    return moved_BHWC.permute(0, 3, 1, 2)


def rotate(x_BCHW: Tensor) -> Tensor:
    """Turned about the middle by up to 15 degrees either way."""
    B, C, H, W = x_BCHW.shape
    angle_B = _uniform(x_BCHW, -MAX_ANGLE, MAX_ANGLE).view(B)
    cos, sin, none = torch.cos(angle_B), torch.sin(angle_B), torch.zeros_like(angle_B)
    # The grid's coordinates go from -1 to 1 on both sides: where these differ, a turn must not shear.
    matrix_B23 = torch.stack([cos, -sin * H / W, none, sin * W / H, cos, none], dim=1).view(B, 2, 3)
    grid_BHW2 = affine_grid(matrix_B23, [B, C, H, W], align_corners=False)
    return grid_sample(x_BCHW, grid_BHW2, mode="bilinear", padding_mode="zeros", align_corners=False)


def jitter(x_BCHW: Tensor) -> Tensor:
    """Brightness and contrast by up to a fifth."""
    mean_B111 = x_BCHW.mean(dim=(1, 2, 3), keepdim=True)
    contrasted = (x_BCHW - mean_B111) * _uniform(x_BCHW, 1 - JITTER, 1 + JITTER) + mean_B111
    return (contrasted * _uniform(x_BCHW, 1 - JITTER, 1 + JITTER)).clamp_(0, 1)


def _uniform(x_BCHW: Tensor, low: float, high: float) -> Tensor:
    """(B, 1, 1, 1)."""
    return torch.rand(len(x_BCHW), 1, 1, 1, device=x_BCHW.device) * (high - low) + low
