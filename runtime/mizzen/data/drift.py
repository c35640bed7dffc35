"""Two profiles side by side: which columns have drifted, by how much, and whether the dataset as a whole has."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from mizzen.data import distances, domain
from mizzen.data.distances import Distance, Shares
from mizzen.data.profiles import ColumnProfile, Kind, Profile
from mizzen.data.sketches.hashing import Numbers
from mizzen.data.sketches.kll import RANK_ERROR
from mizzen.data.sketches.numbers import NumberSketch
from mizzen_api.dataset_drift import ColumnDrift, Drift

# What decides where the method is auto: the one that exceeds its threshold most.
AUTO: dict[str, tuple[str, ...]] = {
    Kind.NUMBER: ("psi", "wasserstein"),
    Kind.TIME: ("psi", "wasserstein"),
    Kind.LIST: ("psi", "wasserstein"),
    Kind.BOOLEAN: ("js",),
    Kind.STRING: ("js",),
    "text": ("js", "lengths"),
}
_DECILES = np.arange(1, 10) / 10
_CATEGORICAL = 0.5  # part of the rows that counted strings must cover for a column to be read as categories
_NAMED = 10  # unseen categories that a report names


@dataclass(frozen=True)
class FeatureDrift:
    """One column. `threshold` is the one set, or what chance gives where that is more."""

    column: str
    kind: str
    method: str
    statistic: float | None
    threshold: float | None
    drifted: bool
    statistics: dict[str, float] = field(default_factory=dict)
    p_values: dict[str, float] = field(default_factory=dict)
    missing: tuple[float, float] = (0.0, 0.0)  # shares in the reference and now, NaN and infinities among them
    unseen: list[str] = field(default_factory=list)  # categories that the reference does not have
    unseen_share: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class Multivariate:
    auc: float
    threshold: float
    drifted: bool


@dataclass(frozen=True)
class DriftReport:
    """Columns, worst first, and the verdict."""

    drifted: bool
    message: str
    rows: tuple[int, int]
    share: float  # drifted columns of those compared
    drift_share: float
    features: list[FeatureDrift]
    multivariate: Multivariate | None
    new_columns: list[str]
    vanished_columns: list[str]
    retyped_columns: list[str]

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False, default=float)

    @classmethod
    def from_json(cls, text: str | bytes) -> DriftReport:
        document = json.loads(text)
        features = [FeatureDrift(**{**f, "missing": tuple(f["missing"])}) for f in document.pop("features")]
        multivariate = document.pop("multivariate")
        return cls(
            **{**document, "rows": tuple(document["rows"])},
            features=features,
            multivariate=Multivariate(**multivariate) if multivariate else None,
        )


def compare(reference: Profile, current: Profile, settings: Drift) -> DriftReport:
    """What has changed from `reference` to `current`. Costs the same however many rows they stand for."""
    before, after = reference.columns, current.columns
    shared = [name for name in before if name in after and name not in settings.exclude]
    retyped = [name for name in shared if before[name].kind is not after[name].kind]
    special = {column.name: column for column in settings.columns}
    comparison = _Comparison(reference, current, settings)
    features = [comparison.feature(name, special.get(name)) for name in shared if name not in retyped]
    features.sort(key=lambda f: (-_excess(f.statistic, f.threshold), f.column))
    multivariate = comparison.multivariate([f.column for f in features if f.statistic is not None])
    new = [name for name in after if name not in before and name not in settings.exclude]
    vanished = [name for name in before if name not in after and name not in settings.exclude]
    compared = [f for f in features if f.statistic is not None]
    changed = [f.column for f in compared if f.drifted] + retyped + vanished
    share = len(changed) / max(1, len(compared) + len(retyped) + len(vanished))
    few = min(reference.rows, current.rows) < settings.min_rows
    alarms = [
        *([f"columns vanished: {_names(vanished)}"] if vanished else []),
        *([f"types changed: {_names(retyped)}"] if retyped else []),
        *(
            [f"{share:.0%} of the columns have drifted: {_names(changed)}"]
            if changed and share >= settings.drift_share
            else []
        ),
        *([f"rows can be told apart (AUC {multivariate.auc:.2f})"] if multivariate and multivariate.drifted else []),
    ]
    if few:
        message = f"no verdict: {reference.rows} and {current.rows} rows, and minRows is {settings.min_rows}"
    elif alarms:
        message = "; ".join(alarms)
    elif changed:
        message = f"{len(changed)} of {len(compared)} columns have drifted: {_names(changed)}"
    else:
        message = f"no drift in {len(compared)} columns"
    return DriftReport(
        drifted=bool(alarms) and not few,
        message=message,
        rows=(reference.rows, current.rows),
        share=share,
        drift_share=settings.drift_share,
        features=features,
        multivariate=multivariate,
        new_columns=new,
        vanished_columns=vanished,
        retyped_columns=retyped,
    )


class _Comparison:
    """The two profiles and the settings, column by column."""

    def __init__(self, reference: Profile, current: Profile, settings: Drift) -> None:
        self.reference, self.current, self.settings = reference, current, settings
        self.same_hashes = reference.hash_version == current.hash_version

    def feature(self, name: str, special: ColumnDrift | None) -> FeatureDrift:
        a, b = self.reference.columns[name], self.current.columns[name]
        special = special or ColumnDrift(name=name)
        base = special.threshold or self.settings.threshold
        wanted = special.method if special.method != "auto" else self.settings.method
        missing = (1 - a.present / max(1, a.rows), 1 - b.present / max(1, b.rows))
        note = "" if special.method != "auto" else _left_out(a, b)
        if not note and min(a.rows, b.rows) < self.settings.min_rows:
            note = f"fewer than {self.settings.min_rows} rows"
        kind = "text" if a.kind is Kind.STRING and not _are_categories(a, b) else a.kind.value
        with np.errstate(over="ignore", invalid="ignore"):  # distances between numbers near 1e308 have no value
            found = {} if note else self._distances(kind, a, b)
        found = {m: d for m, d in found.items() if math.isfinite(d.statistic) and math.isfinite(d.noise)}
        if not found:
            return FeatureDrift(name, kind, "", None, None, False, missing=missing, note=note or "nothing to compare")
        methods = [wanted] if wanted in found else [m for m in AUTO[kind] if m in found] or ["js"]
        best = max(methods, key=lambda m: _excess(found[m].statistic, max(base, found[m].noise)))
        threshold = max(base, found[best].noise)
        unseen, unseen_share = _unseen(a, b) if kind == Kind.STRING else ([], 0.0)
        return FeatureDrift(
            name,
            kind,
            best,
            found[best].statistic,
            threshold,
            found[best].statistic > threshold,
            {method: distance.statistic for method, distance in found.items()},
            {method: distance.p_value for method, distance in found.items() if distance.p_value is not None},
            missing,
            unseen,
            unseen_share,
            "" if wanted in (*found, "auto") else f"{wanted} does not apply to this column",
        )

    def _distances(self, kind: str, a: ColumnProfile, b: ColumnProfile) -> dict[str, Distance]:
        """Every statistic that the column allows."""
        if kind in (Kind.BOOLEAN, Kind.STRING):
            return _of_shares(_categories(a, b))
        if kind == "text":
            found = {}
            if self.same_hashes and a.buckets is not None and b.buckets is not None:
                found = _of_shares((_with_missing(a.buckets, a), _with_missing(b.buckets, b)))
            if a.lengths and b.lengths and a.lengths.rows and b.lengths.rows:
                found["lengths"] = _wasserstein(a.lengths, b.lengths)
            return found
        mine, theirs = (a.lengths, b.lengths) if kind == Kind.LIST else (a.numbers, b.numbers)
        if mine is None or theirs is None:
            return {}
        found = _of_shares(_bins(mine, theirs, a, b))
        if mine.rows and theirs.rows:
            found["wasserstein"] = _wasserstein(mine, theirs)
            n, m = mine.rows, theirs.rows
            found["ks"] = distances.kolmogorov_smirnov(mine.cdf(), theirs.cdf(), n, m, _rank_error(mine, theirs))
        return found

    def multivariate(self, columns: list[str]) -> Multivariate | None:
        settings, ours, theirs = self.settings, self.reference.sample, self.current.sample
        if not settings.multivariate or min(len(ours.keys), len(theirs.keys)) < settings.min_rows:
            return None
        if not self.same_hashes:
            columns = [name for name in columns if self.reference.columns[name].kind is not Kind.STRING]
        seen = domain.classify(ours, theirs, [name for name in columns if name in ours.columns])
        if seen is None:
            return None
        threshold = max(settings.multivariate_threshold, seen.noise)
        return Multivariate(seen.auc, threshold, seen.auc > threshold)


def _of_shares(counts: tuple[Numbers, Numbers]) -> dict[str, Distance]:
    if not counts[0].sum() or not counts[1].sum():
        return {}
    shares = Shares.pooled(*counts)
    return {
        "psi": distances.psi(shares),
        "js": distances.jensen_shannon(shares),
        "chi2": distances.chi_square(shares),
    }


def _bins(mine: NumberSketch, theirs: NumberSketch, a: ColumnProfile, b: ColumnProfile) -> tuple[Numbers, Numbers]:
    """Rows between the reference's deciles, below and above its range, and without a value."""
    if not mine.rows:
        return _with_missing(np.array([0]), a), _with_missing(np.array([theirs.rows]), b)
    cdf = mine.cdf()
    ends = [math.nextafter(float(mine.low), -math.inf), float(mine.high)]
    edges = np.unique(np.concatenate((ends, cdf.quantile(_DECILES))))
    counts = []
    for sketch, column in ((mine, a), (theirs, b)):
        upto = np.concatenate(([0.0], sketch.cdf().at(edges), [1.0])) if sketch.rows else np.zeros(len(edges) + 2)
        counts.append(_with_missing(np.diff(upto) * sketch.rows, column))
    return counts[0], counts[1]


