"""A frame in memory as a source, so that what is in a notebook goes the same way as what is in a bucket."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mizzen.data.sources.rows import Origin

if TYPE_CHECKING:
    import polars as pl

CHUNK_ROWS = 262_144  # rows of a chunk: enough for all cores, small beside the memory of a pod


class FrameSource:
    """A polars frame behind the interface of a source."""

    bad_row_count = 0
    chunk_rows = CHUNK_ROWS

    def __init__(self, frame: pl.DataFrame, name: str = "frame") -> None:
        self.frame, self.uris = frame, (f"memory://{name}",)
        self.bad_rows: list[object] = []
        self._digest = ""

    def size(self) -> int | None:
        return int(self.frame.estimated_size())

    def origins(self) -> tuple[Origin, ...]:
        return (Origin(self.uris[0], self.frame.height, f"sha256:{self.digest()}"),)

    def identity(self) -> str:
        return ""

    def digest(self) -> str:
        self._digest = self._digest or self._hashed()
        return self._digest

    def _hashed(self) -> str:
        digest = hashlib.sha256()
        for chunk in self.chunks():
            buffer = io.BytesIO()
            chunk.rechunk().write_ipc(buffer, compression="uncompressed")
            digest.update(buffer.getbuffer())
        return digest.hexdigest()

    def schema(self) -> dict[str, pl.DataType]:
        return dict(self.frame.schema)

    def chunks(self) -> Iterator[pl.DataFrame]:
        yield from self.frame.iter_slices(self.chunk_rows)
