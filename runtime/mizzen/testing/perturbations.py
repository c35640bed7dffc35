"""Changes of rows that should move an answer little: other case, typos, a column that must not matter.

The invariance tests of "Beyond Accuracy: Behavioral Testing of NLP Models with CheckList" (Ribeiro et al., 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mizzen.models.loading import Model, Rows
from mizzen.models.shapes import TEXT
from mizzen.testing.subjects import Checked, answer, held, listed
from mizzen.testing.texts import Change

TOLERANCE = 0.1  # of probabilities, or of the target's deviations
Row = Mapping[str, Any]


def check_text_invariant(
    model: Checked,
    rows: Rows,
    change: Change,
    *,
    columns: Sequence[str] = (),
    tolerance: float = TOLERANCE,
    allowed: float = 0.0,
) -> None:
    """`change`, which takes a text and gives another, is applied to the columns of texts; see `check_invariant`.

    A model of texts knows its columns; for others name them.
    """
    __tracebackhide__ = True
    known = held(model)
    chosen = _columns(known, columns)

    def changed(row: Row) -> Row:
        return {**row, **{name: change(row[name]) for name in chosen if isinstance(row.get(name), str)}}

    changed.__name__ = _name(change)
    check_invariant(known, rows, changed, tolerance=tolerance, allowed=allowed)


def check_invariant(
    model: Checked,
    rows: Rows,
    change: Callable[[Row], Row],
    *,
    tolerance: float = TOLERANCE,
    allowed: float = 0.0,
) -> None:
    """No answer moves by more than `tolerance`: in the probability of a class, or in the target's deviations.

    The fraction `allowed` of the rows may. Rows that `change` leaves as they are do not count; ValueError where that is
    all of them. What is no finite number has moved.
    """
    __tracebackhide__ = True
    known, name = held(model), _name(change)
    given = listed(rows)
    pairs = [(row, before, after) for row, before in enumerate(given) if (after := change(before)) != before]
    if not pairs:
        raise ValueError(f"{name} changes none of the {len(given)} rows: there is nothing to compare")
    before_BC = _scale(known, [was for _, was, _ in pairs])
    after_BC = _scale(known, [became for _, _, became in pairs])
    moves_B = (before_BC - after_BC).abs().amax(dim=1).nan_to_num(nan=torch.inf)
    moved = int((moves_B > tolerance).sum())
    if moved <= allowed * len(pairs):
        return
    worst = int(moves_B.argmax())
    row, was, became = pairs[worst]
    told = ", ".join(f"{key} {was[key]!r} → {became.get(key)!r}" for key in was if was[key] != became.get(key))
    raise AssertionError(
        f"{name} moves {moved} of {len(pairs)} answers of {known.name} by more than {tolerance:g}; "
        f"most of all row {row}, {told}: {_told(known, before_BC[worst], after_BC[worst])}"
    )


def _columns(model: Model, named: Sequence[str]) -> list[str]:
    there = [name for name, kind in model.pipeline.inputs.items() if kind == "String"]
    for name in named:
        if name not in there:
            has = ", ".join(there) or "none"
            raise ValueError(f"{name!r} is no column of texts that {model.name} reads; it has {has}")
    if not named and model.data.modality != TEXT:
        raise ValueError(f"{model.name} is for {model.data.task}: name the columns whose texts are to be changed")
    return list(named) or there


def _scale(model: Model, rows: list[Row]) -> Tensor:
    """(B, C) probabilities, or (B, 1) values in deviations of the target, which is what the module answers with."""
    answer_BC = answer(model.module, model.inputs(rows)).double()
    return answer_BC.softmax(dim=-1) if model.classes else answer_BC.reshape(-1, 1)


def _told(model: Model, before_C: Tensor, after_C: Tensor) -> str:
    if model.classes:
        best = int(before_C.nan_to_num(nan=-1.0).argmax())
        return f"{model.classes[best]} {before_C[best]:.2f} → {after_C[best]:.2f}"
    recipe = model.trained.recipe
    before, after = (part.item() * recipe.target_deviation + recipe.target_mean for part in (before_C, after_C))
    return f"{before:.6g} → {after:.6g}"


def _name(change: Callable[..., Any]) -> str:
    return getattr(change, "__name__", type(change).__name__)
