"""The kernel and its entry point. Shapes: N rows, F features (columns), E inner edges."""

from __future__ import annotations

import functools
import logging
import os

import torch

from mizzen_kernels.histogram.reference import column_histograms_reference

log = logging.getLogger(__name__)

BLOCK_N = 1024
MAX_EDGES = 1022  # a block of 1024 bins, two of which are the last one and the one for missing values


def column_histograms(x_NF: torch.Tensor, edges_FE: torch.Tensor) -> torch.Tensor:
    """Counts of each column's values between that column's own edges, (F, E + 2), int32.

        counts[f, b] = Σ_n [ #{k : edges[f, k] ≤ x[n, f]} = b ]   for b = 0 … E
        counts[f, E + 1] = Σ_n [ x[n, f] is NaN ]

    Inner edges only, ascending in each row: what lies below the first or at and above the last has a bin, so a
    shifted distribution is seen and never dropped. With quantiles of a reference as edges these are the counts of
    the population stability index (Siddiqi, Credit Risk Scorecards, 2006).

    x_NF: float32; edges_FE: float32, E from 1 to 1022. On CPU tensors the PyTorch reference runs, and says so once.
    """
    _check(x_NF, edges_FE)
    if x_NF.device.type == "cpu" and not _interpreted():
        _say_once()
        return column_histograms_reference(x_NF, edges_FE)
    return _launch(x_NF, edges_FE)


def _check(x_NF: torch.Tensor, edges_FE: torch.Tensor) -> None:
    if x_NF.ndim != 2 or edges_FE.ndim != 2 or x_NF.shape[1] != edges_FE.shape[0]:
        raise ValueError(f"want x (N, F) and edges (F, E), got {tuple(x_NF.shape)} and {tuple(edges_FE.shape)}")
    if x_NF.dtype != torch.float32 or edges_FE.dtype != torch.float32:
        raise ValueError(f"want float32, got {x_NF.dtype} and {edges_FE.dtype}")
    if x_NF.device != edges_FE.device:
        raise ValueError(f"x is on {x_NF.device}, edges are on {edges_FE.device}")
    if not 1 <= edges_FE.shape[1] <= MAX_EDGES:
        raise ValueError(f"want 1 to {MAX_EDGES} edges, got {edges_FE.shape[1]}")


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def _say_once() -> None:
    log.warning("column_histograms: the tensors are on the CPU, so the PyTorch reference runs, not the Triton kernel")


def _launch(x_NF: torch.Tensor, edges_FE: torch.Tensor) -> torch.Tensor:
    import triton

    rows, features = x_NF.shape
    edges = edges_FE.shape[1]
    counts = torch.zeros(features, edges + 2, dtype=torch.int32, device=x_NF.device)
    if rows == 0 or features == 0:
        return counts
    steps = (edges + 1).bit_length()  # halvings that bring any count of edges down to one bin
    # Neighbouring programs take neighbouring columns of the same rows: they share cache lines.
    _kernel()[(features, triton.cdiv(rows, BLOCK_N))](
        x_NF, edges_FE.contiguous(), counts, rows, edges, x_NF.stride(0), x_NF.stride(1),
        STEPS=steps, BLOCK_N=BLOCK_N, BLOCK_B=triton.next_power_of_2(edges + 2),
    )  # fmt: skip
    return counts


@functools.cache
def _kernel():  # type: ignore[no-untyped-def]
    """Built at the first launch: importing this module must not need Triton."""
    import triton
    import triton.language as tl

    @triton.jit  # type: ignore[untyped-decorator]
    def histogram_kernel(  # type: ignore[no-untyped-def]  # noqa: PLR0913, PLR0917
        x_ptr, edges_ptr, counts_ptr, rows, edges, stride_n, stride_f,
        STEPS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_B: tl.constexpr,
    ):  # fmt: skip
        feature = tl.program_id(0).to(tl.int64)
        row = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
        here = row < rows
        x = tl.load(x_ptr + row * stride_n + feature * stride_f, mask=here, other=0.0)
        # Binary search for the number of edges that are not above x.
        low = tl.zeros([BLOCK_N], tl.int32)
        high = tl.zeros([BLOCK_N], tl.int32) + edges
        for _ in range(STEPS):
            middle = (low + high) // 2
            open_ = low < high
            edge = tl.load(edges_ptr + feature * edges + middle, mask=open_, other=0.0)
            above = x >= edge
            low = tl.where(open_ & above, middle + 1, low)
            high = tl.where(open_ & (x < edge), middle, high)
        bins = tl.where(x != x, edges + 1, low)  # noqa: PLR0124  # NaN is the one value that differs from itself
        counted = tl.histogram(bins, BLOCK_B, mask=here)
        at = tl.arange(0, BLOCK_B)
        tl.atomic_add(counts_ptr + feature * (edges + 2) + at, counted, mask=(at < edges + 2) & (counted > 0))

    return histogram_kernel