def _categories(a: ColumnProfile, b: ColumnProfile) -> tuple[Numbers, Numbers]:
    """Rows of each category, of all others together, and without a value."""
    mine, theirs = _counted(a), _counted(b)
    # A category that only one side has counted may be among the other's uncounted.
    names = [name for name in {**mine, **theirs} if (name in mine or _exact(a)) and (name in theirs or _exact(b))]
    counts = []
    for column, own in ((a, mine), (b, theirs)):
        named = [own.get(name, 0) for name in names]
        counts.append(_with_missing(np.array([*named, max(0, column.present - sum(named))], np.float64), column))
    return counts[0], counts[1]


def _counted(column: ColumnProfile) -> dict[str, int]:
    """Categories whose count is sure to within a fifth."""
    assert column.frequent is not None
    least = 5 * column.frequent.error
    return {name: count for name, count in column.frequent.estimates().items() if count >= least}


def _exact(column: ColumnProfile) -> bool:
    return column.frequent is not None and column.frequent.exact


def _with_missing(counts: Numbers, column: ColumnProfile) -> Numbers:
    return np.append(counts, column.rows - column.present).astype(np.float64)


def _are_categories(a: ColumnProfile, b: ColumnProfile) -> bool:
    """Whether categories that occur more than once make up most of the rows, on both sides."""
    for column in (a, b):
        repeated = sum(count for count in _counted(column).values() if count > 1)
        if repeated < _CATEGORICAL * column.present:
            return False
    return True


