"""Trained models as users hold them: found by name, folder or URI, called with raw rows, gradients and all.

    model = TextClassifier.load("v1.0")
    model({"text": "This product is excellent"})["logits"]      # (1, classes)

What serving does with rows is done here too: the pipeline that the model was trained behind comes with it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypedDict

from torch import Tensor, nn

from mizzen.errors import UserError
from mizzen.models import artifact
from mizzen.models.artifact import TrainedModel
from mizzen.models.shapes import IMAGE, TABLE, TEXT, DataShape, Modality
from mizzen_api.conditions import Reason

if TYPE_CHECKING:
    from mizzen.data.pipeline import Pipeline

ENV_MODELS = "MIZZEN_MODELS"  # the folder that `load("v1.0")` looks in; ./models unless set
DEFAULT_MODELS = "models"
LENGTH = "length"  # of a text, which the pipeline counts itself

Row = Mapping[str, Any]
Rows = Row | Sequence[Row]


class Output(TypedDict, total=False):
    """What a model says of N rows: of classes the first three, of a number `value`."""

    logits: Tensor  # (N, C)
    probabilities: Tensor  # (N, C)
    label: list[str]  # N names of classes
    value: Tensor  # (N,), in the target's own unit


class Model(nn.Module):
    """A trained model with its pipeline, in evaluation mode. Calls keep the graph: gradients can be asked for."""

    modality: ClassVar[Modality | None] = None
    classifies: ClassVar[bool | None] = None

    def __init__(self, trained: TrainedModel) -> None:
        super().__init__()
        self.trained = trained
        self.module = trained.module
        self.eval()

    @classmethod
    def load(cls, source: str | Path, *, tracking_uri: str = "", module: nn.Module | None = None) -> Self:
        """The model that `source` names.

        It is a folder that `mizzen export` or a training wrote; a name below $MIZZEN_MODELS or ./models, such as
        "v1.0"; or models:/NAME/VERSION or models:/NAME@ALIAS of the registry at `tracking_uri` or $MLFLOW_TRACKING_URI.

        `module` takes the weights of a model that was trained as an object, which nothing here could build.

        UserError says where was looked, which file is not what was exported, or what kind of model it is.
        """
        folder = find(source, tracking_uri)
        try:
            trained = artifact.load(folder, module)
        except UserError:
            raise
        except Exception as error:  # of JSON, safetensors and torch: all say that files do not fit each other
            raise _bad(f"{folder} holds no model that can be read: {type(error).__name__}: {error}") from error
        made = _kind_of(trained.data) if cls is Model else cls
        if not made._takes(trained.data):
            raise _bad(f"{source} is a model for {trained.data.task}: use {_kind_of(trained.data).__name__}.load")
        return made(trained)  # type: ignore[return-value]

    @property
    def name(self) -> str:
        return self.trained.name

    @property
    def pipeline(self) -> Pipeline:
        return self.trained.pipeline

    @property
    def data(self) -> DataShape:
        return self.trained.data

    @property
    def classes(self) -> tuple[str, ...]:
        """None where the model predicts a number."""
        return self.trained.classes

    def forward(self, rows: Rows) -> Output:
        """Answers for one row or for several. RowError names a row that the pipeline cannot take.

        A `length` is left out of rows whose pipeline does not read one: it counts for itself. Any other key that the
        pipeline does not know is an error, as it is when the model is served; the target is allowed and ignored.
        """
        answer = self.module(*self.inputs(rows)).float()
        if not self.classes:
            recipe = self.trained.recipe
            return {"value": answer.reshape(-1) * recipe.target_deviation + recipe.target_mean}
        best = answer.argmax(dim=-1).tolist()
        return {
            "logits": answer,
            "probabilities": answer.softmax(dim=-1),
            "label": [self.classes[index] for index in best],
        }

    def inputs(self, rows: Rows) -> tuple[Tensor, ...]:
        """What the module is called with for these rows, on the module's device."""
        listed = [rows] if isinstance(rows, Mapping) else list(rows)
        if not listed:
            raise ValueError("a model must be called with at least one row")
        device = next((parameter.device for parameter in self.module.parameters()), None)
        return tuple(part.to(device) for part in self.trained.inputs([self._known(row) for row in listed]))

    def _known(self, row: Row) -> Row:
        reads = self.pipeline.inputs
        if LENGTH in row and LENGTH not in reads:
            row = {key: value for key, value in row.items() if key != LENGTH}
        files = [key for key, value in row.items() if isinstance(value, Path) and reads.get(key) == "Binary"]
        return {**row, **{key: row[key].read_bytes() for key in files}} if files else row

    @classmethod
    def _takes(cls, data: DataShape) -> bool:
        return cls.modality in {None, data.modality} and cls.classifies in {None, bool(data.classes)}


class TextClassifier(Model):
    """Texts to classes."""

    modality, classifies = TEXT, True


class ImageClassifier(Model):
    """Images to classes; a column of images takes bytes of a file, or its pathlib.Path."""

    modality, classifies = IMAGE, True


class TableModel(Model):
    """Rows of a table to classes, or to a number."""

    modality = TABLE


def load(source: str | Path, *, tracking_uri: str = "", module: nn.Module | None = None) -> Model:
    """As Model.load: a TextClassifier, ImageClassifier, TableModel, or a plain Model for what is none of them."""
    return Model.load(source, tracking_uri=tracking_uri, module=module)


def find(source: str | Path, tracking_uri: str = "") -> Path:
    """The folder of weights, configuration and pipeline. UserError where an exported one is not what was exported."""
    from mizzen.registry import layout

    text = str(source)
    if text.startswith("models:/"):
        return _fetched(text, tracking_uri)
    shelf = Path(os.environ.get(ENV_MODELS) or DEFAULT_MODELS)
    places = dict.fromkeys([Path(text.removeprefix("file://")), shelf / text])
    for place in places:
        if layout.holds_model(place):
            return layout.model_in(place)
    there = sorted(path.name for path in shelf.iterdir() if layout.holds_model(path)) if shelf.is_dir() else []
    raise _bad(
        f"there is no model {text!r}: looked for it in {' and '.join(map(str, places))}; "
        + (f"{shelf} has {', '.join(there)}" if there else f"set ${ENV_MODELS} to the folder that models lie in")
    )


def _fetched(uri: str, tracking_uri: str) -> Path:
    """Kept by run: a registry, or a name in it, that is made anew counts its versions from 1 again."""
    from mizzen.registry.versions import download, run_of

    run = run_of(uri, tracking_uri)
    return download(uri, Path(tempfile.gettempdir()) / "mizzen-models" / (run or "no-run"), tracking_uri or None)


def _kind_of(data: DataShape) -> type[Model]:
    return next((kind for kind in (TextClassifier, ImageClassifier, TableModel) if kind._takes(data)), Model)


def _bad(message: str) -> UserError:
    return UserError(Reason.INVALID_PARAMETERS, message)
