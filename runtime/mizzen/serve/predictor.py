"""A model version as the server sees it: rows in, class probabilities (or a value) out."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import polars as pl


class Predictor(Protocol):
    """What model and pipeline are together. `predict` runs in one thread at a time."""

    @property
    def columns(self) -> Sequence[str]:
        """Columns that a row needs."""

    @property
    def texts(self) -> Sequence[str]:
        """Those of the columns whose values are strings: texts, and images as base64."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, in the order of the probabilities; none where the model predicts a number."""

    def predict(self, rows: list[dict[str, Any]]) -> np.ndarray:
        """Probabilities (N, C), float32, of N rows; of a number to predict its values (N, 1)."""

    @property
    def profiled(self) -> bool:
        """Whether a profile of the rows is worth its memory: images are not compared."""

    def frame(self, rows: list[dict[str, Any]]) -> pl.DataFrame:
        """Rows as the pipeline reads them, each column with its type; for the profile of what is asked."""


class TrainedPredictor:
    """A trained model behind its pipeline."""

    def __init__(self, folder: Path) -> None:
        from mizzen.models import artifact

        self._model = artifact.load(folder)
        self.columns: Sequence[str] = self._model.pipeline.columns
        self.classes: Sequence[str] = self._model.classes
        inputs = self._model.pipeline.inputs
        self.texts: Sequence[str] = [name for name, kind in inputs.items() if kind in {"String", "Binary"}]
        self._encoded = [name for name, kind in inputs.items() if kind == "Binary"]
        self.profiled = not self._encoded

    def predict(self, rows: list[dict[str, Any]]) -> np.ndarray:
        return self._model.predict_rows(self._decoded(rows))

    def frame(self, rows: list[dict[str, Any]]) -> pl.DataFrame:
        return self._model.pipeline.frame_of(self._decoded(rows))

    def _decoded(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """JSON has no bytes: images come as base64. RowError where one is not."""
        if not self._encoded:
            return rows
        return [
            row | {name: _bytes(number, name, row[name]) for name in self._encoded} for number, row in enumerate(rows)
        ]


def _bytes(row: int, column: str, text: str) -> bytes:
    from mizzen.data.pipeline import RowError

    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise RowError(f"row {row}: column {column!r} must be base64 of an image: {error}") from error


def load_predictor(model_uri: str) -> Predictor:
    """The model version's weights and the pipeline that it was trained behind, from the registry or a folder."""
    import torch

    torch.set_num_threads(1)  # pods are scaled, not threads; and one request must not slow down another
    from mizzen.registry.versions import download

    # In a pod this is its own /tmp: a restarted container finds the version there.
    return TrainedPredictor(download(model_uri, cache=Path(tempfile.gettempdir()) / "mizzen-models"))
