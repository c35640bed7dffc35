"""The histogram kernel agrees with its reference, and the reference with plain counting."""

from __future__ import annotations

import importlib.util
import logging
import math

import pytest
import torch

from mizzen_kernels.histogram import column_histograms, column_histograms_reference, op

TRITON = importlib.util.find_spec("triton") is not None


def plain(x: torch.Tensor, edges: torch.Tensor) -> list[list[int]]:
    counts = [[0] * (edges.shape[1] + 2) for _ in edges]
    for row in x.tolist():
        for feature, value in enumerate(row):
            at = edges.shape[1] + 1 if math.isnan(value) else sum(e <= value for e in edges[feature].tolist())
            counts[feature][at] += 1
    return counts


def sample(rows: int, columns: int, edges: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(7)
    edges_FE = torch.randn(columns, edges, generator=draw).sort(1).values
    x_NF = torch.randn(rows, columns, generator=draw)
    for at, odd in enumerate([math.nan, math.inf, -math.inf, edges_FE[0, 0].item(), edges_FE[0, -1].item()]):
        if at < rows:
            x_NF[at, 0] = odd
    return x_NF, edges_FE


SHAPES = [(1, 1, 1), (5, 2, 1), (100, 3, 9), (1025, 2, 30), (2100, 1, 31)]


@pytest.mark.parametrize("shape", SHAPES)
def test_reference_counts(shape: tuple[int, int, int]) -> None:
    x_NF, edges_FE = sample(*shape)
    assert column_histograms_reference(x_NF, edges_FE).tolist() == plain(x_NF, edges_FE)


@pytest.mark.skipif(not TRITON, reason="the kernels extra is not installed")
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", [*SHAPES, (0, 3, 4)])
def test_kernel_agrees_with_the_reference(
    shape: tuple[int, int, int], transposed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not torch.cuda.is_available():
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    op._kernel.cache_clear()
    x_NF, edges_FE = sample(*shape)
    if torch.cuda.is_available():
        x_NF, edges_FE = x_NF.cuda(), edges_FE.cuda()
    if transposed:
        x_NF = x_NF.T.contiguous().T  # the kernel goes by strides
    assert torch.equal(op._launch(x_NF, edges_FE), column_histograms_reference(x_NF, edges_FE))


def test_cpu_tensors_run_the_reference_and_say_so_once(caplog: pytest.LogCaptureFixture) -> None:
    op._say_once.cache_clear()
    x_NF, edges_FE = sample(10, 2, 3)
    with caplog.at_level(logging.WARNING):
        first, second = column_histograms(x_NF, edges_FE), column_histograms(x_NF, edges_FE)
    assert torch.equal(first, second)
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("x", "edges", "message"),
    [
        (torch.zeros(3), torch.zeros(3, 1), "x (N, F)"),
        (torch.zeros(3, 2), torch.zeros(3, 1), "(3, 2) and (3, 1)"),
        (torch.zeros(3, 2, dtype=torch.float64), torch.zeros(2, 1), "float32"),
        (torch.zeros(3, 2), torch.zeros(2, 0), "1 to 1022 edges"),
    ],
)
def test_what_is_wrong_is_said(x: torch.Tensor, edges: torch.Tensor, message: str) -> None:
    import re

    with pytest.raises(ValueError, match=re.escape(message)):
        column_histograms(x, edges)
