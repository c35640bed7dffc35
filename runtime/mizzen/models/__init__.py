"""The models, by the names that manifests use; each is a small dataclass of settings and a short module.

from mizzen.models import TextClassifier

model = TextClassifier.load("v1.0")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mizzen.models.loading import ImageClassifier, Model, Output, TableModel, TextClassifier, load

__all__ = ["ImageClassifier", "Model", "Output", "TableModel", "TextClassifier", "load"]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: names of models are known without torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("mizzen.models.loading"), name)
