"""A predictor that needs no model: the class is the text's length, modulo three."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import polars as pl


class LengthPredictor:
    columns = texts = ("text",)
    classes = ("negative", "neutral", "positive")
    profiled = True

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.go = threading.Event()  # cleared: the model is busy
        self.go.set()
        self.entered = threading.Event()

    def predict(self, rows: list[dict[str, Any]]) -> np.ndarray:
        self.entered.set()
        assert self.go.wait(10)
        self.batches.append(len(rows))
        if any(row["text"] == "poison" for row in rows):
            raise RuntimeError("secret details of the model")
        probabilities_NC = np.full((len(rows), 3), 0.1, np.float32)
        for at, row in enumerate(rows):
            probabilities_NC[at, len(row["text"]) % 3] = 0.8 if row["text"] != "diverged" else np.nan
        return probabilities_NC

    def frame(self, rows: list[dict[str, Any]]) -> pl.DataFrame:
        return pl.DataFrame(rows, schema={"text": pl.String})
