"""Drift: silent on samples of the same table whatever their size, loud where the table has changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mizzen.data import distances
from mizzen.data.distances import Shares
from mizzen.data.drift import DriftReport, FeatureDrift, compare
from mizzen.data.profiles import Profile
from mizzen.data.sketches.cdf import Cdf
from mizzen_api.dataset_drift import Drift
from mizzen_api.structural import structural_schema
from tests.runtime.data.tables import NAMES, chunks, real, resampled


def profile_of(table: pl.DataFrame) -> Profile:
    profile = Profile.empty(table.schema)
    for chunk in chunks(table):
        profile.update(chunk)
    return profile


@pytest.fixture(scope="module")
def references() -> dict[str, Profile]:
    return {name: profile_of(real(name)) for name in NAMES}


def drift(before: pl.DataFrame, after: pl.DataFrame, **changes: Any) -> DriftReport:
    return compare(profile_of(before), profile_of(after), Drift(**changes))


def feature(report: DriftReport, column: str) -> FeatureDrift:
    return next(f for f in report.features if f.column == column)


# Without change


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "times"), [(500, 8), (5_000, 4), (1_000_000, 1)])
def test_samples_of_the_same_table_raise_no_alarm(rows: int, times: int, references: dict[str, Profile]) -> None:
    """Against the whole table, and against another sample of the same size."""
    compared = alarms = 0
    for name in NAMES:
        for seed in range(times):
            current = profile_of(resampled(real(name), rows, 2 * seed))
            sides = [references[name], profile_of(resampled(real(name), rows, 2 * seed + 1))]
            for reference in sides[seed % 2 :] if rows < 1_000_000 else sides[:1]:
                report = compare(reference, current, Drift())
                assert not report.drifted, report.message
                tested = [f for f in report.features if f.statistic is not None]
                compared += len(tested)
                alarms += sum(f.drifted for f in tested)
    assert compared >= 35
    assert alarms < 0.01 * compared


@pytest.mark.parametrize("method", ["psi", "js", "wasserstein", "ks", "chi2"])
def test_no_method_alone_raises_false_alarms_at_small_samples(method: str, references: dict[str, Profile]) -> None:
    reports = [
        compare(
            references[name],
            profile_of(resampled(real(name), rows, seed)),
            Drift.model_validate({"method": method, "multivariate": False}),
        )
        for name in ("movielens", "diamonds")
        for rows in (100, 2_000)
        for seed in range(4)
    ]
    tested = [f for report in reports for f in report.features if f.statistic is not None]
    assert method in {f.method for f in tested}
    assert sum(f.drifted for f in tested) < 0.01 * len(tested)


def test_p_values_alone_decide_nothing() -> None:
    """A shift of 0.06 standard deviations in a million rows: beyond doubt, and of no consequence."""
    random = np.random.default_rng(1)
    before = pl.DataFrame({"x": random.normal(size=1_000_000)})
    report = drift(before, before.select(pl.col("x") + 0.06), multivariate=False)
    assert feature(report, "x").p_values["ks"] < 1e-6
    assert not report.drifted
    assert not feature(report, "x").drifted


@pytest.mark.slow
def test_chance_exceeds_the_noise_as_rarely_as_it_says() -> None:
    """10,000 draws of a multinomial and of a normal sample: the bounds are neither broken nor idle."""
    random = np.random.default_rng(2)
    p = np.array([0.4, 0.3, 0.2, 0.06, 0.04])
    counts = random.multinomial(600, p, size=(4_000, 2))
    for distance in (distances.psi, distances.jensen_shannon, distances.chi_square):
        ratios = []
        for a, b in counts:
            found = distance(Shares.pooled(a, b))
            ratios.append(found.statistic / found.noise)
        assert np.mean(np.array(ratios) > 1) < 1e-3
        assert max(ratios) > 0.6
    for distance in (distances.kolmogorov_smirnov, distances.wasserstein):
        ratios = []
        for _ in range(1_000):
            a, b = (Cdf.of(x, np.ones(300)) for x in random.normal(size=(2, 300)))
            found = distance(a, b, 300, 300, 0.0)
            ratios.append(found.statistic / found.noise)
        assert np.mean(np.array(ratios) > 1) < 2e-3
        assert max(ratios) > 0.5


# With change


def months(*numbers: int) -> pl.DataFrame:
    return real("flights").filter(pl.col("month").is_in(numbers)).drop("month")


def test_seasons_of_flights_drift() -> None:
    report = drift(months(1), months(7))
    assert report.drifted
    assert report.multivariate
    assert report.multivariate.drifted
    assert {"dep_delay", "arr_delay"} <= {f.column for f in report.features if f.drifted}
    assert not feature(report, "minute").drifted
    ratios = [f.statistic / f.threshold for f in report.features if f.statistic is not None and f.threshold]
    assert ratios == sorted(ratios, reverse=True)


def test_airports_drift_in_most_columns() -> None:
    flights = real("flights")
    report = drift(*(flights.filter(pl.col("origin") == origin) for origin in ("JFK", "LGA")))
    assert report.drifted
    assert report.share > 0.5
    assert "columns have drifted" in report.message
    for column in ("carrier", "dest", "distance", "air_time", "origin"):
        assert feature(report, column).drifted, column


CHANGES = {
    "a tenth dearer and more": (pl.col("price") * 1.3, "price"),
    "a unit changed": (pl.col("carat") * 0.2, "carat"),
    "values lost": (pl.when(pl.col("x") > 6.5).then(None).otherwise("x").alias("x"), "x"),
    "NaN": (pl.when(pl.col("x") > 6.5).then(float("nan")).otherwise("x").alias("x"), "x"),
    "a constant": (pl.lit(5.0).alias("y"), "y"),
    "a category renamed": (pl.col("cut").str.replace("Fair|Good", "Fine"), "cut"),
    "categories cased": (pl.col("color").str.to_lowercase(), "color"),
    "beyond the range": (pl.when(pl.col("z") > 4.5).then(pl.lit(1e9)).otherwise("z").alias("z"), "z"),
}


@pytest.mark.parametrize("rows", [1_000, 50_000])
@pytest.mark.parametrize("change", CHANGES)
def test_changes_of_a_column_are_found_and_no_others(change: str, rows: int, references: dict[str, Profile]) -> None:
    expression, column = CHANGES[change]
    after = resampled(real("diamonds"), rows, 1).with_columns(expression)
    report = compare(references["diamonds"], profile_of(after), Drift(multivariate=False))
    assert [f.column for f in report.features if f.drifted] == [column]
    assert not report.drifted, "one column of ten is below driftShare"


def test_a_broken_relation_shows_in_the_rows_alone() -> None:
    """Prices dealt out anew: each column is as it was."""
    diamonds = real("diamonds")
    report = drift(diamonds, diamonds.with_columns(pl.col("price").shuffle(seed=1)))
    assert not any(f.drifted for f in report.features)
    assert report.drifted
    assert "can be told apart" in report.message
    assert not drift(diamonds, diamonds.with_columns(pl.col("price").shuffle(seed=1)), multivariate=False).drifted


def test_texts_are_compared_by_length_and_by_hashed_values() -> None:
    titles = real("movielens").select("title")
    assert feature(drift(titles, titles), "title").kind == "text"
    cut = feature(drift(titles, titles.select(pl.col("title").str.head(5))), "title")
    assert cut.drifted
    assert cut.statistics["lengths"] > 1
    first, second = titles.filter(titles["title"] < "M"), titles.filter(titles["title"] >= "M")
    assert feature(drift(first, second), "title").statistics["js"] > 0.1


def test_unseen_categories_are_named() -> None:
    before = pl.DataFrame({"c": ["a"] * 600 + ["b"] * 400})
    seen = feature(drift(before, pl.DataFrame({"c": ["a"] * 600 + ["b"] * 200 + ["new"] * 150 + ["x"] * 50})), "c")
    assert seen.unseen == ["new", "x"]
    assert seen.unseen_share == 0.2
    assert seen.drifted


def test_booleans_drift() -> None:
    before, after = (pl.DataFrame({"b": [True] * n + [False] * (1000 - n)}) for n in (500, 800))
    assert feature(drift(before, after), "b").drifted
    assert not feature(drift(before, before), "b").drifted


# Columns and settings


def test_new_vanished_and_retyped_columns_are_told() -> None:
    diamonds = real("diamonds")[:2_000]
    after = diamonds.drop("carat").with_columns(pl.lit(1).alias("shop"), pl.col("price").cast(pl.String))
    report = drift(diamonds, after)
    assert (report.new_columns, report.vanished_columns, report.retyped_columns) == (["shop"], ["carat"], ["price"])
    assert report.drifted
    assert "columns vanished: carat" in report.message
    assert "types changed: price" in report.message
    assert not drift(diamonds, after, exclude=["carat", "price"]).drifted


def test_running_numbers_and_times_are_not_compared_unless_asked_for() -> None:
    def month(start: int) -> pl.DataFrame:
        table = pl.DataFrame({"id": range(start, start + 5_000)})
        return table.with_columns(pl.from_epoch(pl.col("id") * 60).alias("at"), (pl.col("id") % 7).alias("x"))

    report = drift(month(0), month(5_000), multivariate=False)
    assert feature(report, "id").note.startswith("a running number")
    assert feature(report, "at").note.startswith("times move on")
    assert not report.drifted
    asked = drift(month(0), month(5_000), columns=[{"name": "id", "method": "psi"}, {"name": "at", "method": "ks"}])
    assert {f.column for f in asked.features if f.drifted} == {"id", "at"}


def test_columns_have_their_own_threshold_and_method() -> None:
    before, after = months(1), months(7)
    special = [{"name": "dep_delay", "threshold": 5}, {"name": "distance", "method": "ks", "threshold": 0.001}]
    report = drift(before, after, columns=special)
    assert not feature(report, "dep_delay").drifted
    assert feature(report, "distance").method == "ks"
    assert feature(report, "distance").threshold > 0.001, "chance gives more than that"  # type: ignore[operator]
    every = drift(before, after, method="wasserstein")
    assert feature(every, "air_time").method == "wasserstein"
    assert feature(every, "carrier").method == "js"
    assert feature(every, "carrier").note == "wasserstein does not apply to this column"


def test_too_few_rows_give_no_verdict() -> None:
    diamonds = real("diamonds")
    report = drift(diamonds, diamonds.sort("price", descending=True)[:60])
    assert not report.drifted
    assert report.message == "no verdict: 53940 and 60 rows, and minRows is 100"
    assert not drift(diamonds, diamonds[:0]).drifted


def test_profiles_from_json_give_the_same_report(references: dict[str, Profile]) -> None:
    current = profile_of(months(7).with_columns(pl.lit(7, pl.Int64).alias("month")))
    report = compare(references["flights"], current, Drift())
    again = compare(*(Profile.from_json(p.to_json()) for p in (references["flights"], current)), Drift())
    assert again.to_json() == report.to_json()
    assert DriftReport.from_json(report.to_json()) == report


def test_different_hashes_of_strings_are_not_compared() -> None:
    titles = real("movielens").select("title")
    before, after = profile_of(titles), profile_of(titles)
    after.hash_version = "of another polars"
    after.columns["title"].buckets = after.columns["title"].buckets[::-1]  # type: ignore[index]
    report = compare(before, after, Drift())
    assert "js" not in report.features[0].statistics
    assert not report.drifted
    assert report.multivariate is None


FEW = st.lists(st.one_of(st.none(), st.floats(), st.sampled_from([0.0, 1.0, 1e308, -1e308])), min_size=1, max_size=9)
WORDS = st.lists(st.one_of(st.none(), st.text(max_size=5)), min_size=1, max_size=9)


@given(FEW, FEW, WORDS, WORDS)
@settings(max_examples=20, deadline=None)
def test_any_values_give_a_report_that_is_json(
    before: list[float | None], after: list[float | None], words: list[str | None], others: list[str | None]
) -> None:
    def table(numbers: list[float | None], texts: list[str | None]) -> pl.DataFrame:
        columns = {"x": (numbers * 40)[:40], "s": (texts * 40)[:40], "even": list(range(40))}
        return pl.DataFrame(columns, schema={"x": pl.Float64, "s": pl.String, "even": pl.Int64})

    report = drift(table(before, words), table(after, others), min_rows=30)
    assert DriftReport.from_json(report.to_json()) == report
    assert not report.drifted or (before, words) != (after, others)


# The statistics themselves, against SciPy


def test_cramers_v_ends_at_one_however_unlike_the_sizes() -> None:
    found = distances.chi_square(Shares(np.array([20_000.0, 0.0]), np.array([0.0, 20.0])))
    assert found.statistic == 1.0


COUNTS = st.lists(st.integers(20, 400), min_size=4, max_size=4)


@given(COUNTS, COUNTS)
@settings(max_examples=40, deadline=None)
def test_statistics_of_counts_are_those_of_scipy(before: list[int], after: list[int]) -> None:
    shares = Shares(np.array(before, float), np.array(after, float))
    _, p_value, *_ = stats.chi2_contingency([before, after], correction=False)
    found = distances.chi_square(shares)
    evened = [shares.reference / sum(before), shares.current / sum(after)]  # V of two samples of like size
    assert found.statistic == pytest.approx(np.sqrt(stats.chi2_contingency(evened, correction=False)[0] / 2), abs=1e-9)
    assert found.p_value == pytest.approx(p_value, abs=0.01)
    p, q = shares.smooth
    divergence = (stats.entropy(p, (p + q) / 2, base=2) + stats.entropy(q, (p + q) / 2, base=2)) / 2
    assert distances.jensen_shannon(shares).statistic == pytest.approx(np.sqrt(max(0, divergence)), abs=1e-7)
    assert distances.psi(shares).statistic == pytest.approx(stats.entropy(p, q) + stats.entropy(q, p), abs=1e-9)


SAMPLE = st.lists(st.integers(-50, 50), min_size=30, max_size=60)


@given(SAMPLE, SAMPLE)
@settings(max_examples=40, deadline=None)
def test_statistics_of_samples_are_those_of_scipy(before: list[int], after: list[int]) -> None:
    a, b = (Cdf.of(np.array(x, float), np.ones(len(x))) for x in (before, after))
    found = distances.kolmogorov_smirnov(a, b, len(before), len(after), 0.0)
    scipy = stats.ks_2samp(before, after, method="asymp")
    assert found.statistic == pytest.approx(scipy.statistic, abs=1e-9)
    low, high = a.quantile(np.array([0.005, 0.995]))
    if low < high:
        clipped = [np.clip(x, low, high) for x in (before, after)]
        expected = stats.wasserstein_distance(*clipped) / np.std(clipped[0])
        assert distances.wasserstein(a, b, len(before), len(after), 0.0).statistic == pytest.approx(expected)


def test_the_quantile_of_chi2_is_that_of_scipy() -> None:
    for freedom in (1, 2, 5, 9, 30, 511):
        expected = stats.chi2.ppf(1 - distances.ALPHA, freedom)
        assert expected * 0.999 < distances.chi2_quantile(freedom) < expected * 1.03
    assert distances.ks_p_value(1.36) == pytest.approx(stats.kstwobign.sf(1.36), abs=1e-9)


def test_the_model_is_a_structural_schema_with_rules() -> None:
    schema = structural_schema(Drift)
    assert schema["properties"]["threshold"]["default"] == 0.1
    assert len(schema["x-kubernetes-validations"]) == 2
    assert Drift.model_validate({"reference": "dataset", "datasetRef": {"name": "tweets"}}).dataset_ref
