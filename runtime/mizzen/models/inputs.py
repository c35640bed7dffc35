"""From the arrays of a pipeline to the tensors that a model is called with; the same for serving and for training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mizzen.data.pipeline import IDS, LENGTHS, MATRIX, Arrays, RowError, matrix_names
from mizzen.models.shapes import IMAGE, TEXT, DataShape

if TYPE_CHECKING:
    from mizzen.data.steps.base import Feature


def inputs_of(data: DataShape, features: Sequence[Feature], arrays: Arrays) -> tuple[Tensor, ...]:
    """Inputs of all rows, see DataShape. RowError names a row whose number is missing."""
    if data.modality == TEXT:
        lengths = arrays[LENGTHS]
        width = int(lengths.max(initial=1))  # cutting to the longest row changes no result
        return torch.from_numpy(arrays[IDS][:, :width].astype(np.int64)), torch.from_numpy(lengths)
    if data.modality == IMAGE:
        (name,) = (feature.name for feature in features if feature.kind == "image")
        return (torch.from_numpy(arrays[name]),)
    x = torch.cat(table_parts(features, arrays), dim=1)
    gaps = torch.isnan(x).nonzero()
    if len(gaps):
        row, column = gaps[0].tolist()
        raise RowError(f"row {row}: {missing(features, column)} is missing, and nothing fills it in")
    return (x,)


def table_parts(features: Sequence[Feature], arrays: Arrays) -> list[Tensor]:
    """Blocks of columns: the numbers and one-hot columns, then each sparse feature, written out."""
    parts = [torch.from_numpy(arrays[MATRIX])] if MATRIX in arrays else []
    columns = {name: torch.from_numpy(value) for name, value in arrays.items()}
    for feature in features:
        if feature.kind == "sparse":
            rows = len(columns[f"{feature.name}_indptr"]) - 1
            parts.append(written_out(columns, feature, torch.arange(rows)))
    return parts


def written_out(columns: Mapping[str, Tensor], feature: Feature, rows_B: Tensor) -> Tensor:
    """Rows of a sparse feature, a CSR matrix in three columns, as (B, width) float32."""
    indptr, indices, values = (columns[f"{feature.name}_{part}"] for part in ("indptr", "indices", "values"))
    starts_B = indptr[rows_B]
    counts_B = indptr[rows_B + 1] - starts_B
    row_N = torch.repeat_interleave(counts_B)
    first_B = counts_B.cumsum(0) - counts_B
    at_N = torch.arange(len(row_N), device=row_N.device) - first_B[row_N] + starts_B[row_N]
    made = torch.zeros(len(rows_B), feature.width, device=values.device)
    made[row_N, indices[at_N].long()] = values[at_N]
    return made


def missing(features: Sequence[Feature], column: int) -> str:
    names = matrix_names(features)
    return f"column {names[column]!r}" if column < len(names) else f"feature {column}"
