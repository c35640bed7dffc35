"""Fitting: as few passes over the chunks as the steps' order allows; one, unless a step must see what another made.

Steps on different columns learn side by side. Steps in a row on one column learn side by side, too, where each can say
what the statistics are behind it (see steps.numbers). What cannot learn yet waits for the next pass, and so does all
that touches its columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from mizzen.data.steps.base import Fit, Fitted, Step, need
from mizzen.data.steps.counts import CountFit
from mizzen.data.steps.custom import CustomStep
from mizzen.data.steps.encode import EncodeStep
from mizzen.data.steps.image import ImageStep
from mizzen.data.steps.impute import ImputeStep
from mizzen.data.steps.numbers import BucketizeStep, ClipStep, NumberFit, ScaleStep
from mizzen.data.steps.simple import Crossed, Dates, Logarithm, NormalForm
from mizzen.data.steps.text import TfIdfStep, TokenizeStep

if TYPE_CHECKING:
    import polars as pl

_NUMBER_STEPS = (ScaleStep, ClipStep, BucketizeStep)


class Pass:
    """One pass: what is fitted is applied, what can learn learns, the rest waits. Mergeable over chunks in order."""

    def __init__(self, steps: Sequence[Step], fitted: Mapping[int, Fitted], raw: pl.DataFrame) -> None:
        self.steps, self.fitted = steps, dict(fitted)
        self.applied: list[Fitted] = []
        self.chained: list[int] = []
        self.fits: dict[int, Fit] = {}
        numbers: dict[str, None] = {}
        counts: dict[str, None] = {}
        ranked: set[str] = set()
        frame = raw.clear()
        chained: set[str] = set()  # columns that a chain changes
        blocked: set[str] = set()  # columns that wait for the next pass
        everything = False
        for index, step in enumerate(steps):
            known = self.fitted.get(index) or step.ready()
            reads = set(step.columns)
            if everything or reads & blocked or (known is not None and reads & chained):
                blocked |= reads | set(step.makes())
            elif known is not None:
                self.fitted[index] = known
                _check(step, known, frame)
                self.applied.append(known)
                frame = known.apply(frame)
            elif isinstance(step, CustomStep):
                if chained or self.fits or blocked:
                    blocked |= reads
                else:
                    self.fits[index] = step.begin(frame)
                everything = True  # what it makes is not known before it has learned
            elif wanted := _evidence(step, frame, chained):
                if wanted == "wait":
                    blocked |= reads | set(step.makes())
                    continue
                numbers.update(dict.fromkeys(wanted[0]))
                if getattr(step, "ranks", False):
                    ranked.update(wanted[0])
                counts.update(dict.fromkeys(wanted[1]))
                self.chained.append(index)
                chained |= reads | set(step.makes())
            elif reads & chained:
                blocked |= reads | set(step.makes())
            else:
                _check(step, None, frame)
                self.fits[index] = step.begin(frame)
                blocked |= reads | set(step.makes())
        self.numbers, self.counts = NumberFit(list(numbers), ranked), CountFit(list(counts))

    def update(self, frame: pl.DataFrame) -> None:
        """Take the train rows of the next chunk."""
        for step in self.applied:
            frame = step.apply(frame)
        self.numbers.update(frame)
        self.counts.update(frame)
        for fit in self.fits.values():
            fit.update(frame)

    def merge(self, other: Self) -> None:
        """Take what was gathered from the chunks behind ours."""
        self.numbers.merge(other.numbers)
        self.counts.merge(other.counts)
        for index, fit in self.fits.items():
            fit.merge(other.fits[index])

    def finish(self) -> dict[int, Fitted]:
        """All steps that are fitted now."""
        found = dict(self.fitted) | {index: fit.finish() for index, fit in self.fits.items()}
        stats: dict[str, Any] = dict(self.numbers.stats)
        counts: dict[str, Any] = dict(self.counts.counts)
        for index in self.chained:
            step = self.steps[index]
            wanted = self._wanted(step, stats, counts)
            made = None if wanted is None else _learn(step, *wanted)
            for name in step.columns:
                push = getattr(made, "push", None)
                push_counts = getattr(made, "push_counts", None)
                if name in stats:
                    stats[name] = push(name, stats[name]) if push and stats[name] is not None else None
                if name in counts:
                    counts[name] = push_counts(name, counts[name]) if push_counts and counts[name] is not None else None
            if made is not None:
                found[index] = made
        return found

    def _wanted(self, step: Step, stats: Mapping[str, Any], counts: Mapping[str, Any]) -> tuple[Any, Any] | None:
        """Statistics and counts of the step's columns as it sees them; None where a step before it hides them."""
        mine = {name: stats[name] for name in step.columns if name in stats}
        told = {name: counts[name] for name in step.columns if name in counts}
        needs_counts = isinstance(step, EncodeStep)
        relevant = told if needs_counts else mine if isinstance(step, _NUMBER_STEPS) else {**told, **mine}
        return None if any(value is None for value in relevant.values()) else (mine, told)


