"""Invariances: the trained model keeps them, and each defect breaks the one that it should."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn

from mizzen.models import Model
from mizzen.testing import (
    check_batch_invariance,
    check_column_order,
    check_determinism,
    check_direction,
    check_invariances,
    check_invariant,
    check_padding_invariance,
    check_text_invariant,
    extra_spaces,
    lower_case,
    title_case,
    typo,
    upper_case,
)
from tests.runtime.testing.broken import AcrossBatch, CountsPadding, FirstRow, Noisy, Spoiled, rows, with_module

HOUSES = [{"rooms": 3, "place": "Ulm", "size": 80.5}, {"rooms": 1, "place": "Rom", "size": 31.0}]


def test_a_good_model_passes(model: Model, prices: Model) -> None:
    check_invariances(model, rows())
    check_invariances(prices, HOUSES)
    check_determinism(model)
    check_batch_invariance(nn.Linear(4, 2), torch.randn(5, 4))


BROKEN: list[tuple[Callable[..., None], Callable[[nn.Module], nn.Module], str]] = [
    (check_determinism, Noisy, r"answers otherwise when called again: row \d by .*draws random numbers"),
    (check_batch_invariance, AcrossBatch, r"answers a row in a batch otherwise than alone: row \d by"),
    (check_batch_invariance, FirstRow, r"otherwise than alone: row 0 by 1,"),
    (check_batch_invariance, Spoiled, r"otherwise than alone: row 0 by inf"),
    (check_padding_invariance, lambda _: CountsPadding(120, 2), r"a text padded to 12 tokens otherwise than without"),
    (check_invariances, lambda _: CountsPadding(120, 2), r"otherwise than"),
]


@pytest.mark.parametrize(("check", "defect", "said"), BROKEN)
def test_defects_are_found(
    model: Model, check: Callable[..., None], defect: Callable[[nn.Module], nn.Module], said: str
) -> None:
    with pytest.raises(AssertionError, match=said):
        check(with_module(model, defect(model.module)), rows())


def test_a_model_that_was_left_in_training_mode_is_evaluated_and_left_so(model: Model) -> None:
    model.train()
    check_determinism(model, rows())
    assert model.training and model.module.training


def test_an_order_of_columns_that_matters_is_found(prices: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def by_position(listed: list[Mapping[str, Any]]) -> Any:
        return {
            "features": torch.tensor([[float(len(str(value))) for value in row.values()][:2] for row in listed]).numpy()
        }

    check_column_order(prices, HOUSES)
    object.__setattr__(prices.pipeline, "transform_rows", by_position)
    with pytest.raises(AssertionError, match="mlp depends on the order of columns: row 0 by"):
        check_column_order(prices, HOUSES)


def test_texts_may_be_changed(model: Model) -> None:
    for change in (extra_spaces, upper_case, lower_case, title_case):
        check_text_invariant(model, rows(), change, tolerance=0.3, allowed=0.5)
    check_text_invariant(model, {"text": "THIS product is excellent", "length": 25}, lower_case, tolerance=1)


def test_a_change_that_moves_the_answer_is_told(model: Model) -> None:
    def turned(text: str) -> str:
        return text.replace("excellent", "awful")

    said = (
        r"turned moves 1 of 1 answers of text-transformer by more than 0\.1; most of all row 0, "
        r"text 'This product is excellent' → 'This product is awful': (good|bad) [01]\.\d+ → [01]\.\d+"
    )
    with pytest.raises(AssertionError, match=said):
        check_text_invariant(model, rows(), turned)
    check_text_invariant(model, rows(), turned, allowed=1.0)
    with pytest.raises(AssertionError, match="moves 1 of 1 answers"):
        check_text_invariant(model, rows(), turned, allowed=0.9)


def test_numbers_are_compared_in_deviations_of_the_target(prices: Model) -> None:
    def smaller(row: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**row, "size": row["size"] - 500}

    with pytest.raises(
        AssertionError,
        match=r"smaller moves 2 of 2 answers of mlp by more than 0\.1; .*size [83]\d\.\d → -4\d\d\.\d: \d+",
    ):
        check_invariant(prices, HOUSES, smaller)
    check_text_invariant(prices, HOUSES, upper_case, columns=["place"], tolerance=0)


def test_a_change_moves_answers_in_its_direction(model: Model, prices: Model) -> None:
    def worse(row: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**row, "text": row["text"].replace("excellent", "awful")}

    check_direction(model, rows(), worse, "up", label="bad", least=0.5)
    check_direction(model, rows(), worse, "down", label="good", least=0.5)
    said = (
        r"worse must move good up, and does not for 1 of 1 rows; least of all row 0, "
        r"text 'This product is excellent' → 'This product is awful': good [01]\.\d+ → [01]\.\d+"
    )
    with pytest.raises(AssertionError, match=said):
        check_direction(model, rows(), worse, "up", label="good")
    with pytest.raises(ValueError, match="label must be one of bad, good, not ''"):
        check_direction(model, rows(), worse, "up")
    with pytest.raises(AssertionError, match=r"same must move the value up, and does not for 2 of 2 rows"):
        check_direction(prices, HOUSES, same, "up")


def same(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Another row to the checks, the same to the model."""
    return {**row, "place": "elsewhere"}


def test_what_is_not_finite_is_no_invariance(model: Model) -> None:
    with pytest.raises(AssertionError, match="upper_case moves 1 of 4"):
        check_text_invariant(with_module(model, Spoiled(model.module)), rows(), upper_case, tolerance=1)


def test_what_cannot_be_checked_is_said(model: Model, prices: Model) -> None:
    with pytest.raises(TypeError, match="a Linear has no pipeline to read them"):
        check_column_order(nn.Linear(1, 1), rows())
    with pytest.raises(ValueError, match="lower_case changes none of the 1 rows"):
        check_text_invariant(model, {"text": "small"}, lower_case)
    with pytest.raises(ValueError, match="mlp is for table-regression: name the columns"):
        check_text_invariant(prices, HOUSES, upper_case)
    with pytest.raises(ValueError, match="'size' is no column of texts that mlp reads; it has place"):
        check_text_invariant(prices, HOUSES, upper_case, columns=["size"])
    with pytest.raises(ValueError, match="all texts have 12 tokens"):
        check_padding_invariance(model, {"text": "great " * 12})
    with pytest.raises(ValueError, match="at least two rows"):
        check_batch_invariance(model, {"text": "great"})
    with pytest.raises(ValueError, match="mlp is for table-regression: only texts are padded"):
        check_padding_invariance(prices, HOUSES)


def test_typos_swap_letters_within_a_word() -> None:
    text = "This product is excellent"
    made = {typo(seed)(text) for seed in range(40)}
    assert text not in made and len(made) > 3
    for changed in made:
        assert sorted(changed) == sorted(text)
        assert [word[0] + word[-1] for word in changed.split()] == [word[0] + word[-1] for word in text.split()]
    assert typo(3)(text) == typo(3)(text)
    assert typo()("it is 12345 so") == "it is 12345 so"
    assert extra_spaces("a b") == " a  b "
