"""Can a classifier tell the rows of two profiles apart? What sees relations between columns that no column shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from mizzen.data.distances import ALPHA
from mizzen.data.sketches.hashing import Numbers
from mizzen.data.sketches.sample import RowSample

_CATEGORIES = 8  # most frequent strings of a column that get a feature each
_RIDGE = 0.3


@dataclass(frozen=True)
class Domain:
    """`auc` 0.5: no difference seen; 1: each row gives its side away. `noise` is what chance alone stays below."""

    auc: float
    noise: float
    rows: int


def classify(reference: RowSample, current: RowSample, columns: Sequence[str]) -> Domain | None:
    """Kernel ridge with all products of two features, fitted on one half of the rows and judged on the other.

    After Lopez-Paz, Oquab 2017. Ranks instead of values: outliers and units do not matter. The kernel is the
    polynomial of degree 2, so that a changed correlation between any two columns shows. None where there is nothing
    to compare. The work does not depend on the number of columns beyond one product of matrices.
    """
    features = [f for name in columns for f in _features(reference.columns[name], current.columns[name])]
    n, m = len(reference.keys), len(current.keys)
    if not features or min(n, m) < 20:
        return None
    x = np.column_stack(features).astype(np.float32)  # halves the time, and areas need no more digits
    sides = np.repeat(np.array([-1, 1], np.float32), [n, m])
    ridges = np.repeat(np.array([n, m], np.float32), [n, m]) * (2 / (n + m)) * _RIDGE * math.sqrt((n + m) / 2)
    # Samples are ordered by random keys, so every other row is a random half.
    halves = [np.flatnonzero(np.concatenate((np.arange(n), np.arange(m))) % 2 == part) for part in (0, 1)]
    across = _kernel(x[halves[0]], x[halves[1]])
    areas = []
    for train, test, between in ((halves[0], halves[1], across.T), (halves[1], halves[0], across)):
        system = _kernel(x[train], x[train])
        system[np.diag_indices_from(system)] += ridges[train]
        areas.append(_auc(between @ np.linalg.solve(system, sides[train]), sides[test] > 0))
    error = math.sqrt((n + m + 1) / (12 * n * m))
    return Domain(sum(areas) / 2, 0.5 + NormalDist().inv_cdf(1 - ALPHA) * error, min(n, m))


def _kernel(x: Numbers, y: Numbers) -> Numbers:
    product: Numbers = x @ y.T
    product /= x.shape[1]
    product += 1
    product *= product
    return product


def _features(reference: Numbers, current: Numbers) -> list[Numbers]:
    """Scores with mean 0 and variance 1 over both samples."""
    both = np.concatenate((reference, current))
    if both.dtype.kind == "f":
        missing = np.isnan(both)
        scores = np.zeros(len(both))
        scores[~missing] = _ranks(both[~missing])
        features = [scores, missing.astype(np.float64)]
    else:
        values, counts = np.unique(both, return_counts=True)
        frequent = values[np.argsort(-counts, kind="stable")[:_CATEGORIES]]
        features = [(both == value).astype(np.float64) for value in frequent]
    return [(f - f.mean()) / f.std() for f in features if f.std() > 0.1]


def _ranks(values: Numbers) -> Numbers:
    """Ranks, ties shared, from -1 to 1."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle: Numbers = (np.cumsum(counts) - counts / 2)[place]
    return 2 * middle / max(1, len(values)) - 1


def _auc(scores: Numbers, positive: Numbers) -> float:
    """Area under the ROC curve by the rank-sum of Mann and Whitney."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    positives, negatives = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))
