"""Profiles: what they say is true within the stated errors, and merging gives the same bits everywhere."""

from __future__ import annotations

import json
import math
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mizzen.data.profiles import Kind, Profile
from mizzen.data.sketches import frequent, kll
from mizzen.data.sketches.hashing import hash_numbers, splitmix64
from mizzen.data.sketches.histogram import BINS, Histogram
from mizzen.data.sketches.hyperloglog import STANDARD_ERROR, HyperLogLog
from tests.runtime.data.tables import chunks, real, resampled

COLUMNS = {
    "whole": st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.integers(-3, 3)),
    "real": st.one_of(st.none(), st.floats(), st.sampled_from([0.0, -0.0, 1.5])),
    "text": st.one_of(st.none(), st.text(max_size=90), st.sampled_from(["a", "b"])),
    "flag": st.one_of(st.none(), st.booleans()),
    "day": st.one_of(st.none(), st.dates()),
    "many": st.one_of(st.none(), st.lists(st.integers(0, 3), max_size=3)),
}
SCHEMA = {
    "whole": pl.Int64(),
    "real": pl.Float64(),
    "text": pl.String(),
    "flag": pl.Boolean(),
    "day": pl.Date(),
    "many": pl.List(pl.Int64()),
}
ROWS = st.lists(st.fixed_dictionaries(COLUMNS), max_size=40)


def profile_of(table: pl.DataFrame, rows: int = 262_144) -> Profile:
    profile = Profile.empty(table.schema)
    for chunk in chunks(table, rows):
        profile.update(chunk)
    return profile


def frame_of(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA)


