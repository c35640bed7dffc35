"""Expectations: what is counted, what is kept aside, what a message says, and that any partition gives the same."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import cel
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mizzen.data.expectations import REASONS, ROW, Outcome, Result, Suite, build
from mizzen.data.expectations.build import refusals
from mizzen.data.expectations.unique import Unique
from mizzen.errors import UserError
from mizzen_api.conditions import Reason
from mizzen_api.dataset_expectations import Expectation, duration

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
PEOPLE = pl.DataFrame(
    {
        "age": [31, 212, None, 44, -1],
        "score": [0.5, float("nan"), 3.0, float("inf"), None],
        "country": ["US", "DE", None, "XX", "US"],
        "seen": [date(2026, 1, 1), None, date(2025, 3, 1), None, date(2026, 1, 4)],
        "note": ["ok", "a\nb", "", "w" * 300, None],
    }
)


def expect(**fields: Any) -> Expectation:
    return Expectation.model_validate(fields)


def held(frame: pl.DataFrame, *expectations: Expectation, now: datetime = NOW) -> tuple[Result, ...]:
    suite = Suite(expectations, frame.schema)
    suite.update(frame)
    return suite.finish(now).results


@pytest.mark.parametrize(
    ("expectation", "rows", "violations", "outcome", "said"),
    [
        (expect(column="age", min=0, max=130), 4, 2, "Failed", "0 ≤ age ≤ 130: 2 of 4 rows (50 %) break it, first"),
        (expect(column="age", min=0, max=130, tolerance=0.5), 4, 2, "Passed", "within the 50 % that are tolerated"),
        (expect(column="age", min=0, max=130, tolerance=0.4), 4, 2, "Failed", "more than the 40 % that are tolerated"),
        (expect(column="age", max=130, onViolation="Warn"), 4, 1, "Warned", "first row 2: 212; mend the source"),
        (expect(column="age", min=-5), 4, 0, "Passed", "holds in all 4 rows"),
        (expect(column="score", max=10), 3, 1, "Failed", "first row 4: inf"),
        (expect(column="score", maxNullFraction=0.4), 5, 2, "Passed", "score is there in at least 60 %"),
        (expect(column="score", maxNullFraction=0.3), 5, 2, "Failed", "first row 2: nan; impute it"),
        (expect(column="country", maxNullFraction=0), 5, 1, "Failed", "country is there: 1 of 5 rows (20 %)"),
        (expect(column="country", values=["US", "DE"]), 4, 1, "Failed", "country in {US, DE}: 1 of 4 rows"),
        (expect(column="age", values=["31", "44"]), 4, 2, "Failed", "first row 2: 212"),
        (expect(column="note", pattern="ok|w+|"), 4, 1, "Failed", "first row 2: a b"),
        (expect(column="country", pattern="U"), 4, 4, "Failed", "first row 1: US"),
        (expect(column="country", unique=True), 4, 1, "Failed", "repeat an earlier one, first row 5: US"),
        (expect(columns=["country", "age"], unique=True), 4, 0, "Passed", "country + age is unique: holds"),
        (expect(minRows=6), 5, 1, "Failed", "6 ≤ rows: there are 5 rows; is a source"),
        (expect(minRows=1, maxRows=4), 5, 1, "Failed", "is a source read twice"),
        (expect(column="seen", maxAge="1d12h"), 3, 0, "Passed", "the newest is 2026-01-04 00:00:00 UTC, 1 d 12 h old"),
        (expect(column="seen", maxAge="35h"), 3, 1, "Failed", "does what writes the source still run?"),
        (expect(column="age", mean={"min": 70, "max": 72}), 4, 0, "Passed", "the mean of 4 values is 71.5"),
        (expect(column="age", mean={"max": 71}), 4, 1, "Failed", "has a unit changed"),
        (expect(column="score", mean={"max": 71}), 3, 1, "Failed", "there is no mean: 1 row with infinity"),
        (expect(column="age", quantiles=[{"quantile": 0.5, "min": 31, "max": 31}]), 4, 0, "Passed", "median of age"),
        (expect(column="age", quantiles=[{"quantile": 0.5, "min": 32}]), 4, 1, "Failed", "the quantile is below min"),
        (expect(column="age", quantiles=[{"quantile": 0.75, "max": 43}]), 4, 1, "Failed", "the quantile is above max"),
        (expect(expression="age < 100 || country == 'DE'"), 4, 0, "Passed", "age < 100 || country == 'DE': holds"),
        (expect(expression="age < 40"), 4, 2, "Failed", "first row 2: 212"),
        (expect(expression="size(note) < 99 && age > 0"), 4, 2, "Failed", "first row 4: note=" + "w" * 74 + "…"),
    ],
)  # fmt: skip
def test_each_constraint_counts_and_says(
    expectation: Expectation, rows: int, violations: int, outcome: str, said: str
) -> None:
    (result,) = held(PEOPLE, expectation)
    assert (result.rows, result.violations, result.outcome) == (rows, violations, outcome)
    assert said in result.message
    assert all(len(sample.value) <= 80 for sample in result.samples)


def test_constraints_of_one_expectation_are_results_of_their_own() -> None:
    results = held(PEOPLE, expect(column="age", min=0, max=300, maxNullFraction=0, unique=True))
    assert [(result.kind, result.outcome) for result in results] == [
        ("nulls", "Failed"),
        ("range", "Failed"),
        ("unique", "Passed"),
    ]


def test_dropped_rows_are_kept_aside_with_all_their_reasons_and_the_rest_is_judged_without_them() -> None:
    suite = Suite(
        [
            expect(column="age", min=0, max=130, onViolation="Drop"),
            expect(column="score", maxNullFraction=0, onViolation="Drop"),
            expect(column="country", unique=True),
            expect(maxRows=3),
        ],
        PEOPLE.schema,
    )
    first, second = suite.update(PEOPLE), suite.update(PEOPLE.with_columns(country=pl.lit("NL")))
    assert first.kept.rows() == [PEOPLE.row(row) for row in (0, 2, 3)]
    assert first.rejected.columns == [*PEOPLE.columns, REASONS, ROW]
    assert first.rejected[ROW].to_list() == [2, 5]
    assert second.rejected[ROW].to_list() == [7, 10]
    assert first.rejected[REASONS].to_list() == [["0 ≤ age ≤ 130", "score is there"]] * 2
    outcome = suite.finish(NOW)
    assert (outcome.rows, outcome.dropped) == (10, 4)
    assert [result.outcome for result in outcome.results] == ["Dropped", "Dropped", "Failed", "Failed"]
    assert "2 of 5 rows" in outcome.results[2].message and "first row 8: NL" in outcome.results[2].message
    assert "there are 6 rows" in outcome.results[3].message


def test_a_frame_where_nothing_is_dropped_has_an_empty_rejected_one_of_the_same_columns() -> None:
    for expectations in ([], [expect(column="age", max=1000, onViolation="Drop")]):
        sifted = Suite(expectations, PEOPLE.schema).update(PEOPLE)
        assert sifted.kept.equals(PEOPLE)
        assert sifted.rejected.schema == {**PEOPLE.schema, REASONS: pl.List(pl.String), ROW: pl.Int64}
        assert sifted.rejected.height == 0


def test_drop_beyond_its_tolerance_fails_the_version() -> None:
    (result,) = held(PEOPLE, expect(column="age", min=0, max=130, onViolation="Drop", tolerance=0.2))
    assert result.outcome == "Failed"


def test_a_failed_outcome_is_a_user_error_that_names_each_failure_and_survives_json() -> None:
    suite = Suite(
        [expect(column="age", max=1), expect(minRows=9), expect(maxRows=1, onViolation="Warn")], PEOPLE.schema
    )
    suite.update(PEOPLE)
    outcome = suite.finish(NOW)
    assert Outcome.from_json(outcome.to_json()) == outcome
    with pytest.raises(UserError) as error:
        outcome.check()
    assert error.value.reason == Reason.EXPECTATION_FAILED
    assert "age ≤ 1: " in error.value.message and "; 9 ≤ rows: " in error.value.message
    assert "rows ≤ 1" not in error.value.message


def test_no_rows_at_all_hold_what_rows_could_break_and_no_more() -> None:
    results = held(
        PEOPLE.clear(),
        expect(column="age", min=0, maxNullFraction=0, unique=True, mean={"min": 0}),
        expect(column="age", quantiles=[{"quantile": 0.5, "min": 0}]),
        expect(column="seen", maxAge="1h"),
        expect(minRows=1),
    )  # fmt: skip
    assert {result.kind: result.passed for result in results} == {
        "nulls": True, "range": True, "unique": True,
        "mean": False, "quantile": False, "freshness": False, "rows": False,
    }  # fmt: skip


def test_large_whole_numbers_are_compared_exactly() -> None:
    frame = pl.DataFrame({"id": [2**53, 2**53 + 1]})
    (result,) = held(frame, expect(column="id", max=2**53))
    assert result.violations == 1


@pytest.mark.parametrize(
    ("dtype", "values"), [(pl.Categorical, ["a", "b"]), (pl.Enum(["a", "b", "c"]), ["a", "b"]), (pl.String, ["a", "b"])]
)
def test_categories_are_compared_by_their_text(dtype: Any, values: list[str]) -> None:
    frame = pl.DataFrame({"c": pl.Series(["a", "b", "c", "a"], dtype=dtype)})
    results = held(frame, expect(column="c", values=values, pattern="[ab]", unique=True), expect(expression="c != 'c'"))
    assert [result.violations for result in results] == [1, 1, 1, 1]


def test_freshness_reads_text_and_zones_and_says_what_lies_ahead() -> None:
    frame = pl.DataFrame(
        {
            "text": ["2026-01-05T13:00:00+02:00", "2026-01-05 10:59", "nonsense"],
            "zoned": pl.Series([datetime(2026, 1, 5, 18), None, None]).dt.replace_time_zone("Asia/Tokyo"),
            "ahead": [datetime(2026, 1, 6), None, None],
        }
    )
    text, zoned, ahead = held(frame, *(expect(column=name, maxAge="3h") for name in frame.columns))
    assert text.observed == {"newest": "2026-01-05T11:00:00+00:00", "ageSeconds": 3600} and text.rows == 2
    assert zoned.observed["newest"] == "2026-01-05T09:00:00+00:00" and zoned.passed
    assert ahead.passed and "12 h ahead of now: is it a mistake?" in ahead.message


@pytest.mark.parametrize(
    ("expectation", "reason", "said"),
    [
        (expect(column="agee", min=1), Reason.COLUMN_MISSING, "[0]: the sources have no column 'agee'; their"),
        (expect(column="country", min=1), Reason.INVALID_PARAMETERS, "'country' is String; give it a number type"),
        (expect(column="seen", min=1), Reason.INVALID_PARAMETERS, "write expression: seen >= date('2026-01-31')"),
        (expect(column="age", values=["1", "x"]), Reason.INVALID_PARAMETERS, "values holds 'x', which is no Int64"),
        (expect(column="note", pattern="(["), Reason.INVALID_PARAMETERS, "'([' is not a regular expression: unclosed"),
        (expect(column="age", maxAge="1d"), Reason.INVALID_PARAMETERS, "maxAge needs dates or times"),
        (expect(column="seen", mean={"min": 1}), Reason.INVALID_PARAMETERS, "mean needs numbers"),
        (expect(expression="age >> 3"), Reason.INVALID_PARAMETERS,
         "spec.expectations[0].expression, character 6: expected a column or a value, found '>', in: age >‹here›> 3"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_before_any_row_is_read(
    expectation: Expectation, reason: Reason, said: str
) -> None:
    with pytest.raises(UserError) as error:
        build([expectation], PEOPLE.schema)
    assert error.value.reason == reason
    assert said in error.value.message


FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "column": st.just("a"),
    "columns": st.just(["a", "b"]),
    "min": st.integers(0, 2),
    "max": st.integers(0, 2),
    "maxNullFraction": st.sampled_from([0, 0.5]),
    "values": st.just(["1"]),
    "pattern": st.just("1"),
    "unique": st.booleans(),
    "minRows": st.integers(0, 2),
    "maxRows": st.integers(0, 2),
    "maxAge": st.just("1d"),
    "expression": st.just("a > 1"),
    "mean": st.fixed_dictionaries({}, optional={"min": st.integers(0, 2), "max": st.integers(0, 2)}),
    "tolerance": st.just(0.1),
    "onViolation": st.sampled_from(["Fail", "Warn", "Drop"]),
}


@given(st.fixed_dictionaries({}, optional=FIELDS))
@settings(max_examples=300)
def test_the_rules_of_the_crd_and_ours_refuse_the_same(fields: dict[str, Any]) -> None:
    def refused(model: Any, wire: dict[str, Any]) -> bool:
        rules = model.model_config["json_schema_extra"]["x-kubernetes-validations"]
        return not all(cel.evaluate(rule["rule"], {"self": wire}) for rule in rules)

    asked = Expectation.model_validate(fields)
    wire = {name: float(value) if name in {"min", "max", "maxNullFraction", "tolerance"} else value
            for name, value in asked.to_wire().items()}  # fmt: skip
    nested = asked.mean is not None and refused(type(asked.mean), asked.mean.to_wire())
    assert bool(list(refusals(asked))) == (refused(Expectation, wire) or nested)


# Any partition of the rows, merged in order, gives the same results.

ROWS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(-3, 3)),
        st.one_of(st.none(), st.floats(width=32, allow_infinity=False), st.sampled_from([0.1, -0.0, 1e16, -1e16])),
        st.sampled_from(["a", "b", "c", None]),
        st.one_of(st.none(), st.dates(date(2020, 1, 1), date(2026, 1, 1))),
    ),
    max_size=40,
)
EVERYTHING = [
    expect(column="n", min=-2, max=2, onViolation="Drop", tolerance=0.3),
    expect(column="t", pattern="[ab]", maxNullFraction=0.1),
    expect(column="x", unique=True, mean={"min": 0}, quantiles=[{"quantile": 0.3, "min": 0, "max": 5}]),
    expect(columns=["n", "t"], unique=True, onViolation="Warn"),
    expect(column="d", maxAge="3d"),
    expect(expression="n < 2 || t == 'a'", minRows=3),
]
SCHEMA: Any = {"n": pl.Int64, "x": pl.Float64, "t": pl.String, "d": pl.Date}


def counted(frame: pl.DataFrame, spill_bytes: int | None = None) -> Suite:
    suite = Suite(EVERYTHING, frame.schema)
    for check in suite.checks:
        if isinstance(check, Unique) and spill_bytes:
            check.spill_bytes = spill_bytes
    return suite


@pytest.mark.slow
@given(ROWS, st.lists(st.integers(0, 40), max_size=4), st.sampled_from([None, 1, 200]), st.booleans())
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_partition_merged_in_order_gives_the_same(
    rows: Sequence[tuple[Any, ...]], cuts: list[int], spill_bytes: int | None, over_json: bool
) -> None:
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    whole = counted(frame)
    whole.update(frame)
    merged = counted(frame, spill_bytes)
    bounds = [0, *sorted(cuts), max(40, frame.height)]
    for start, stop in pairwise(bounds):
        part = counted(frame, spill_bytes)
        part.update(frame.slice(start, stop - start))
        if over_json:
            part = counted(frame, spill_bytes).restore(json.dumps(json.loads(part.to_json())))
        merged.merge(part)
    assert merged.finish(NOW).to_json() == whole.finish(NOW).to_json()


def missing_or(value: Any) -> Any:
    return "missing" if value is None or (isinstance(value, float) and math.isnan(value)) else value


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.one_of(st.none(), st.floats()), st.integers(0, 3))),
    st.integers(1, 3),
    st.integers(1, 300),
)
@settings(max_examples=60, deadline=None)
def test_unique_is_exact_whether_it_spills_or_not(rows: list[tuple[Any, ...]], width: int, spill_bytes: int) -> None:
    names = ["a", "b", "c"][:width]
    frame = pl.DataFrame(rows, schema={"a": pl.String, "b": pl.Float64, "c": pl.Int64}, orient="row")
    (check,) = build([expect(columns=names, unique=True)], frame.schema)
    assert isinstance(check, Unique)
    check.spill_bytes = spill_bytes
    suite = Suite([], frame.schema)
    suite.checks = suite.watchers = [check]
    for start in range(0, frame.height, 7):
        suite.update(frame.slice(start, 7))
    (result,) = suite.finish(NOW).results
    keys = [row[:width] for row in rows if "missing" not in map(missing_or, row[:width])]
    assert result.rows == len(keys)
    assert result.violations == len(keys) - len(set(keys))


def test_unique_leaves_no_file_behind(tmp_path: Path) -> None:
    frame = pl.DataFrame({"n": range(1000)})
    suite = Suite([expect(column="n", unique=True)], frame.schema, scratch=tmp_path)
    (check,) = suite.checks
    assert isinstance(check, Unique)
    check.spill_bytes = 100
    for start in range(0, 1000, 250):
        suite.update(frame.slice(start, 250))
    assert len(list(tmp_path.rglob("*.arrow"))) == 4
    assert suite.finish(NOW).results[0].passed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=30), st.integers(0, 30))
@settings(deadline=None)
def test_the_mean_is_that_of_the_exact_sum(values: list[float], at: int) -> None:
    frame = pl.DataFrame({"x": values})
    suite = Suite([expect(column="x", mean={"min": 0})], frame.schema)
    suite.update(frame.head(at))
    suite.update(frame.slice(at))
    exact = float(sum(map(Fraction, values)) / len(values))
    assert suite.finish(NOW).results[0].observed["mean"] == exact


@pytest.mark.parametrize(("text", "seconds"), [("1d12h", 129600), ("90m", 5400), ("1h1s", 3601), ("0s", 0)])
def test_durations(text: str, seconds: int) -> None:
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "1", "1w", "h", "1h 2m", "-1h", "1m1h"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        duration(text)
