"""From the transforms of the API to steps with their columns, and from JSON back to fitted steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mizzen.data.steps.base import Fitted, Step, Target, numbers_of, texts_of
from mizzen.data.steps.custom import CustomStep, Own
from mizzen.data.steps.encode import Codes, EncodeStep, Hashed, TargetMeans
from mizzen.data.steps.image import ImageStep, Pixels
from mizzen.data.steps.impute import Filled, ImputeStep
from mizzen.data.steps.numbers import BucketizeStep, ClipStep, Cut, Intervals, Moved, Ranked, ScaleStep
from mizzen.data.steps.simple import Crossed, Dates, Logarithm, NormalForm, ReadyStep
from mizzen.data.steps.text import TfIdfStep, TokenizeStep, Tokens, Weights
from mizzen_api import dataset_transforms as api

if TYPE_CHECKING:
    import polars as pl

FITTED: Mapping[str, type[Fitted]] = {
    kind.KIND: kind
    for kind in (
        Codes, Crossed, Cut, Dates, Filled, Hashed, Intervals, Logarithm, Moved, NormalForm, Own, Pixels, Ranked,
        TargetMeans, Tokens, Weights,
    )
}  # fmt: skip


def fitted_of(wire: Mapping[str, Any]) -> Fitted:
    kind = FITTED.get(wire["kind"])
    if kind is None:
        raise ValueError(f"unknown step {wire['kind']!r}; this version of mizzen knows {', '.join(sorted(FITTED))}")
    return kind.from_wire(wire)


def steps_of(transforms: Sequence[api.Transform], raw: pl.DataFrame, target: Target) -> list[Step]:
    """The steps in their order. An empty list of columns means all raw columns of the step's kind but the target."""
    return [_step(transform.step, raw, target) for transform in transforms]


def _step(settings: Any, raw: pl.DataFrame, target: Target) -> Step:  # noqa: PLR0911, PLR0912 (a case for each step)
    given = tuple(getattr(settings, "columns", ()))
    numbers = given or numbers_of(raw, [target.name])
    texts = given or texts_of(raw, [target.name])
    match settings:
        case api.Scale():
            return ScaleStep(settings, numbers)
        case api.Clip():
            return ClipStep(settings, numbers)
        case api.Encode():
            return EncodeStep(settings, texts, target)
        case api.Impute():
            both = [name for name in raw.columns if name in (*numbers, *texts)]
            return ImputeStep(settings, given or tuple(both))
        case api.Bucketize():
            return BucketizeStep(settings, given)
        case api.Log():
            return ReadyStep(Logarithm(given))
        case api.DateParts():
            dates = Dates(given, tuple(settings.parts), settings.cyclic)
            return ReadyStep(dates, dates.names())
        case api.Cross():
            name = settings.name or "_x_".join(given)
            return ReadyStep(Crossed(given, name), (name,))
        case api.NormalizeText():
            chosen = settings.model_dump(exclude={"columns"})
            return ReadyStep(NormalForm(given, **chosen))
        case api.Tokenize():
            return TokenizeStep(settings)
        case api.TfIdf():
            return TfIdfStep(settings)
        case api.Image():
            return ImageStep(settings)
        case api.Custom():
            return CustomStep(settings, given)
    raise TypeError(f"no step is known for {type(settings).__name__}")


def texts_of_spec(transforms: Sequence[api.Transform]) -> set[str]:
    """Columns that must stay text, whatever their values look like."""
    found: set[str] = set()
    for transform in transforms:
        match transform.step:
            case api.Tokenize(column=column) | api.TfIdf(column=column):
                found.add(column)
            case api.NormalizeText(columns=columns):
                found.update(columns)
    return found


def contents_of(transforms: Sequence[api.Transform]) -> set[str]:
    """Columns of free content: texts and images."""
    images = {step.column for transform in transforms if isinstance(step := transform.step, api.Image)}
    return texts_of_spec(transforms) | images