@pytest.mark.slow
@given(st.lists(ROWS, min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_chunks_profiled_elsewhere_merge_to_the_same_bits(parts: list[list[dict[str, Any]]]) -> None:
    here = Profile.empty(SCHEMA)
    elsewhere = Profile.empty(SCHEMA)
    for rows in parts:
        here.update(frame_of(rows))
        elsewhere.merge(Profile.from_json(Profile.of(frame_of(rows)).to_json()))
    assert here.to_json() == elsewhere.to_json()
    assert here.rows == sum(map(len, parts))


def test_real_chunks_profiled_elsewhere_merge_to_the_same_bits() -> None:
    table = real("flights")[:60_000]
    here = profile_of(table, rows=9_000)
    elsewhere = Profile.empty(table.schema)
    for chunk in chunks(table, 9_000):
        elsewhere.merge(Profile.from_json(Profile.of(chunk).to_json()))
    assert here.to_json() == elsewhere.to_json()


@given(ROWS)
@settings(max_examples=30, deadline=None)
def test_counts_and_ranges_are_those_of_polars(rows: list[dict[str, Any]]) -> None:
    frame = frame_of(rows)
    profile = Profile.of(frame)
    for name, column in profile.columns.items():
        assert (column.rows, column.missing) == (frame.height, frame[name].null_count())
    values = frame["real"].drop_nulls()
    column = profile.columns["real"]
    finite = values.filter(values.is_finite())
    assert (column.nan, column.infinite) == (int(values.is_nan().sum()), int(values.is_infinite().sum()))
    assert column.numbers is not None
    assert column.present == column.numbers.rows == len(finite)
    if len(finite):
        assert (column.numbers.low, column.numbers.high) == (finite.min(), finite.max())
        assert column.distinct == (finite + 0.0).n_unique()
    texts = profile.columns["text"]
    assert texts.frequent is not None
    assert texts.frequent.exact
    assert sorted(texts.frequent.counts.values()) == sorted(
        frame["text"].drop_nulls().value_counts()["count"].to_list()
    )
    assert sum(texts.buckets) == texts.present  # type: ignore[arg-type]


def test_moments_and_lengths_are_those_of_polars_on_real_tables() -> None:
    for table in (real("flights"), real("movielens"), real("diamonds")):
        profile = profile_of(table, rows=50_000)
        for name, column in profile.columns.items():
            values = table[name].drop_nulls()
            if column.kind is Kind.NUMBER:
                assert column.numbers is not None
                assert column.numbers.mean == pytest.approx(values.mean(), rel=1e-12)
                assert column.numbers.std == pytest.approx(values.std(), rel=1e-9)
            else:
                assert column.lengths is not None
                assert column.lengths.mean == pytest.approx(values.str.len_chars().mean(), rel=1e-12)
            assert column.distinct == pytest.approx(values.n_unique(), rel=5 * STANDARD_ERROR)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [262_144, 10_000])
def test_quantiles_keep_to_the_stated_rank_error(rows: int) -> None:
    """In 99 of 100 cases: here a case is the worst of 200 quantiles of a column."""
    random = np.random.default_rng(5)
    movies, flights = real("movielens"), real("flights")
    columns = {
        "timestamp": resampled(movies, 600_000, 1)["timestamp"].to_numpy(),
        "arr_delay": flights["arr_delay"].drop_nulls().to_numpy(),
        "distance+": flights["distance"].to_numpy() + random.normal(size=flights.height),
        "lognormal": random.lognormal(0, 3, 600_000),
        "ascending": np.arange(600_000) * 0.5,
        "periodic": np.sin(np.arange(600_000)),
    }
    for name, values in columns.items():
        sketch = profile_of(pl.DataFrame({"x": values}), rows).columns["x"].numbers
        assert sketch is not None
        assert not sketch.exact, name
        ordered = np.sort(values)
        points = np.unique(np.quantile(ordered, np.linspace(0, 1, 201), method="nearest"))
        true = np.searchsorted(ordered, points, side="right") / len(ordered)
        assert np.abs(sketch.cdf().at(points) - true).max() < kll.RANK_ERROR, name
        assert sketch.cdf().at(points)[-1] == 1
        assert sketch.summary is not None
        assert sketch.summary.kll.size < 3.5 * kll.K


def test_quantiles_of_few_rows_are_exact() -> None:
    values = np.random.default_rng(1).normal(size=401)
    sketch = Profile.of(pl.DataFrame({"x": values})).columns["x"].numbers
    assert sketch is not None
    assert not sketch.exact
    shares = (np.arange(100) + 0.5) / 100
    assert np.array_equal(sketch.cdf().quantile(shares), np.quantile(values, shares, method="inverted_cdf"))


@pytest.mark.parametrize("different", [3, 900, 12_000, 700_000])
def test_cardinality_is_estimated_without_bias(different: int) -> None:
    errors = []
    for seed in range(12):
        sketch = HyperLogLog()
        hashes = splitmix64(np.arange(different, dtype=np.uint64) + np.uint64(seed * 10**9))
        for part in np.array_split(hashes, 3):
            sketch.add(part)
        sketch.add(hashes[::2])
        errors.append(sketch.estimate() / different - 1)
    assert max(map(abs, errors)) < 4 * STANDARD_ERROR
    assert abs(np.mean(errors)) < 3 * STANDARD_ERROR / math.sqrt(len(errors))


@given(st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=30), min_size=2))
@settings(max_examples=60, deadline=None)
def test_histograms_depend_on_the_values_alone(parts: list[list[float]]) -> None:
    def histogram(values: list[float]) -> Histogram:
        return Histogram.of(np.array(values) + 0.0, min(values) + 0.0, max(values) + 0.0)

    whole = histogram([value for part in parts for value in part])
    merged = histogram(parts[-1])
    for part in reversed(parts[:-1]):
        merged.merge(histogram(part))
    assert merged.to_json() == whole.to_json()
    assert whole.counts.sum() == sum(map(len, parts))
    assert len(whole.counts) <= BINS


def test_histogram_counts_are_those_of_numpy() -> None:
    values = real("diamonds")["price"].to_numpy()
    sketch = profile_of(real("diamonds"), rows=10_000).columns["price"].numbers
    assert sketch is not None
    histogram = sketch.histogram()
    assert histogram is not None
    assert 64 <= len(histogram.counts) <= BINS
    assert np.array_equal(np.histogram(values, histogram.edges)[0], histogram.counts)


