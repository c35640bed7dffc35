"""What must not change an answer: the batch, padding, the order of columns, and changes of a row that mean nothing.

After Ribeiro et al., "Beyond Accuracy: Behavioral Testing of NLP Models with CheckList" (ACL 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from mizzen.data.pipeline import PAD_ID
from mizzen.models.loading import Model, Output, Rows
from mizzen.models.shapes import TEXT
from mizzen.testing.subjects import Checked, Inputs, answer, are_tensors, evaluating, held, listed, subject_of
from mizzen.testing.texts import Change

Row = Mapping[str, Any]
_ROUNDING = 1e-4  # of logits: other shapes are summed in another order


def check_invariances(model: Checked, rows: Rows) -> None:
    """All that holds for any model: determinism, batch, the order of columns and, of texts, padding."""
    __tracebackhide__ = True
    check_determinism(model, rows)
    check_batch_invariance(model, rows)
    check_column_order(model, rows)
    if held(model).data.modality == TEXT:
        check_padding_invariance(model, rows)


def check_determinism(model: Checked, inputs: Inputs = None, *, calls: int = 3) -> None:
    """The same inputs give the same answer, to the bit, whatever the random numbers."""
    __tracebackhide__ = True
    subject = subject_of(model, inputs)
    first = subject.answer()
    for _ in range(calls - 1):
        again = subject.answer()
        assert torch.equal(first, again), (
            f"{subject.name} answers otherwise when called again{_worst(first, again)}: "
            "a part of it draws random numbers in evaluation mode"
        )


def check_batch_invariance(model: Checked, inputs: Inputs, *, tolerance: float = _ROUNDING) -> None:
    """A row alone is answered as in a batch, and so is a batch in another order. `tolerance` is of logits or values."""
    __tracebackhide__ = True
    subject = subject_of(model, inputs)
    if subject.rows < 2:
        raise ValueError("a batch needs at least two rows to be compared with one")
    together = subject.answer()
    if are_tensors(inputs) or inputs is None:
        singles = [tuple(part[row : row + 1] for part in subject.inputs) for row in range(subject.rows)]
    else:
        singles = [held(model).inputs(row) for row in listed(inputs)]
    alone = torch.cat([answer(subject.module, single) for single in singles])
    _alike(together, alone, tolerance, f"{subject.name} answers a row in a batch otherwise than alone")
    backwards = answer(subject.module, tuple(part.flip(0) for part in subject.inputs)).flip(0)
    _alike(together, backwards, tolerance, f"{subject.name}'s answers depend on the order of rows in a batch")


def check_padding_invariance(model: Checked, inputs: Inputs, *, tolerance: float = _ROUNDING) -> None:
    """A text is answered the same whether it is cut to its length or padded to the longest that the model takes.

    A module without a pipeline is called with ids (B, T) and lengths (B,), and padded to T. ValueError for other data,
    and where no text is shorter than that.
    """
    __tracebackhide__ = True
    subject = subject_of(model, inputs)
    if subject.data is not None and subject.data.modality != TEXT:
        raise ValueError(f"{subject.name} is for {subject.data.task}: only texts are padded")
    ids, lengths = subject.inputs
    width = max(ids.shape[1], subject.data.max_length if subject.data else 0)
    if int(lengths.min()) >= width:
        raise ValueError(f"all texts have {width} tokens, the most that {subject.name} reads: give a shorter one")
    padded = answer(subject.module, (pad(ids, (0, width - ids.shape[1]), value=PAD_ID), lengths))
    cut = torch.cat(
        [
            answer(subject.module, (ids[row : row + 1, : max(1, int(length))], lengths[row : row + 1]))
            for row, length in enumerate(lengths)
        ]
    )
    _alike(cut, padded, tolerance, f"{subject.name} answers a text padded to {width} tokens otherwise than without")


def check_column_order(model: Checked, rows: Rows) -> None:
    """The order of a row's columns changes nothing, to the bit."""
    __tracebackhide__ = True
    model, given = held(model), listed(rows)
    turned = [{key: row[key] for key in reversed(list(row))} for row in given]
    _alike(_standard(model, given), _standard(model, turned), 0.0, f"{model.name} depends on the order of columns")


def check_invariant(
    model: Checked, rows: Rows, change: Callable[[Row], Row], *, tolerance: float = 0.1, allowed: float = 0.0
) -> None:
    """`change` of a row moves no answer by more than `tolerance`.

    That is a probability or, of a number to predict, a part of the training targets' standard deviation. `allowed` is
    the fraction of changed rows that may move further. ValueError where `change` changes none of the rows.
    """
    __tracebackhide__ = True
    model, given = held(model), listed(rows)
    changed, touched = _changed(given, change)
    before, after = _standard(model, given), _standard(model, changed)
    moved = (before - after).abs().amax(dim=1)
    far = [number for number in touched if not moved[number] <= tolerance]
    if len(far) > allowed * len(touched):
        worst = max(far, key=lambda number: float(moved[number].nan_to_num(torch.inf)))
        limit = f"more than {tolerance:g}" + (f", and {allowed:.0%} may" if allowed else "")
        raise AssertionError(
            f"{_name(change)} moves {len(far)} of {len(touched)} answers of {model.name} by {limit}; most of all "
            f"row {worst}, {_difference(given[worst], changed[worst])}: {_told(model, before[worst], after[worst])}"
        )


