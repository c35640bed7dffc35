"""Training and serving see the same: row by row, whatever the rows are."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mizzen.data.pipeline import Pipeline, RowError, arrays
from mizzen.data.steps.text import Tokens

from .builders import make, spec, table

TRANSFORMS = (
    {"impute": {"columns": ["age"], "method": "median", "indicator": True}},
    {"clip": {"columns": ["price"], "upperQuantile": 0.95}},
    {"scale": {"columns": ["age", "price"], "method": "standard"}},
    {"scale": {"columns": ["visits"], "method": "quantile"}},
    {"encode": {"columns": ["country"]}},
    {"dateParts": {"columns": ["seen"], "cyclic": True}},
    {"normalizeText": {"columns": ["text"]}},
    {"tokenize": {"column": "text", "vocabSize": 400, "maxLength": 10}},
)
MADE = make(spec(*TRANSFORMS), table(800), chunk_rows=300)
SERVED = Pipeline.from_json(MADE.pipeline.to_json())

row = st.fixed_dictionaries(
    {
        "age": st.none() | st.floats(-1e6, 1e6),
        "price": st.none() | st.floats(0, 1e9) | st.integers(0, 1000),
        "visits": st.none() | st.integers(-(2**31), 2**31),
        "country": st.sampled_from(["de", "fr", "us", "at", "", "DE"]),
        "seen": st.datetimes().map(lambda when: when.isoformat() + "Z"),
        "text": st.text(max_size=80),
    }
)


@pytest.mark.slow
@given(st.lists(row, min_size=1, max_size=12))
@settings(max_examples=25, deadline=None)
def test_a_row_gives_the_same_alone_in_a_batch_and_in_training(rows: list[dict[str, object]]) -> None:
    batch = SERVED.transform_rows(rows)
    frame = pl.DataFrame([pl.Series(name, [r[name] for r in rows], dtype=dtype, strict=False)
                          for name, dtype in MADE.making.raw.select(SERVED.columns).schema.items()])  # fmt: skip
    trained = arrays(MADE.pipeline.transform(frame), MADE.pipeline.features)
    for name, values in trained.items():
        assert np.array_equal(batch[name], values, equal_nan=values.dtype.kind == "f"), name
    for number, one in enumerate(rows):
        alone = SERVED.transform_rows([one])
        for name, values in alone.items():
            assert np.array_equal(values[0], batch[name][number], equal_nan=values.dtype.kind == "f"), name


def test_the_stored_train_rows_are_what_serving_makes_of_the_raw_ones() -> None:
    stored = MADE.train.sort("raw.text")
    raw = table(800).filter(pl.col("text").is_in(stored["raw.text"].implode())).sort("text")
    served = SERVED.transform_rows(raw.drop("label").to_dicts())
    trained = arrays(stored, SERVED.features)
    for name in ("ids", "lengths", "features"):
        assert np.array_equal(served[name], trained[name], equal_nan=name == "features")


GOOD = {"age": 3.0, "price": 1, "visits": 2, "country": "de", "seen": "2024-01-01", "text": "x"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"age": "old"}, "row 1: column 'age' must be a number, not str"),
        ({"age": True}, "row 1: column 'age' must be a number, not bool"),
        ({"text": None}, "row 1: column 'text' must be a string, not NoneType"),
        ({"text": 3}, "row 1: column 'text' must be a string, not int"),
        ({"more": 1}, "row 1 has an unknown column 'more'; the model reads 'age', 'price'"),
        ({"seen": "soon"}, "row 1: column 'seen' holds 'soon', which is no ISO 8601"),
        ({"visits": 1e30}, "row 1: column 'visits' has the value 1e+30, which is no Int64"),
        ({"visits": 2.5}, "row 1: column 'visits' must be a whole number, not 2.5"),
    ],
)
def test_a_row_that_does_not_fit_is_named(change: dict[str, object], said: str) -> None:
    with pytest.raises(RowError) as error:
        SERVED.transform_rows([GOOD, {**GOOD, **change}])
    assert said in str(error.value)


def test_a_missing_column_is_named_and_the_target_is_ignored() -> None:
    with pytest.raises(RowError, match="row 0 lacks the column 'price'; it has age"):
        SERVED.transform_rows([{"age": 1.0}])
    assert SERVED.transform_rows([{**GOOD, "label": "old"}])["features"].shape[0] == 1
    assert SERVED.transform_rows([])["ids"].shape == (0, 10)


def test_a_pipeline_of_the_first_format_is_read() -> None:
    step = next(step for step in MADE.pipeline.steps if isinstance(step, Tokens))
    old = {
        "format": 1,
        "target": "label",
        "classes": ["old", "young"],
        "steps": [{"tokenize": {"column": "text", "maxLength": 10}, "tokenizer": json.loads(step.tokenizer_json)}],
    }
    read = Pipeline.from_json(json.dumps(old))
    assert (read.columns, read.classes, read.max_length) == (("text",), ("old", "young"), 10)
    assert read.transform_rows([{"text": "word1 is good"}])["ids"].shape == (1, 10)
    with pytest.raises(ValueError, match="pipeline format 3; this version of mizzen reads 2"):
        Pipeline.from_json('{"format": 3}')
