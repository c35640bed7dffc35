"""PowerSGD: a gradient matrix as the product of two thin ones, found by one step of power iteration from the last."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mizzen.train.compression.wire import ring_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mizzen.train.compression.residuals import Layout, Part, Residuals
    from mizzen.train.compression.wire import Wire


@dataclass(frozen=True)
class PowerSgd:
    """P = mean(M Q), orthogonalised; Q = mean(Mᵀ P); the mean gradient is P Qᵀ, and M - P Qᵀ is owed.

    Vogels et al., NeurIPS 2019 (arXiv:1905.13727), algorithms 1 and 2. M is (first dimension, all others); Q starts at
    random numbers that are alike on all ranks, and then where the step before ended (warm start).
    """

    rank: int = 2
    name: str = "powersgd"

    def packs(self, shape: tuple[int, ...]) -> bool:
        """Where the thin matrices have less than half of the values."""
        rows, columns = _matrix(shape)
        return len(shape) >= 2 and 2 * self._width(rows, columns) * (rows + columns) <= rows * columns

    def reserve(self, layout: Layout, residuals: Residuals, device: torch.device) -> None:
        residuals.of(layout, device)
        for part in layout.packed:
            self._basis(part, residuals, device)

    def mean(self, owed: Tensor, layout: Layout, residuals: Residuals, wire: Wire) -> Tensor:
        matrices = [value.view(_matrix(part.shape)) for part, value in _values(layout, owed)]
        bases = [self._basis(part, residuals, owed.device) for part in layout.packed]
        lefts = _mean([matrix @ basis for matrix, basis in zip(matrices, bases, strict=True)], wire)
        lefts = [_orthonormal(left) for left in lefts]
        rights = _mean([matrix.T @ left for matrix, left in zip(matrices, lefts, strict=True)], wire)
        mean = torch.empty_like(owed)
        for (_, out), left, right, basis in zip(_values(layout, mean), lefts, rights, bases, strict=True):
            torch.mm(left, right.T, out=out.view(left.shape[0], right.shape[0]))
            basis.copy_(torch.where(right.isfinite().all(), right, basis))
        owed.sub_(mean).nan_to_num_(0.0, 0.0, 0.0)
        return mean

    def bytes_for(self, layout: Layout, world: int) -> int:
        shapes = [_matrix(part.shape) for part in layout.packed]
        return ring_bytes(sum(4 * self._width(*shape) * sum(shape) for shape in shapes), world)

    def _basis(self, part: Part, residuals: Residuals, device: torch.device) -> Tensor:
        def first() -> Tensor:
            rows, columns = _matrix(part.shape)
            generator = torch.Generator().manual_seed(zlib.crc32(part.name.encode()))
            return torch.randn(columns, self._width(rows, columns), generator=generator).to(device)

        return residuals.kept(part.name, first)

    def _width(self, rows: int, columns: int) -> int:
        return min(self.rank, rows, columns)


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    return (shape[0], math.prod(shape[1:])) if shape else (1, 1)


def _values(layout: Layout, flat: Tensor) -> Iterator[tuple[Part, Tensor]]:
    return zip(layout.packed, torch.split(flat, [part.count for part in layout.packed]), strict=True)


def _mean(tensors: list[Tensor], wire: Wire) -> list[Tensor]:
    """All of them in one all-reduce."""
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    wire.mean(flat)
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def _orthonormal(matrix: Tensor) -> Tensor:
    """Householder's QR: columns of zeros become unit vectors, so that a gradient of zeros does not end the iteration.

    What is not finite stays so: LAPACK need not say what it makes of it.
    """
    bad = matrix.isfinite().all().logical_not_()
    basis = torch.linalg.qr(matrix.nan_to_num(0.0, 0.0, 0.0)).Q
    return torch.where(bad, torch.nan, basis)