def fit(steps: Sequence[Step], raw: pl.DataFrame, run: Any) -> list[Fitted]:
    """Fit all steps. `run(pass)` feeds a pass with all chunks, here or on many machines, and returns it."""
    fitted: dict[int, Fitted] = {}
    while len(fitted) < len(steps):
        one = Pass(steps, fitted, raw)
        learns = bool(one.chained or one.fits)
        before = len(fitted)
        fitted = (run(one) if learns else one).finish()
        assert len(fitted) > before, "each pass fits the first step that waits"
    return [fitted[index] for index in range(len(steps))]


def _evidence(
    step: Step, frame: pl.DataFrame, chained: set[str]
) -> tuple[tuple[str, ...], tuple[str, ...]] | str | None:
    """(columns of statistics, columns of counts) that a step of a chain learns from; "wait"; None for other steps."""
    by_target = isinstance(step, EncodeStep) and step.settings.method == "target"
    if by_target or not isinstance(step, (*_NUMBER_STEPS, EncodeStep, ImputeStep)):
        return None
    made_here = [name for name in step.columns if name not in frame.columns and name in chained]
    if made_here:
        return "wait"
    if isinstance(step, _NUMBER_STEPS):
        if any(name in chained and not frame.schema[name].is_numeric() for name in step.columns):
            return "wait"
        need(frame, step.columns, _name(step), "number")
        return step.columns, ()
    need(frame, step.columns, _name(step))
    if isinstance(step, ImputeStep):
        return step.wants(frame)
    return (), step.columns


def _learn(step: Step, stats: Mapping[str, Any], counts: Mapping[str, Any]) -> Fitted:
    if isinstance(step, ImputeStep):
        return step.learn(stats, counts)
    if isinstance(step, EncodeStep):
        return step.learn(counts)
    assert isinstance(step, _NUMBER_STEPS)
    return step.learn(stats)


def _check(step: Step, fitted: Fitted | None, frame: pl.DataFrame) -> None:
    """Say which column a step lacks before it stumbles over it."""
    if isinstance(step, TokenizeStep | TfIdfStep) or isinstance(fitted, NormalForm):
        need(frame, step.columns, _name(step, fitted), "text")
    elif isinstance(fitted, Logarithm) or isinstance(step, _NUMBER_STEPS):
        need(frame, step.columns, _name(step, fitted), "number")
    elif isinstance(step, ImageStep | EncodeStep | CustomStep) or isinstance(fitted, Dates | Crossed):
        need(frame, step.columns, _name(step, fitted))


def _name(step: Step, fitted: Fitted | None = None) -> str:
    """The transform as the manifest calls it."""
    name = fitted.KIND if fitted is not None and fitted.KIND else type(step).__name__.removesuffix("Step")
    return name[:1].lower() + name[1:]