@pytest.mark.parametrize(("table", "column"), [("flights", "tailnum"), ("movielens", "genres"), ("movielens", "title")])
def test_frequent_values_keep_to_their_bound(table: str, column: str) -> None:
    values = real(table)[column]
    sketch = profile_of(real(table).select(column), rows=20_000).columns[column].frequent
    assert sketch is not None
    true = {frequent.key_of(v): c for v, c in values.drop_nulls().value_counts().iter_rows()}
    assert 0 < sketch.error <= sketch.rows / (frequent.CAPACITY + 1)
    assert len(sketch.counts) <= frequent.CAPACITY
    for value, count in true.items():
        assert sketch.counts.get(value, 0) <= count <= sketch.counts.get(value, 0) + sketch.error


def test_a_skewed_column_of_many_values_shows_its_head() -> None:
    """The way through buckets: strings that are frequent are found among a quarter of a million others."""
    random = np.random.default_rng(3)
    values = [f"v{i}" for i in np.minimum(random.zipf(1.3, 200_000), 10**9)]
    sketch = profile_of(pl.DataFrame({"x": values}), rows=50_000).columns["x"].frequent
    assert sketch is not None
    true = pl.Series(values).value_counts(sort=True).head(20).rows()
    assert [value for value, _ in true[:8]] == list(sketch.estimates())[:8]
    for value, count in true:
        assert sketch.estimates()[value] == pytest.approx(count, abs=sketch.error)


