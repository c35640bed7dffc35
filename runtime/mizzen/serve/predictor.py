"""A model version as the server sees it: rows in, class probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class Predictor(Protocol):
    """What model and pipeline are together. `predict` runs in one thread at a time."""

    @property
    def columns(self) -> Sequence[str]:
        """Columns that a row needs."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, in the order of the probabilities."""

    def predict(self, rows: list[dict[str, Any]]) -> np.ndarray:
        """Probabilities (N, C), float32, of N rows."""


def load_predictor(model_uri: str) -> Predictor:
    """The model version's weights and the pipeline that it was trained behind, from the registry or a folder."""
    import torch

    from mizzen import models, registry
    from mizzen.data import Pipeline

    torch.set_num_threads(1)  # pods are scaled, not threads; and one request must not slow down another
    folder = registry.download(model_uri)
    raise NotImplementedError(folder, models, Pipeline)
