"""IDX, the format of MNIST and its kin: images beside their labels."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from mizzen.data.sources import streams
from mizzen.data.sources.files import File
from mizzen.data.sources.parts import Contract, FilePart, OnDigest
from mizzen.data.sources.rows import BadRows
from mizzen.errors import UserError
from mizzen_api.conditions import Reason

if TYPE_CHECKING:
    import polars as pl

# http://yann.lecun.com/exdb/mnist: two zero bytes, one for the type, one for the number of dimensions.
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
ROWS_AT_ONCE = 16_384
Array = np.ndarray[Any, np.dtype[Any]]


def labels_beside(uri: str) -> str | None:
    """train-images-idx3-ubyte.gz has its labels in train-labels-idx1-ubyte.gz."""
    folder, _, name = uri.rpartition("/")
    found = re.sub(r"images([-.])idx[34]", r"labels\1idx1", name)
    return None if found == name else f"{folder}/{found}" if folder else found


class IdxFile(FilePart):
    """Images as portable grey or pixel maps, which any image library decodes, with their labels as text.

    An IDX file without images (one dimension) is a column of numbers.
    """

    def __init__(self, file: File, labels: File | None) -> None:
        super().__init__(file)
        self._labels = labels

    def identity(self) -> str:
        return f"{self.file.identity}\n{self._labels.identity}" if self._labels else self.file.identity

    def digest(self, known: Mapping[str, str]) -> bytes:  # noqa: ARG002 (bytes are what they are)
        each = [streams.digest(file) for file in (self.file, self._labels) if file]
        return each[0] if len(each) == 1 else hashlib.sha256(b"".join(each)).digest()

    def infer(self, known: Mapping[str, str]) -> dict[str, str | None]:
        with ExitStack() as stack:
            kind, shape = _header(self.uri, streams.content(self.file, stack)[0])
        if not shape[0]:
            raise UserError(Reason.SOURCE_EMPTY, f"{self.uri} holds no rows")
        number = "float" if kind.endswith(("f4", "f8")) else "integer"
        columns: dict[str, str] = {"value": number} if len(shape) == 1 else {"image": "binary"}
        if self._labels:
            columns["label"] = "string"
        return {name: known.get(name, kind) for name, kind in columns.items()}

    def frames(self, contract: Contract, bad_rows: BadRows, on_digest: OnDigest) -> Iterator[pl.DataFrame]:
        import polars as pl

        digests: list[bytes] = []
        labels = _values(self._labels, digests.append) if self._labels else None
        first = 0
        for images in _pieces(self.file, lambda found: digests.insert(0, found)):
            columns = (
                [pl.Series("value", images.astype(images.dtype.newbyteorder("=")))]
                if images.ndim == 1
                else [pl.Series("image", _maps(self.uri, images), pl.Binary())]
            )
            if labels is not None:
                some = labels[first : first + len(images)]
                if len(some) < len(images):
                    self._lengths_differ(len(labels))
                columns.append(pl.Series("label", some.astype(str), pl.String()))
            frame = pl.DataFrame(columns)
            yield contract.conform(self.uri, _widened(frame), (first + 1).__add__, bad_rows)
            first += len(images)
        if labels is not None and first != len(labels):
            self._lengths_differ(len(labels))
        on_digest(digests[0] if len(digests) == 1 else hashlib.sha256(b"".join(digests)).digest())

    def _lengths_differ(self, labels: int) -> None:
        assert self._labels is not None
        raise UserError(
            Reason.SOURCE_MALFORMED,
            f"{self.uri} and {self._labels.uri} do not belong together: the labels are {labels}, the images are not",
        )


def _widened(frame: pl.DataFrame) -> pl.DataFrame:
    from mizzen.data.sources.types import normalise

    return normalise(frame)


def _maps(uri: str, images: Array) -> list[bytes]:
    """Netpbm files of one image each: a short header and the very bytes."""
    channels = images.shape[3] if images.ndim == 4 else 1
    if images.dtype != np.uint8 or images.ndim not in {3, 4} or channels not in {1, 3}:
        raise UserError(
            Reason.SOURCE_MALFORMED,
            f"{uri} holds arrays of {images.dtype} and shape {images.shape[1:]}; images are bytes of (height, width), "
            "or of (height, width, 3) in colour",
        )
    height, width = images.shape[1:3]
    head = f"P{6 if channels == 3 else 5} {width} {height} 255\n".encode()
    return [head + image.tobytes() for image in images]


def _header(uri: str, stream: IO[bytes]) -> tuple[str, tuple[int, ...]]:
    with streams.unpacking(uri):
        magic = streams.exactly(stream, 4)
        if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES or not magic[3]:
            raise UserError(Reason.SOURCE_MALFORMED, f"{uri} is not an IDX file: it begins with {magic!r}")
        sizes = streams.exactly(stream, 4 * magic[3])
    return _TYPES[magic[2]], tuple(np.frombuffer(sizes, ">u4").tolist())


def _pieces(file: File, on_digest: OnDigest) -> Iterator[Array]:
    """The array in pieces along its first dimension."""
    with ExitStack() as stack:
        stream, hashed = streams.content(file, stack)
        kind, shape = _header(file.uri, stream)
        row = np.dtype(kind).itemsize * math.prod(shape[1:])
        for first in range(0, shape[0], ROWS_AT_ONCE):
            rows = min(ROWS_AT_ONCE, shape[0] - first)
            with streams.unpacking(file.uri):
                data = streams.exactly(stream, rows * row)
            if len(data) < rows * row:
                raise UserError(
                    Reason.SOURCE_MALFORMED,
                    f"{file.uri} is cut short: its header says {shape[0]} rows, and it ends in row "
                    f"{first + len(data) // row + 1}; copy it again",
                )
            yield np.frombuffer(data, kind).reshape(rows, *shape[1:])
        on_digest(hashed.finish())


def _values(file: File, on_digest: OnDigest) -> Array:
    pieces = list(_pieces(file, on_digest))
    return np.concatenate(pieces) if pieces else np.zeros(0, np.uint8)