@pytest.mark.parametrize(
    "values",
    [
        pl.Series([float(n * n % 5003) for n in range(20_000)]),
        pl.Series([datetime(2026, 1, 1) + timedelta(hours=n * n % 5003) for n in range(20_000)]).to_physical(),
        pl.Series([-(2**61) + 3600 * (n * n % 5003) for n in range(20_000)]),
        pl.Series([n * n % 5003 + (0.5 if n == 19_999 else 0.0) for n in range(20_000)]),
        pl.Series([3600 * (n * n % 5003) + (n == 19_999) for n in range(20_000)]),
    ],
    ids=["whole floats", "hours", "a grid far from zero", "not whole at the end", "off the grid at the end"],
)
def test_numbers_on_a_grid_are_counted_as_others_are(values: pl.Series) -> None:
    """Counting in an array must tell what looking at each value tells, and must notice the one that is off."""
    (column,) = profile_of(pl.DataFrame({"a": values})).columns.values()
    sketch = column.numbers
    assert sketch is not None
    assert (sketch.low, sketch.high, sketch.rows) == (values.min(), values.max(), 20_000)
    assert sketch.mean == pytest.approx(values.mean(), rel=1e-12)
    assert sketch.std == pytest.approx(values.std(), rel=1e-6)
    assert sketch.distinct == pytest.approx(values.n_unique(), rel=5 * STANDARD_ERROR)
    ordered = np.sort(values.to_numpy())
    points = ordered[:: len(ordered) // 97].astype(np.float64)
    assert np.abs(sketch.cdf().at(points) - np.searchsorted(ordered, points, "right") / 20_000).max() < kll.RANK_ERROR


def test_every_type_is_read_or_said_to_be_left_out() -> None:
    frame = pl.DataFrame(
        {
            "u64": pl.Series([2**64 - 1, 0, None], dtype=pl.UInt64),
            "i8": pl.Series([-128, 127, None], dtype=pl.Int8),
            "f32": pl.Series([1.5, math.inf, math.nan], dtype=pl.Float32),
            "huge": [1e308, -1e308, 1e308],
            "decimal": pl.Series(["1.10", "2.20", None]).cast(pl.Decimal(10, 2)),
            "day": [date(2024, 1, 31), None, date(1969, 1, 1)],
            "time": [datetime(2024, 1, 31, 12), None, datetime(2025, 1, 1)],
            "took": [timedelta(seconds=3), timedelta(days=-1), None],
            "enum": pl.Series(["a", "b", None], dtype=pl.Enum(["a", "b", "c"])),
            "nothing": pl.Series([None] * 3, dtype=pl.Null),
            "blank": pl.Series([None] * 3, dtype=pl.String),
            "struct": [{"a": 1}, {"a": 2}, None],
            "bytes": [b"x", b"yy", None],
            "list": [[1, 2], [], None],
        }
    )
    profile = Profile.empty(frame.schema).update(frame).update(frame)
    assert Profile.from_json(profile.to_json()).to_json() == profile.to_json()
    columns = profile.columns
    assert {name: column.kind.value for name, column in columns.items()} == {
        **dict.fromkeys(["u64", "i8", "f32", "huge", "decimal"], "number"),
        **dict.fromkeys(["day", "time", "took"], "time"),
        **dict.fromkeys(["enum", "blank"], "string"),
        **dict.fromkeys(["nothing", "struct", "bytes"], "other"),
        "list": "list",
    }
    assert columns["u64"].numbers is not None
    assert columns["u64"].numbers.high == 2**64 - 1
    assert (columns["f32"].nan, columns["f32"].infinite, columns["f32"].present) == (2, 2, 2)
    assert columns["list"].lengths is not None
    assert columns["list"].lengths.mean == 1
    assert columns["blank"].distinct == 0


def test_a_profile_is_small_and_is_json() -> None:
    random = np.random.default_rng(1)
    rows = 100_000
    frame = pl.DataFrame(
        {
            "normal": random.normal(size=rows),
            "wide": random.integers(-(2**62), 2**62, rows),
            "long": [f"{i}: {'lorem ipsum ' * (i % 20)}" for i in range(rows)],
            "keys": [f"{'x' * 80}{i}" for i in random.integers(0, 400, rows)],
        }
    )
    document = json.loads(profile_of(frame, rows=30_000).to_json())
    size = {name: len(json.dumps(column, ensure_ascii=False)) for name, column in document["columns"].items()}
    sample = {name: len(json.dumps(column)) for name, column in document["sample"]["columns"].items()}
    assert max(size[name] + sample[name] for name in ("normal", "wide")) < 30_000
    assert max(size[name] + sample[name] for name in ("long", "keys")) < 80_000


def test_the_sample_is_one_of_the_rows_and_keeps_them_whole() -> None:
    count = 200_000
    order = np.random.default_rng(2).permutation(count)
    profile = profile_of(pl.DataFrame({"a": order, "b": -order}), rows=30_000)
    a, b = profile.sample.columns["a"], profile.sample.columns["b"]
    assert len(a) == 1024
    assert np.array_equal(a, -b)
    assert np.mean(a) == pytest.approx(count / 2, rel=4 / math.sqrt(12 * 1024) * 2)
    first = (np.isin(a, order[:30_000].astype(np.float32))).mean()
    assert first == pytest.approx(30_000 / count, abs=4 * math.sqrt(0.15 * 0.85 / 1024))


def test_profiles_of_different_columns_do_not_merge() -> None:
    profile = Profile.of(pl.DataFrame({"a": [1]}))
    with pytest.raises(ValueError, match=r"column 'b' is absent in one and Int64 in the other"):
        profile.merge(Profile.of(pl.DataFrame({"a": [1], "b": [2]})))
    other = Profile.of(pl.DataFrame({"a": [1]}))
    other.hash_version = "0"
    with pytest.raises(ValueError, match="profile anew"):
        profile.merge(other)


def test_number_hashes_are_the_same_on_every_machine() -> None:
    """The reference values of SplitMix64 with seed 0: the first output of state 0, and that of the next state."""
    golden = 0x9E3779B97F4A7C15
    states = np.array([0, golden], np.uint64)
    assert hash_numbers(states.view(np.int64)).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]
