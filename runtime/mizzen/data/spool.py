"""Chunks between two passes: Arrow files in a scratch folder, so that sources are read once and memory stays small."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import polars as pl


class Spool:
    """Frames in their order. A context manager: the files go with it."""

    def __init__(self, parent: Path | None = None, *, shared: bool = True) -> None:
        """`shared`: whether other machines see the files below `parent`."""
        self._parent, self._shared = parent, shared
        self._folder: Path | None = None
        self._first: pl.DataFrame | None = None
        self.count = 0
        self.rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, frame: pl.DataFrame) -> None:
        if self.count == 0:
            self._first = frame
        else:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="mizzen-spool-", dir=self._parent))
            if self.count == 1 and self._first is not None:
                self._first.write_ipc(self.path(0))
                self._first = None
            frame.write_ipc(self.path(self.count))
        self.count += 1
        self.rows += frame.height

    @property
    def in_shared_files(self) -> bool:
        """Whether workers can read the chunks by themselves; a single chunk stays in memory."""
        return self._folder is not None and self._shared

    def path(self, number: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{number:06d}.arrow"

    def get(self, number: int, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """One chunk, mapped into memory where it lies in a file."""
        import polars as pl

        if self._first is not None:
            return self._first if columns is None else self._first.select(columns)
        return pl.read_ipc(self.path(number), columns=list(columns) if columns is not None else None)

    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[pl.DataFrame]:
        for number in range(self.count):
            yield self.get(number, columns)