def _unseen(a: ColumnProfile, b: ColumnProfile) -> tuple[list[str], float]:
    """Categories that the reference lacks, which only an exact count of it can tell."""
    assert a.frequent is not None and b.frequent is not None
    if not a.frequent.exact:
        return [], 0.0
    new = {name: count for name, count in b.frequent.estimates().items() if name not in a.frequent.counts}
    return list(new)[:_NAMED], sum(new.values()) / max(1, b.rows)


def _left_out(a: ColumnProfile, b: ColumnProfile) -> str:
    """Why the column is not compared unless asked for; empty if it is."""
    if a.kind is Kind.OTHER:
        return f"columns of type {a.dtype} are not compared"
    if a.kind is Kind.TIME:
        return "times move on by themselves; set a method for this column to compare it"
    if _is_running_number(a) and _is_running_number(b):
        return "a running number; set a method for this column to compare it"
    return ""


def _is_running_number(column: ColumnProfile) -> bool:
    """Integers without gaps, each once: row numbers and keys. Measurements hardly ever fill a range so."""
    numbers = column.numbers
    if numbers is None or numbers.kind == "f" or numbers.rows < 100:
        return False
    span = numbers.high - numbers.low + 1
    return numbers.distinct >= 0.93 * numbers.rows and span <= 1.1 * numbers.rows


def _wasserstein(mine: NumberSketch, theirs: NumberSketch) -> Distance:
    return distances.wasserstein(mine.cdf(), theirs.cdf(), mine.rows, theirs.rows, _rank_error(mine, theirs))


def _rank_error(*sketches: NumberSketch) -> float:
    return sum(RANK_ERROR for sketch in sketches if not sketch.exact)


def _excess(statistic: float | None, threshold: float | None) -> float:
    return 0.0 if statistic is None or threshold is None else statistic / threshold


def _names(columns: list[Any]) -> str:
    rest = len(columns) - 5
    return ", ".join(columns[:5]) + (f" and {rest} more" if rest > 0 else "")
