"""A step of the user's own: a class by its import path, its state JSON.

class Ratio:
    def __init__(self, above: str, below: str) -> None: ...
    def fit(self, frame): return {"highest": ...}            # of one chunk of train rows; optional
    def merge(self, a, b): return {"highest": max(...)}      # of two chunks' states; where there is fit
    def transform(self, frame, state): return frame.with_columns(...)
"""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from mizzen.data.steps.base import Fitted, Step
from mizzen.errors import UserError
from mizzen_api.conditions import Reason
from mizzen_api.dataset_transforms import Custom

if TYPE_CHECKING:
    import polars as pl


def load(import_path: str, settings: dict[str, str]) -> Any:
    """The instance; UserError names what does not work."""
    module, _, name = import_path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)(**settings)
    except Exception as error:
        raise UserError(
            Reason.INVALID_PARAMETERS, f"the custom step {import_path} cannot be made: {type(error).__name__}: {error}"
        ) from error


@dataclass(frozen=True)
class Own(Fitted):
    """The class with what it learned."""

    KIND: ClassVar[str] = "custom"

    import_path: str = ""
    settings: tuple[tuple[str, str], ...] = ()
    state_json: str = "null"

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        made = load(self.import_path, dict(self.settings)).transform(frame, json.loads(self.state_json))
        if not isinstance(made, pl.DataFrame) or made.height != frame.height:
            got = f"a frame of {made.height} rows" if isinstance(made, pl.DataFrame) else type(made).__name__
            raise UserError(
                Reason.INVALID_PARAMETERS,
                f"the custom step {self.import_path} made {got} of {frame.height} rows: it must keep each row",
            )
        return made


class CustomFit:
    def __init__(self, settings: Custom, columns: tuple[str, ...]) -> None:
        self.settings, self.columns = settings, columns
        self.step = load(settings.import_path, settings.settings)
        self.state: Any = None
        self.begun = False

    def update(self, frame: pl.DataFrame) -> None:
        if not hasattr(self.step, "fit"):
            return
        state = self.step.fit(frame.select(self.columns) if self.columns else frame)
        self.state = self.step.merge(self.state, state) if self.begun else state
        self.begun = True

    def merge(self, other: Self) -> None:
        if other.begun:
            self.state = self.step.merge(self.state, other.state) if self.begun else other.state
            self.begun = True

    def finish(self) -> Own:
        try:
            text = json.dumps(self.state)
        except TypeError as error:
            raise UserError(
                Reason.INVALID_PARAMETERS,
                f"the state of the custom step {self.settings.import_path} is no JSON: {error}",
            ) from error
        pairs = tuple(sorted(self.settings.settings.items()))
        return Own(self.columns, self.settings.import_path, pairs, text)


class CustomStep(Step):
    """`custom`. What it makes is not known before: it waits for all steps before it, and all after it wait."""

    def __init__(self, settings: Custom, columns: tuple[str, ...]) -> None:
        self.settings, self.columns = settings, columns

    def begin(self, frame: pl.DataFrame) -> CustomFit:  # noqa: ARG002
        return CustomFit(self.settings, self.columns)