def check_text_invariant(
    model: Checked,
    rows: Rows,
    change: Change,
    *,
    columns: Sequence[str] = (),
    tolerance: float = 0.1,
    allowed: float = 0.0,
) -> None:
    """As check_invariant, for a change of texts such as `upper_case`, `extra_spaces` or `typo()`.

    `columns` are those that are changed: of a text model all columns of strings, unless they are named.
    """
    __tracebackhide__ = True
    model = held(model)
    strings = [name for name, kind in model.pipeline.inputs.items() if kind == "String"]
    names = list(columns) or (strings if model.data.modality == TEXT else [])
    if not names:
        raise ValueError(f"{model.name} is for {model.data.task}: name the columns whose texts are to be changed")
    if unknown := [name for name in names if name not in strings]:
        raise ValueError(f"{unknown[0]!r} is no column of texts that {model.name} reads; it has {', '.join(strings)}")

    def changed(row: Row) -> Row:
        return {**row, **{name: change(row[name]) for name in names}}

    changed.__name__ = _name(change)
    check_invariant(model, rows, changed, tolerance=tolerance, allowed=allowed)


def check_direction(
    model: Checked,
    rows: Rows,
    change: Callable[[Row], Row],
    way: Literal["up", "down"],
    *,
    label: str = "",
    least: float = 0.0,
) -> None:
    """`change` of a row moves its value, or the probability of the class `label`, up or down: by more than `least`.

    `least` is a probability, or a part of the target's standard deviation. Rows that stay as they are do not count.
    """
    __tracebackhide__ = True
    model, given = held(model), listed(rows)
    if model.classes and label not in model.classes:
        raise ValueError(f"label must be one of {', '.join(model.classes)}, not {label!r}")
    column = model.classes.index(label) if model.classes else 0
    changed, touched = _changed(given, change)
    before, after = _standard(model, given), _standard(model, changed)
    rises = (after - before)[:, column] * (1 if way == "up" else -1)
    wrong = [number for number in touched if not rises[number] > least]
    if wrong:
        worst = min(wrong, key=lambda number: float(rises[number].nan_to_num(-torch.inf)))
        raise AssertionError(
            f"{_name(change)} must move {label or 'the value'} {way}, and does not for {len(wrong)} of {len(touched)} "
            f"rows; least of all row {worst}, {_difference(given[worst], changed[worst])}: "
            f"{_told(model, before[worst], after[worst], column)}"
        )


def _changed(rows: Sequence[Row], change: Callable[[Row], Row]) -> tuple[list[Row], list[int]]:
    """All rows as changed, and the numbers of those that are not what they were."""
    changed = [change(row) for row in rows]
    touched = [number for number, (row, other) in enumerate(zip(rows, changed, strict=True)) if row != other]
    if not touched:
        raise ValueError(f"{_name(change)} changes none of the {len(rows)} rows: there is nothing to compare")
    return changed, touched


def _standard(model: Model, rows: Sequence[Row]) -> Tensor:
    """Probabilities (N, C), or values (N, 1) in deviations of the target."""
    with evaluating(model), torch.no_grad():
        made: Output = model(rows)
    if "probabilities" in made:
        return made["probabilities"]
    recipe = model.trained.recipe
    return ((made["value"] - recipe.target_mean) / (recipe.target_deviation or 1.0)).reshape(-1, 1)


def _alike(one: Tensor, other: Tensor, tolerance: float, what: str) -> None:
    __tracebackhide__ = True
    same = torch.allclose(one, other, rtol=tolerance, atol=tolerance)
    assert same, f"{what}{_worst(one, other)} (tolerance {tolerance:g})"


def _worst(one: Tensor, other: Tensor) -> str:
    """Where two answers are furthest apart, in words."""
    apart = (one.double() - other.double()).abs().nan_to_num(torch.inf)
    row = int(apart.reshape(len(apart), -1).amax(dim=1).argmax())
    return f": row {row} by {apart[row].max().item():.3g}, {_numbers(one[row])} and {_numbers(other[row])}"


def _numbers(values: Tensor) -> str:
    shown = [f"{value:.4g}" for value in values.reshape(-1)[:4].tolist()]
    return f"[{', '.join([*shown, *(['...'] if values.numel() > 4 else [])])}]"


def _difference(row: Row, changed: Row) -> str:
    parts = [
        f"{key} {_short(row.get(key))} → {_short(changed.get(key))}"
        for key in dict.fromkeys([*row, *changed])
        if row.get(key) != changed.get(key)
    ]
    return ", ".join(parts[:3])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _told(model: Model, before: Tensor, after: Tensor, column: int | None = None) -> str:
    """The class whose probability moved most, or the one asked for; or the value in its own unit."""
    if model.classes:
        at = int((before - after).abs().argmax()) if column is None else column
        return f"{model.classes[at]} {before[at].item():.3f} → {after[at].item():.3f}"
    recipe = model.trained.recipe
    one, other = (value.item() * recipe.target_deviation + recipe.target_mean for value in (before, after))
    return f"{one:.4g} → {other:.4g}"


def _name(change: Callable[..., Any]) -> str:
    return getattr(change, "__name__", type(change).__name__)
