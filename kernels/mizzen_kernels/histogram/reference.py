"""The formula in PyTorch: what op.py must agree with, and what CPU tensors run."""

from __future__ import annotations

import torch


def column_histograms_reference(x_NF: torch.Tensor, edges_FE: torch.Tensor) -> torch.Tensor:
    """Counts (F, E + 2), int32; see `op.column_histograms` for the formula."""
    features, edges = edges_FE.shape
    bins_FN = torch.searchsorted(edges_FE.contiguous(), x_NF.T.contiguous(), right=True)
    bins_FN = torch.where(torch.isnan(x_NF.T), edges + 1, bins_FN)
    counts = torch.zeros(features, edges + 2, dtype=torch.int64, device=x_NF.device)
    counts.scatter_add_(1, bins_FN, torch.ones_like(bins_FN))
    return counts.to(torch.int32)
