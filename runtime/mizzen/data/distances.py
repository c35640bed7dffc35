"""How far apart two distributions are, and how far chance alone would put them: what drift verdicts are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from mizzen.data.sketches.cdf import Cdf
from mizzen.data.sketches.hashing import Numbers

ALPHA = 1e-4  # how often chance alone may exceed `noise`
_Z = NormalDist().inv_cdf(1 - ALPHA)
_Z_TWO_SIDED = NormalDist().inv_cdf(1 - ALPHA / 2)
LEAST_EXPECTED = 10  # rows in a bin on either side; smaller bins are pooled
_CLIP = (0.005, 0.995)


@dataclass(frozen=True)
class Distance:
    """A statistic in the unit of its threshold, and what it would stay below if nothing had changed."""

    statistic: float
    noise: float
    p_value: float | None = None


@dataclass(frozen=True)
class Shares:
    """Counts of two samples in the same bins, rare bins pooled into one."""

    reference: Numbers
    current: Numbers

    @classmethod
    def pooled(cls, reference: Numbers, current: Numbers) -> Shares:
        """Bins in which either sample would expect fewer than LEAST_EXPECTED rows are added up.

        Logarithms and squares of nearly empty bins are noise, whatever the sample's size.
        """
        n, m = float(reference.sum()), float(current.sum())
        expected = (reference + current) / (n + m) * min(n, m)
        rare = expected < LEAST_EXPECTED
        if rare.sum() > 1:
            reference = np.append(reference[~rare], reference[rare].sum())
            current = np.append(current[~rare], current[rare].sum())
        return cls(reference.astype(np.float64), current.astype(np.float64))

    @property
    def per_row(self) -> float:
        """1/n + 1/m: the variance that sampling adds to a difference of shares, per share."""
        return 1 / float(self.reference.sum()) + 1 / float(self.current.sum())

    @property
    def smooth(self) -> tuple[Numbers, Numbers]:
        """Shares with half a row more in each bin (Jeffreys), so that an empty bin is finite."""
        p, q = ((counts + 0.5) / (counts.sum() + 0.5 * len(counts)) for counts in (self.reference, self.current))
        return p, q

    @property
    def chi2_noise(self) -> float:
        return chi2_quantile(max(1, len(self.reference) - 1))


def psi(shares: Shares) -> Distance:
    """Population stability index: Σ (q - p) ln(q / p). Under no change it is χ² · (1/n + 1/m) (Yurdakul 2018)."""
    p, q = shares.smooth
    return Distance(float(((q - p) * np.log(q / p)).sum()), shares.chi2_noise * shares.per_row)


def jensen_shannon(shares: Shares) -> Distance:
    """Square root of the Jensen-Shannon divergence in bits, 0..1."""
    p, q = shares.smooth
    middle = (p + q) / 2
    divergence = float((p * np.log2(p / middle) + q * np.log2(q / middle)).sum()) / 2
    noise = shares.chi2_noise * shares.per_row / (8 * math.log(2))
    return Distance(math.sqrt(max(0.0, divergence)), math.sqrt(noise))


def chi_square(shares: Shares) -> Distance:
    """Cramér's V of the two-sample χ² test of homogeneity, 0..1: the effect; the p-value decides nothing."""
    n, m = float(shares.reference.sum()), float(shares.current.sum())
    together = shares.reference + shares.current
    there = together > 0
    expected = together[there] * n / (n + m), together[there] * m / (n + m)
    observed = shares.reference[there], shares.current[there]
    chi2 = sum(float(((o - e) ** 2 / e).sum()) for o, e in zip(observed, expected, strict=True))
    freedom = max(1, int(there.sum()) - 1)
    # The effect gives both sides the same weight: χ²/N would shrink when one is small, and N/(n·m)·χ² exceed 1.
    p, q = shares.reference[there] / n, shares.current[there] / m
    effect = math.sqrt(min(1.0, float(((p - q) ** 2 / (p + q)).sum()) / 2))
    return Distance(effect, math.sqrt(shares.chi2_noise * shares.per_row / 4), chi2_p_value(chi2, freedom))


def kolmogorov_smirnov(reference: Cdf, current: Cdf, n: int, m: int, rank_error: float) -> Distance:
    """Greatest difference of the distribution functions; `rank_error` is what the sketches may add to it."""
    points = np.union1d(reference.values, current.values)
    statistic = float(np.abs(reference.at(points) - current.at(points)).max())
    per_row = 1 / n + 1 / m
    noise = math.sqrt(-math.log(ALPHA / 2) / 2 * per_row) + rank_error
    return Distance(statistic, noise, ks_p_value(max(0.0, statistic - rank_error) / math.sqrt(per_row)))


def wasserstein(reference: Cdf, current: Cdf, n: int, m: int, rank_error: float) -> Distance:
    """Mean distance by which values must move, in standard deviations of the reference.

    Both are clipped to where 99 % of the reference lie, and its standard deviation is taken there: one wild value in
    a million must neither hide a shift by making the unit huge, nor cause one. The noise is the sum over the axis of
    what chance adds at each point, an upper bound.
    """
    low, high = reference.quantile(np.array(_CLIP)).tolist()
    if low == high:  # nearly constant: keep what there is
        low, high = min(reference.values[0], current.values[0]), max(reference.values[-1], current.values[-1])
    a, b = reference.clipped(low, high), current.clipped(low, high)
    points = np.union1d(a.values, b.values)
    if len(points) < 2:
        return Distance(0.0, 0.0)
    widths, f, g = np.diff(points), a.at(points)[:-1], b.at(points)[:-1]
    distance = float((np.abs(f - g) * widths).sum())
    unit = a.std or b.std or distance
    both = (n * f + m * g) / (n + m)
    spread = float((np.sqrt(np.maximum(0, both * (1 - both))) * widths).sum()) * math.sqrt(1 / n + 1 / m)
    blur = rank_error / 3 * float(widths[(both > 0) & (both < 1)].sum())
    return Distance(distance / unit, (_Z_TWO_SIDED * spread + blur) / unit)


def chi2_quantile(freedom: int) -> float:
    """The value that χ² exceeds with probability ALPHA: exact for one and two, else by Wilson, Hilferty 1931."""
    if freedom == 1:
        return _Z_TWO_SIDED**2
    if freedom == 2:
        return -2 * math.log(ALPHA)
    part = 2 / (9 * freedom)
    return float(freedom * (1 - part + _Z * math.sqrt(part)) ** 3)


def chi2_p_value(statistic: float, freedom: int) -> float:
    part = 2 / (9 * freedom)
    return 1 - NormalDist().cdf(((statistic / freedom) ** (1 / 3) - 1 + part) / math.sqrt(part))


def ks_p_value(scaled: float) -> float:
    """Asymptotic: 2 Σ (-1)^(k-1) exp(-2 k² x²), x the statistic over sqrt(1/n + 1/m)."""
    if scaled < 0.2:
        return 1.0
    series = sum((-1) ** (k - 1) * math.exp(-2 * k * k * scaled * scaled) for k in range(1, 101))
    return float(min(1.0, max(0.0, 2 * series)))
