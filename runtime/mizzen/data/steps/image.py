"""Images to arrays: decoded, resized, and the channels' mean and deviation learned from the train split."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from mizzen.data.steps.base import Feature, Fitted, Step
from mizzen.errors import UserError
from mizzen_api.conditions import Reason
from mizzen_api.dataset_transforms import Image

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Pixels(Fitted):
    """COLUMN becomes height × width × channels bytes; the standard form is applied where arrays are read."""

    KIND: ClassVar[str] = "image"

    height: int = 32
    width: int = 32
    channels: int = 3
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    augment: tuple[str, ...] = ()

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        (name,) = self.columns
        arrays = decode(frame[name].to_list(), self.height, self.width, self.channels, name)
        flat = arrays.reshape(len(arrays), self.height * self.width * self.channels)
        return frame.with_columns(pl.Series(name, flat, dtype=pl.Array(pl.UInt8, flat.shape[1])))

    def features(self) -> tuple[Feature, ...]:
        shape = (self.height, self.width, self.channels)
        return (Feature(self.columns[0], "image", int(np.prod(shape)), (), shape, self.mean, self.deviation),)


def decode(values: list[Any], height: int, width: int, channels: int, column: str) -> np.ndarray[Any, Any]:
    """(rows, height, width, channels) uint8 from encoded files, or from lists of pixels of that very size."""
    from PIL import Image as Pictures
    from PIL import UnidentifiedImageError

    mode = "L" if channels == 1 else "RGB"
    arrays = np.zeros((len(values), height, width, channels), dtype=np.uint8)
    for row, value in enumerate(values):
        if value is None:
            raise UserError(Reason.SOURCE_MALFORMED, f"row {row}: the image column {column!r} is empty")
        encoded = value if isinstance(value, bytes | bytearray) else _from_pixels(value, column, row)
        try:
            with Pictures.open(io.BytesIO(encoded)) as picture:
                resized = picture.convert(mode).resize((width, height), Pictures.Resampling.BILINEAR)
                arrays[row] = np.asarray(resized, dtype=np.uint8).reshape(height, width, channels)
        except (UnidentifiedImageError, OSError, ValueError, Pictures.DecompressionBombError) as error:
            raise UserError(
                Reason.SOURCE_MALFORMED,
                f"row {row}: the image column {column!r} holds no image that can be read: {error}",
            ) from error
    return arrays


def _from_pixels(value: Any, column: str, row: int) -> bytes:
    """A square grey image, as IDX files and CSV columns of pixels have it."""
    from PIL import Image as Pictures

    pixels = np.asarray(value, dtype=np.uint8).reshape(-1)
    side = int(len(pixels) ** 0.5)
    if side * side != len(pixels):
        raise UserError(
            Reason.SOURCE_MALFORMED,
            f"row {row}: the image column {column!r} has {len(pixels)} pixels, which is no square; give encoded images",
        )
    buffer = io.BytesIO()
    Pictures.fromarray(pixels.reshape(side, side)).save(buffer, "BMP")
    return buffer.getvalue()


class ImageFit:
    """Sums of the channels' values and of their squares; integers, so that no order changes them."""

    def __init__(self, settings: Image) -> None:
        self.settings = settings
        self.pixels = 0
        self.sums = np.zeros(settings.channels, dtype=np.int64)
        self.squares = np.zeros(settings.channels, dtype=np.int64)

    def update(self, frame: pl.DataFrame) -> None:
        settings = self.settings
        if not settings.normalize or not frame.height:
            return
        values = frame[settings.column].to_list()
        arrays = decode(values, settings.height, settings.width, settings.channels, settings.column).astype(np.int64)
        self.pixels += int(np.prod(arrays.shape[:3]))
        self.sums += arrays.sum(axis=(0, 1, 2))
        self.squares += (arrays * arrays).sum(axis=(0, 1, 2))

    def merge(self, other: Self) -> None:
        self.pixels += other.pixels
        self.sums += other.sums
        self.squares += other.squares

    def finish(self) -> Pixels:
        settings = self.settings
        mean: tuple[float, ...] = ()
        deviation: tuple[float, ...] = ()
        if self.pixels:
            means = self.sums / self.pixels
            spread = np.sqrt(np.maximum(self.squares / self.pixels - means**2, 0.0))
            mean = tuple(float(value) for value in means / 255)
            deviation = tuple(float(value) or 1.0 for value in spread / 255)
        shape = (settings.height, settings.width, settings.channels)
        return Pixels((settings.column,), *shape, mean, deviation, tuple(settings.augment))


class ImageStep(Step):
    """`image`."""

    def __init__(self, settings: Image) -> None:
        self.settings = settings
        self.columns = (settings.column,)

    def begin(self, frame: pl.DataFrame) -> ImageFit:  # noqa: ARG002
        return ImageFit(self.settings)
