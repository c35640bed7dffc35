"""What must not change an answer: other rows of the batch, padding, the order of columns, another run, a change of words.

Models are what mizzen.models loads, or any function from rows to probabilities (N, C) or values (N,), such as a client
of a server. The kinds of tests are those of "Beyond Accuracy: Behavioral Testing of NLP Models with CheckList"
(Ribeiro et al., 2020): invariance and directional expectation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from mizzen.data.pipeline import PAD_ID
from mizzen.models.loading import Model, Row
from mizzen.models.shapes import TEXT
from mizzen.testing.asking import Answers, Rows, answer, evaluating, fail, label, listed, predictions
from mizzen.testing.changes import shuffled_columns

TOLERANCE = 1e-4  # of answers that differ only in the order of additions
_PADDING = 8


def check_deterministic(model: Model | Answers, rows: Row | Rows, times: int = 3) -> None:
    """The same rows get the same answer to the bit, each time."""
    __tracebackhide__ = True
    asked = listed(rows)
    first = predictions(model, asked)
    for _ in range(times - 1):
        _check_same(model, asked, first, predictions(model, asked), 0.0, "when asked again")


def check_batch_invariant(model: Model | Answers, rows: Rows, tolerance: float = TOLERANCE) -> None:
    """A row alone, among others, and among others in another order has the same answer."""
    __tracebackhide__ = True
    asked = listed(rows, least=2)
    together = predictions(model, asked)
    alone = torch.cat([predictions(model, [row]) for row in asked])
    _check_same(model, asked, together, alone, tolerance, "when asked alone")
    backwards = predictions(model, asked[::-1]).flip(0)
    _check_same(model, asked, together, backwards, tolerance, "when the batch is in another order")


def check_padding_invariant(model: Model, rows: Row | Rows, tolerance: float = TOLERANCE) -> None:
    """Texts that are padded to a greater length have the same answer."""
    __tracebackhide__ = True
    if model.data.modality != TEXT:
        raise ValueError(f"padding is for models of texts; this is one for {model.data.task}")
    asked = listed(rows)
    ids, lengths = model.inputs(asked)
    room = min(_PADDING, model.data.max_length - ids.shape[1])
    if room < 1:
        raise ValueError(f"a text has all {model.data.max_length} tokens that the model reads: give shorter ones")
    padded = torch.nn.functional.pad(ids, (0, room), value=PAD_ID)
    with evaluating(model.module):
        before, after = (answer(model.module, (part, lengths)).softmax(-1).double() for part in (ids, padded))
    _check_same(model, asked, before, after, tolerance, f"with {room} tokens of padding")


def check_column_order(model: Model | Answers, rows: Row | Rows) -> None:
    """The order of a row's keys changes nothing, to the bit."""
    __tracebackhide__ = True
    asked, shuffle = listed(rows), shuffled_columns()
    answers = [predictions(model, listing) for listing in (asked, [shuffle(row) for row in asked])]
    _check_same(model, asked, *answers, 0.0, "with the columns in another order")


def check_invariant(
    model: Model | Answers,
    rows: Row | Rows,
    change: Callable[[Row], Row],
    *,
    agreement: float = 1.0,
    tolerance: float | None = None,
) -> float:
    """At least the share `agreement` of the rows keeps its class, and moves by no more than `tolerance` where given.

    Of numbers to predict, `tolerance` is in the target's unit and must be given. Returns the share that agrees.
    """
    __tracebackhide__ = True
    asked = listed(rows)
    changed = [change(row) for row in asked]
    before, after = predictions(model, asked), predictions(model, changed)
    if before.shape[1] == 1 and tolerance is None:
        raise ValueError("check_invariant needs a tolerance for a number to predict")
    same = before.argmax(dim=1) == after.argmax(dim=1)
    if tolerance is not None:
        same &= (before - after).abs().amax(dim=1) <= tolerance
    share = same.double().mean().item()
    if share < agreement:
        row = int((~same).nonzero()[0])
        fail(
            f"{int(same.sum())} of {len(asked)} rows keep their answer after {_name(change)}, wanted are {agreement:.0%}. "
            f"Row {row}: {_said(model, before[row])} became {_said(model, after[row])}: {asked[row]} → {changed[row]}"
        )
    return share


def check_direction(
    model: Model | Answers,
    rows: Row | Rows,
    change: Callable[[Row], Row],
    expect: Literal["up", "down"],
    *,
    of: str | int = 0,
    margin: float = 0.0,
) -> None:
    """The change moves each row's value, or the probability of the class `of`, that way: by `margin` or more."""
    __tracebackhide__ = True
    asked = listed(rows)
    changed = [change(row) for row in asked]
    column = model.classes.index(of) if isinstance(of, str) and isinstance(model, Model) else int(of)
    before, after = (predictions(model, listing)[:, column] for listing in (asked, changed))
    moved = (after - before) * (1 if expect == "up" else -1)
    wrong = (moved < margin).nonzero().flatten().tolist()
    if wrong:
        row = wrong[0]
        fail(
            f"{_name(change)} must move the answer {expect}; {len(wrong)} of {len(asked)} rows do not. Row {row}: "
            f"{before[row]:.4f} became {after[row]:.4f}: {asked[row]} → {changed[row]}"
        )


def _check_same(
    model: Model | Answers, rows: list[Row], before: Tensor, after: Tensor, tolerance: float, when: str
) -> None:
    __tracebackhide__ = True
    far = (before - after).abs() > tolerance + tolerance * before.abs()
    wrong = (far | (before.isfinite() != after.isfinite())).any(dim=1).nonzero().flatten().tolist()
    if wrong:
        row = wrong[0]
        fail(
            f"{len(wrong)} of {len(rows)} rows have another answer {when}. Row {row}: {_said(model, before[row])} became "
            f"{_said(model, after[row])}, {(before[row] - after[row]).abs().max():.2g} apart: {rows[row]}"
        )


def _said(model: Model | Answers, answer_C: Tensor) -> str:
    if len(answer_C) == 1:
        return f"{answer_C.item():.6g}"
    best = int(answer_C.argmax())
    return f"{label(model, best)} ({answer_C[best]:.4f})"


def _name(change: Callable[[Row], Row]) -> str:
    return getattr(change, "name", getattr(change, "__name__", "the change"))
