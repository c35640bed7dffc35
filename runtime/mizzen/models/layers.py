"""What models share: the mask of a padded batch, the mean over what is not padding, and a cheap dropout."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Shapes: B rows of a batch, T tokens of the longest row, D embedding, H heads, K size of a head, C classes.


def token_mask(lengths_B: Tensor, width: int) -> Tensor:
    """True where a row has a token."""
    return torch.arange(width, device=lengths_B.device)[None, :] < lengths_B[:, None]


def masked_mean(x_BTD: Tensor, keep_BT: Tensor) -> Tensor:
    """Mean over the tokens of each row; rows have at least one token (Pipeline.transform_rows sees to it)."""
    weights_BT1 = keep_BT[..., None].to(x_BTD.dtype)
    return (x_BTD * weights_BT1).sum(dim=1) / weights_BT1.sum(dim=1)


class LockedDropout(nn.Module):
    """Dropout with one mask for all tokens of a row (Gal and Ghahramani, 2016): T times fewer random numbers."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x_BTD: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x_BTD
        keep_B1D = torch.rand(x_BTD.shape[0], 1, x_BTD.shape[2], device=x_BTD.device) >= self.p
        return x_BTD * (keep_B1D.to(x_BTD.dtype) / (1.0 - self.p))
