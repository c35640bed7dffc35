"""What models share: the mask of a padded batch and the mean over what is not padding."""

from __future__ import annotations

import torch
from torch import Tensor

# Shapes: B rows of a batch, T tokens of the longest row, D embedding, H heads, K size of a head, C classes.


def mask_BT(lengths_B: Tensor, width: int) -> Tensor:
    """True where a row has a token."""
    return torch.arange(width, device=lengths_B.device)[None, :] < lengths_B[:, None]


def masked_mean_BD(x_BTD: Tensor, keep_BT: Tensor) -> Tensor:
    """Mean over the tokens of each row; rows have at least one token (Pipeline.transform_rows sees to it)."""
    weights_BT1 = keep_BT[..., None].to(x_BTD.dtype)
    return (x_BTD * weights_BT1).sum(dim=1) / weights_BT1.sum(dim=1)
