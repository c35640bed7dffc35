"""Expressions over columns mean what CEL means; missing values stay open; mistakes are shown where they stand."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import cel
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mizzen.data.expectations import compile_expression
from mizzen.errors import UserError
from mizzen_api.conditions import Reason

ROW = {
    "a": 1, "b": 2.5, "text": "héllo", "yes": True, "day": date(2026, 1, 2), "at": datetime(2026, 1, 2, 3, tzinfo=UTC),
    "took": timedelta(hours=2), "none": None, "nan": float("nan"), "unit price": 3, "iso": "2026-01-02T05:00:00+02:00",
}  # fmt: skip
FRAME = pl.DataFrame([ROW], schema_overrides={"none": pl.Int64}, strict=False).with_columns(
    big=pl.lit(2**62, pl.Int64),
    tiny=pl.lit(127, pl.Int8),
    natural=pl.lit(1, pl.UInt8),
    kind=pl.lit("x", pl.Categorical),
)


def answer(expression: str, frame: pl.DataFrame = FRAME) -> bool | None:
    compiled = compile_expression(expression, frame.schema)
    found = frame.select(compiled.condition.alias("answer"))["answer"]
    assert found.dtype == pl.Boolean
    result: bool | None = found[0]
    return result


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("a < b", True),
        ("a + 2 * 3 == 7", True),
        ("(a + 2) * 3 == 9", True),
        ("10 - 2 - 3 == 5 * a", True),
        ("a / 2 == 0.5", True),
        ("-a < 0 && - -a == 1", True),
        ("!yes || a == 1", True),
        ("!(yes && a == 2)", True),
        ("yes == true && yes != false", True),
        ("yes", True),
        ("a == 2 || a == 1 && b == 9.0", False),
        ("a in [3, 2, 1]", True),
        ("text in ['x', \"y\"]", False),
        ("text == 'h\\u'", False),
        ("text.startsWith('hé') && text.endsWith('llo') && text.contains('él')", True),
        ("text.contains('.')", False),
        ("text.matches('^h.l+o$')", True),
        ("size(text) == 5 && text.size() == 5", True),
        ("text + '!' == 'héllo!'", True),
        ("kind == 'x'", True),
        ("abs(a - 3) == 2", True),
        ("`unit price` * a >= 3", True),
        ("day == date('2026-01-02')", True),
        ("day < '2026-01-03' && '2026-01-01' < day", True),
        ("at >= timestamp('2026-01-02T03:00:00Z')", True),
        ("at - day == duration('3h')", True),
        ("day + duration('1d') > at && at - duration('3h') == day", True),
        ("took <= duration('2h') && took + took == duration('4h')", True),
        ("timestamp(iso) == at", True),
        ("has(a) && !has(none) && none == null && a != null && null != a", True),
        ("none > 1", None),
        ("nan > 1", None),
        ("nan == null", True),
        ("none > 1 || a == 1", True),
        ("none > 1 && a == 2", False),
        ("none > 1 && a == 1", None),
        ("!(none > 1)", None),
        ("none in [1, 2]", None),
        ("date(text) == day", None),
        ("(a - 1) / (a - 1) > 0", None),
        # Whole numbers never wrap around.
        ("tiny + 1 > 0 && natural - 2 < 0 && -natural < 0", True),
        ("big + big > big && big * 4 > 0", True),
        ("big == 4611686018427387904 && big != 4611686018427387903", True),
    ],
)
def test_what_expressions_mean(expression: str, expected: bool | None) -> None:
    assert answer(expression) is expected


@pytest.mark.parametrize(
    ("expression", "character", "said"),
    [
        ("", 1, "expected a column or a value, found the end"),
        ("a >", 4, "expected a column or a value, found the end"),
        ("a >> 1", 4, "found '>'"),
        ("(a > 1", 7, "expected ')', found the end"),
        ("a > 1)", 6, "expected an operator, found ')'"),
        ("age > 1", 1, "there is no column 'age'; the columns are a, b, text"),
        ("user.name == 'x'", 1, "a name with a dot in it goes in backticks"),
        ("a = 1", 3, "write == to compare"),
        ("a <> 1", 3, "write != for unequal"),
        ("a > 1 and b > 1", 7, "write && for and"),
        ("a > 1 or b > 1", 7, "write || for or"),
        ("not yes", 1, "write ! for not"),
        ("a is null", 3, "write x == null"),
        ("text like 'x'", 6, "write x.matches('pattern')"),
        ("a % 2 == 0", 3, "there is no remainder"),
        ("text == 'x", 9, "the text that begins here does not end"),
        ("`a > 1", 1, "the column name that begins here does not end"),
        ("0 < a < 2", 7, "comparisons do not chain: write a < b && b < c"),
        ("text > 1", 6, "> compares text with a whole number; give the column the type you mean in columnTypes"),
        ("a in [1, 'x']", 10, "== compares a whole number with text"),
        ("a", 1, "this is a whole number: an expectation is true or false"),
        ("a && yes", 1, "&& joins conditions"),
        ("!a", 2, "! turns a condition round"),
        ("-text == 'x'", 2, "- needs a number"),
        ("text * 2 == 'x'", 6, "* does not take text and a whole number"),
        ("yes < true", 5, "< needs an order"),
        ("a < null", 3, "< with null is never true; write == null"),
        ("day > 'soon'", 7, "'soon' is not a date: write it as 2026-01-31"),
        ("took > duration('week')", 17, "'week' is not a duration"),
        ("text.matches('(')", 14, "'(' is not a regular expression: unclosed group"),
        ("text.matches(text)", 14, "matches takes a pattern that is written out"),
        ("text.trim() == 'x'", 6, "there is no method 'trim'; there are startsWith"),
        ("sqrt(a) > 1", 1, "there is no function 'sqrt'; there are has, size, abs"),
        ("size(text, a) > 1", 1, "size takes 1 argument, not 2"),
        ("text.startsWith() ", 6, "startsWith takes 1 argument, not 0"),
        ("size(a) > 1", 6, "this is a whole number: size counts the characters of text"),
        ("a > 99999999999999999999", 5, "99999999999999999999 is too large"),
        ("1 < 2", 1, "the expression names no column"),
        ("a > 1 ; drop", 7, "';' is no part of an expression"),
        ("(" * 40 + "a" + ")" * 40 + " > 1", 33, "nested deeper than 32 levels"),
        ("!" * 40 + "yes", 33, "nested deeper than 32 levels"),
        ("a" + " + a" * 300 + " > 1", 1027, "more than 256 operations"),
    ],
)
def test_a_mistake_is_shown_where_it_stands(expression: str, character: int, said: str) -> None:
    with pytest.raises(UserError) as error:
        compile_expression(expression, FRAME.schema, "here")
    assert error.value.reason == Reason.INVALID_PARAMETERS
    assert error.value.message.startswith(f"here, character {character}: ")
    assert said in error.value.message
    assert "‹here›" in error.value.message


def test_the_longest_expression_that_is_allowed_runs() -> None:
    assert answer("a" + " + a" * 255 + " == 256") is True
    assert answer(" || ".join(["a == 2"] * 128)) is False


def test_the_columns_are_those_that_it_reads_in_order() -> None:
    assert compile_expression("b > a && `unit price` > a", FRAME.schema).columns == ("b", "a", "unit price")


# Against an implementation of CEL: the same text, the same row, the same answer.


def numbers(depth: int) -> st.SearchStrategy[str]:
    leaf = st.one_of(st.sampled_from(["n", "m"]), st.integers(0, 9).map(str))
    if depth == 0:
        return leaf
    inner = numbers(depth - 1)
    return st.one_of(
        leaf,
        st.tuples(inner, st.sampled_from("+-*"), inner).map(" ".join),
        inner.map("({})".format),
        inner.map("-({})".format),
        st.sampled_from(["s", "r"]).map("size({})".format),
    )


def conditions(depth: int) -> st.SearchStrategy[str]:
    texts = st.sampled_from(["s", "r", "'a'", '"ab"', "'é'", "s + 'a'"])
    comparison = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
    leaf = st.one_of(
        st.tuples(numbers(2), comparison, numbers(2)).map(" ".join),
        st.tuples(texts, comparison, texts).map(" ".join),
        st.tuples(numbers(0), st.just("in ["), numbers(0), st.just(","), numbers(0), st.just("]")).map(" ".join),
        st.tuples(
            st.sampled_from(["s", "r"]),
            st.sampled_from([".startsWith(", ".endsWith(", ".contains("]),
            texts,
            st.just(")"),
        ).map("".join),
        st.sampled_from(["p", "p == true", "s.matches('a+b?')"]),
    )
    if depth == 0:
        return leaf
    inner = conditions(depth - 1)
    return st.one_of(
        leaf,
        st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(" ".join),
        inner.map("({})".format),
        inner.map("!({})".format),
    )


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "n": st.integers(-5, 5),
    "m": st.integers(-5, 5),
    # the pinned CEL counts bytes where the specification counts characters: see the test below
    "s": st.sampled_from(["", "a", "ab", "ba"]),
    "r": st.sampled_from(["", "a", "ab", "ba"]),
    "p": st.booleans(),
}
TYPES: Any = {"n": pl.Int64, "m": pl.Int32, "s": pl.String, "r": pl.String, "p": pl.Boolean}


@given(conditions(2), st.fixed_dictionaries(VALUES), st.sets(st.sampled_from(list(VALUES))))
@settings(max_examples=300, deadline=None)
def test_the_answer_is_that_of_cel_and_open_only_where_a_value_is_missing(
    expression: str, row: dict[str, Any], missing: set[str]
) -> None:
    frame = pl.DataFrame([row], schema=TYPES)
    try:
        found = answer(expression, frame)
    except UserError as error:
        assert "names no column" in error.message
        return
    truth = cel.evaluate(expression, row)
    assert found is truth
    holes = pl.DataFrame([{name: None if name in missing else value for name, value in row.items()}], schema=TYPES)
    assert answer(expression, holes) in {truth, None}
    if not missing & set(compile_expression(expression, TYPES_BUILT).columns):
        assert answer(expression, holes) is truth


TYPES_BUILT = pl.DataFrame(schema=TYPES).schema


@given(st.text(alphabet="ab()&|!=<>+-*/.,[]'\" `0129_\\x%\nnul", max_size=30))
@settings(max_examples=300, deadline=None)
def test_any_text_compiles_or_is_a_user_error(text: str) -> None:
    schema = pl.Schema({"a": pl.Int64, "b": pl.String})
    try:
        compiled = compile_expression(text, schema)
    except UserError as error:
        assert error.reason == Reason.INVALID_PARAMETERS
    else:
        pl.DataFrame({"a": [1, None], "b": ["x", None]}).select(compiled.condition)


def test_the_size_of_a_text_is_its_characters() -> None:
    frame = pl.DataFrame({"s": ["é", "né", ""]})
    assert [answer("size(s) == 1", frame[row : row + 1]) for row in range(3)] == [True, False, False]
