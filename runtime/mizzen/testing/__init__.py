"""Checks of models for a user's own pytest: plain functions that raise AssertionError, whose words say what is wrong.

    from mizzen.models import TextClassifier
    from mizzen.testing import check_invariances

    def test_answers_do_not_depend_on_the_batch() -> None:
        check_invariances(TextClassifier.load("v1.0"), [{"text": "Great"}, {"text": "Not what I hoped for"}])

A check takes what mizzen.models loads, what DistributedTrainer gives, or any torch.nn.Module with tensors to call it
with. It leaves the model, its mode and the random numbers as they were.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mizzen.testing.invariances import (
        check_batch_invariance,
        check_column_order,
        check_determinism,
        check_direction,
        check_invariances,
        check_invariant,
        check_padding_invariance,
        check_text_invariant,
    )
    from mizzen.testing.load import Level, LoadProfile, LoadResult
    from mizzen.testing.modules import check_backward, check_forward, overfits_one_batch
    from mizzen.testing.pipelines import check_pipeline
    from mizzen.testing.texts import extra_spaces, lower_case, title_case, typo, upper_case

_MODULES = {
    "invariances": (
        "check_batch_invariance",
        "check_column_order",
        "check_determinism",
        "check_direction",
        "check_invariances",
        "check_invariant",
        "check_padding_invariance",
        "check_text_invariant",
    ),
    "load": ("Level", "LoadProfile", "LoadResult"),
    "modules": ("check_backward", "check_forward", "overfits_one_batch"),
    "pipelines": ("check_pipeline",),
    "texts": ("extra_spaces", "lower_case", "title_case", "typo", "upper_case"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Level",
    "LoadProfile",
    "LoadResult",
    "check_backward",
    "check_batch_invariance",
    "check_column_order",
    "check_determinism",
    "check_direction",
    "check_forward",
    "check_invariances",
    "check_invariant",
    "check_padding_invariance",
    "check_pipeline",
    "check_text_invariant",
    "extra_spaces",
    "lower_case",
    "overfits_one_batch",
    "title_case",
    "typo",
    "upper_case",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: pytest loads the plugin of this package at each start."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"mizzen.testing.{_HOMES[name]}"), name)
