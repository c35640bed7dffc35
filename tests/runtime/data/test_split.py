"""Splits: seeded, in proportion, never equal rows in two parts; by group and by time; and the same in any chunks."""

from __future__ import annotations

from collections import Counter

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mizzen.errors import UserError

from .builders import Made, make, spec, table

TOKENS = {"tokenize": {"column": "text", "vocabSize": 300, "maxLength": 4}}


def texts(made: Made) -> list[list[str]]:
    return [part["raw.text"].to_list() for part in made.parts]


def corpus(rows: list[tuple[int, str]]) -> pl.DataFrame:
    found = {"text": [f"text {number}" for number, _ in rows], "label": [label for _, label in rows]}
    return pl.DataFrame(found, schema={"text": pl.String, "label": pl.String})


def test_classes_keep_their_proportions() -> None:
    frame = corpus([(i, "a" if i % 3 else "b") for i in range(3000)])
    made = make(spec(TOKENS), frame, chunk_rows=700)
    for part, share in zip(made.parts, (0.8, 0.1, 0.1), strict=True):
        counts = Counter(part["label"].to_list())
        assert counts[0] == pytest.approx(2000 * share, abs=2)
        assert counts[1] == pytest.approx(1000 * share, abs=2)


@given(st.lists(st.tuples(st.integers(0, 60), st.sampled_from("abc")), min_size=5, max_size=150))
@settings(max_examples=25, deadline=None)
def test_equal_texts_are_never_in_two_parts(rows: list[tuple[int, str]]) -> None:
    rows = [*rows, (99, "a"), (98, "b")]
    made = make(spec(TOKENS), corpus(rows), chunk_rows=50)
    parts = [set(found) for found in texts(made)]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert sum(part.height for part in made.parts) == len(rows)


def test_a_seed_is_a_split_and_another_seed_another() -> None:
    frame = corpus([(i, "ab"[i % 2]) for i in range(500)])
    one, two = make(spec(TOKENS), frame), make(spec(TOKENS), frame, chunk_rows=100)
    other = make(spec(TOKENS, split={"seed": 8}), frame)
    assert [set(part) for part in texts(one)] == [set(part) for part in texts(two)], "chunks change nothing"
    assert set(texts(one)[2]) != set(texts(other)[2])


def test_a_group_stays_together() -> None:
    frame = table(400).with_columns(customer=pl.int_range(400) // 8)
    made = make(spec({"scale": {"columns": ["customer"], "method": "minmax"}}, split={"group": "customer"}), frame)
    parts = [set(part["customer"].to_list()) for part in made.parts]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert made.train.height == pytest.approx(320, abs=8)


def test_time_cuts_the_oldest_from_the_newest() -> None:
    frame = table(500).with_columns(when=pl.Series(range(500)).shuffle(seed=3))
    made = make(
        spec({"scale": {"columns": ["when"], "method": "minmax"}}, split={"time": "when"}), frame, chunk_rows=99
    )
    assert [part.height for part in made.parts] == [400, 50, 50]
    assert made.parts[0]["when"].max() < made.parts[1]["when"].min()
    assert made.parts[1]["when"].max() < made.parts[2]["when"].min()


def test_a_part_may_be_empty() -> None:
    made = make(
        spec(TOKENS, split={"train": 0.9, "validation": 0.1, "test": 0}), corpus([(i, "ab"[i % 2]) for i in range(100)])
    )
    assert [part.height for part in made.parts] == [90, 10, 0]
    tiny = make(spec(TOKENS), corpus([(0, "a"), (1, "b"), (2, "a")]))
    assert sum(part.height for part in tiny.parts) == 3
    assert tiny.train.height >= 1


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ({"time": "when"}, "split.time names the column 'when'"),
        ({"group": "who"}, "split.group names the column 'who'"),
    ],
)
def test_a_column_that_is_not_there_is_named(split: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make(spec(TOKENS, split=split), table(50))
