"""Checks of models, pipelines and servers for a user's own tests: plain functions that raise AssertionError.

from mizzen.models import TextClassifier
from mizzen.testing import check_forward, check_invariant, upper_case

def test_model():
    model = TextClassifier.load("v1.0")
    rows = [{"text": "This product is excellent"}, {"text": "it broke"}]
    check_forward(model, rows)
    check_invariant(model, rows, upper_case("text"))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mizzen.testing.changes import extra_spaces, lower_case, noise, shuffled_columns, typos, upper_case
    from mizzen.testing.compatibility import check_compatible
    from mizzen.testing.invariances import (
        check_batch_invariant,
        check_column_order,
        check_deterministic,
        check_direction,
        check_invariant,
        check_padding_invariant,
    )
    from mizzen.testing.learning import check_backward, check_forward, check_overfits_one_batch
    from mizzen.testing.load import LoadProfile
    from mizzen.testing.load_report import Level, LoadReport

_HOMES = {
    "changes": ("extra_spaces", "lower_case", "noise", "shuffled_columns", "typos", "upper_case"),
    "compatibility": ("check_compatible",),
    "invariances": (
        "check_batch_invariant",
        "check_column_order",
        "check_deterministic",
        "check_direction",
        "check_invariant",
        "check_padding_invariant",
    ),
    "learning": ("check_backward", "check_forward", "check_overfits_one_batch"),
    "load": ("LoadProfile",),
    "load_report": ("Level", "LoadReport"),
}

__all__ = [
    "Level",
    "LoadProfile",
    "LoadReport",
    "check_backward",
    "check_batch_invariant",
    "check_column_order",
    "check_compatible",
    "check_deterministic",
    "check_direction",
    "check_forward",
    "check_invariant",
    "check_overfits_one_batch",
    "check_padding_invariant",
    "extra_spaces",
    "lower_case",
    "noise",
    "shuffled_columns",
    "typos",
    "upper_case",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: a load profile needs no torch."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"mizzen.testing.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
