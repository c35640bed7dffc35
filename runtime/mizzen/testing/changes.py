"""Changes of a row that should not change the answer (or should, in one direction), for check_invariant.

Each is made for the columns that it is to change, gives the same rows every time, and has a name for messages.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mizzen.models.loading import Row


@dataclass(frozen=True)
class Change:
    """row → row. `name` is what messages call it."""

    name: str
    function: Callable[[Row], Row]

    def __call__(self, row: Row) -> Row:
        return self.function(row)


def _on(name: str, columns: tuple[str, ...], function: Callable[[Any], Any]) -> Change:
    if not columns:
        raise ValueError(f"{name} needs the names of the columns that it is to change")

    def changed(row: Row) -> Row:
        return {**row, **{column: function(row[column]) for column in columns if row[column] is not None}}

    return Change(f"{name}({', '.join(columns)})", changed)


def upper_case(*columns: str) -> Change:
    """GREAT for great."""
    return _on("upper_case", columns, str.upper)


def lower_case(*columns: str) -> Change:
    """great for Great."""
    return _on("lower_case", columns, str.lower)


def extra_spaces(*columns: str) -> Change:
    """Two blanks for one, and some around."""
    return _on("extra_spaces", columns, lambda text: f"  {text.replace(' ', '  ')} ")


def typos(*columns: str, rate: float = 0.05, seed: int = 0) -> Change:
    """Neighbouring letters swapped, each pair with the chance `rate`, at least one in a text that has a pair."""

    def mistyped(text: str) -> str:
        letters = list(text)
        pairs = [at for at in range(len(text) - 1) if text[at].isalpha() and text[at + 1].isalpha()]
        dice = random.Random(f"{seed} {text}")  # noqa: S311 (no secret)
        chosen = [at for at in pairs if dice.random() < rate] or dice.sample(pairs, min(1, len(pairs)))
        for at in chosen:
            letters[at], letters[at + 1] = letters[at + 1], letters[at]
        return "".join(letters)

    return _on("typos", columns, mistyped)


def noise(*columns: str, relative: float = 0.01, seed: int = 0) -> Change:
    """Numbers times 1 ± `relative` at random."""

    def shaken(value: float) -> float:
        return value * (1 + relative * random.Random(f"{seed} {value}").uniform(-1, 1))  # noqa: S311 (no secret)

    return _on("noise", columns, shaken)


def shuffled_columns(seed: int = 0) -> Change:
    """The same values, their keys in another order."""

    def shuffled(row: Row) -> Row:
        names = sorted(row, key=lambda name: zlib.crc32(f"{seed} {name}".encode()))
        return {name: row[name] for name in (names if names != list(row) else reversed(names))}

    return Change("shuffled_columns", shuffled)
