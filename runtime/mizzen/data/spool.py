"""Chunks between two passes, so that sources are read once: in memory while they are few, then in Arrow files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import polars as pl

IN_MEMORY = 512 << 20  # bytes of chunks; what comes after them goes to files


class Spool:
    """Frames in their order. A context manager: the files go with it."""

    def __init__(self, parent: Path | None = None, *, shared: bool = True, in_memory: int = IN_MEMORY) -> None:
        """`shared`: whether other machines see the files below `parent`."""
        self._parent, self._shared = parent, shared
        self._folder: Path | None = None
        self._frames: list[pl.DataFrame] = []  # the first ones
        self._room = in_memory
        self.count = 0
        self.rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, frame: pl.DataFrame) -> None:
        self._room -= _size(frame)
        if self._folder is None and (self._room >= 0 or not self.count):
            self._frames.append(frame)
        else:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="mizzen-spool-", dir=self._parent))
            frame.write_ipc(self._path(self.count))
        self.count += 1
        self.rows += frame.height

    def get(self, number: int, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """One chunk, mapped into memory where it lies in a file."""
        import polars as pl

        if number < len(self._frames):
            frame = self._frames[number]
            return frame if columns is None else frame.select(columns)
        return pl.read_ipc(self._path(number), columns=list(columns) if columns is not None else None)

    def sendable(self, number: int) -> pl.DataFrame | str:
        """The path of one chunk where other machines see it, else the chunk."""
        if self._shared and number >= len(self._frames):
            return str(self._path(number))
        return self.get(number)

    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[pl.DataFrame]:
        for number in range(self.count):
            yield self.get(number, columns)

    def _path(self, number: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{number:06d}.arrow"


def _size(frame: pl.DataFrame) -> int:
    """Bytes in memory; polars' estimate leaves out the views by which it has strings."""
    import polars as pl

    views = sum(kind in (pl.String, pl.Binary) for kind in frame.dtypes)
    return int(frame.estimated_size()) + 16 * views * frame.height
