"""What a dataset is to a model: kind of inputs, their sizes, and what is asked for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from mizzen.errors import UserError
from mizzen_api.conditions import Reason

if TYPE_CHECKING:
    import torch

    from mizzen.data.pipeline import Pipeline

Modality = Literal["text", "table", "image"]
TEXT: Final = "text"
TABLE: Final = "table"
IMAGE: Final = "image"
_SAMPLE_ROWS = 2


@dataclass(frozen=True)
class DataShape:
    """Made from a pipeline; entrypoints get it as `data`.

    A text model is called with ids (B, T) int64 and lengths (B,) int32; a table's with x (B, num_features) float32; an
    image's with x (B, channels, height, width) float32. All answer with (B, outputs): logits of classes, or a value.
    """

    modality: Modality
    classes: tuple[str, ...] = ()  # none: the target is a number
    vocab_size: int = 0
    max_length: int = 0
    num_features: int = 0
    image: tuple[int, int, int] = (0, 0, 0)  # channels, height, width

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def outputs(self) -> int:
        """Columns of a model's answer."""
        return len(self.classes) or 1

    @property
    def task(self) -> str:
        return f"{self.modality}-{'classification' if self.classes else 'regression'}"

    def settings(self) -> dict[str, int]:
        """By the names that the configurations of the catalog's models have."""
        return {
            "vocab_size": self.vocab_size,
            "num_classes": self.outputs,
            "max_length": self.max_length,
            "num_features": self.num_features,
            "channels": self.image[0],
            "image_size": max(self.image[1:]),
        }

    def example(self) -> tuple[torch.Tensor, ...]:
        """Inputs of two rows, to try a model with."""
        import torch

        random = torch.Generator().manual_seed(0)
        if self.modality == TEXT:
            ids = torch.randint(0, self.vocab_size, (_SAMPLE_ROWS, self.max_length), generator=random)
            return ids, torch.full((_SAMPLE_ROWS,), self.max_length, dtype=torch.int32)
        size = self.image if self.modality == IMAGE else (self.num_features,)
        return (torch.randn(_SAMPLE_ROWS, *size, generator=random),)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DataShape:
        known: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**known)

    @classmethod
    def of(cls, pipeline: Pipeline) -> DataShape:
        """UserError where the dataset has nothing that a model could read."""
        kinds = [feature.kind for feature in pipeline.features]
        if "tokens" in kinds:
            return cls(TEXT, pipeline.classes, vocab_size=pipeline.vocab_size, max_length=pipeline.max_length)
        if "image" in kinds:
            return cls(IMAGE, pipeline.classes, image=_image(pipeline))
        if not kinds:
            raise UserError(
                Reason.INVALID_PARAMETERS,
                "the Dataset has no features: add transforms that make numbers, tokens or images of its columns",
            )
        return cls(TABLE, pipeline.classes, num_features=sum(feature.width for feature in pipeline.features))


def _image(pipeline: Pipeline) -> tuple[int, int, int]:
    images = [feature for feature in pipeline.features if feature.kind == "image"]
    if len(images) > 1:
        names = ", ".join(feature.name for feature in images)
        raise UserError(Reason.INVALID_PARAMETERS, f"an image model reads one image column; the Dataset has {names}")
    height, width, channels = images[0].shape
    return channels, height, width
