"""Parquet, Arrow and Feather: typed already, read batch by batch."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mizzen.data.sources import streams, types
from mizzen.data.sources.files import File, short
from mizzen.data.sources.parts import Contract, FilePart, OnDigest
from mizzen.data.sources.rows import BadRows
from mizzen.errors import UserError
from mizzen_api.conditions import Reason

if TYPE_CHECKING:
    import polars as pl

BATCH_ROWS = 65_536
MAGICS: dict[bytes, str] = {b"PAR1": "parquet", b"ARROW1": "arrow", b"\xff\xff\xff\xff": "arrow"}


class ColumnarFile(FilePart):
    """A Parquet file, or an Arrow file or stream. A remote or packed one is fetched once, to a scratch file."""

    def __init__(self, file: File, text_columns: Collection[str] = ()) -> None:
        super().__init__(file)
        self._text_columns = text_columns
        self._copy: tuple[Path, bytes] | None = None  # and its digest

    def infer(self, known: Mapping[str, str]) -> dict[str, str | None]:
        with self._batches(self._local()[0]) as (schema, batches):
            empty = types.normalise(types.from_arrow(schema.empty_table()), self._text_columns)
            rows = any(batch.num_rows for batch in batches)
        kinds = {name: types.name_of(empty[name].dtype) for name in empty.columns}
        return {name: known.get(name) or (kind if rows else None) for name, kind in kinds.items()}

    def frames(self, contract: Contract, bad_rows: BadRows, on_digest: OnDigest) -> Iterator[pl.DataFrame]:
        path, known_digest = self._local()
        first = 1
        with ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(1))
            digest = None if known_digest else pool.submit(streams.digest, self.file)
            _, batches = stack.enter_context(self._batches(path))
            for batch in batches:
                frame = types.normalise(types.from_arrow(batch), self._text_columns)
                yield contract.conform(self.uri, frame, first.__add__, bad_rows)
                first += batch.num_rows
            on_digest(digest.result() if digest else known_digest)
        if self._copy is not None:
            self._copy = None
            path.unlink()

    def _local(self) -> tuple[Path, bytes]:
        """Where the file is, and its digest if it was read for that."""
        if self.file.path is not None and any(map(_head(self.file.path).startswith, MAGICS)):
            return self.file.path, b""
        if self._copy is None:
            folder = Path(tempfile.mkdtemp(prefix="mizzen-"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            digests: list[bytes] = []
            self._copy = streams.copy(self.file, folder / "data", digests.append), digests[0]
        return self._copy

    @contextmanager
    def _batches(self, path: Path) -> Iterator[tuple[Any, Iterator[Any]]]:
        """The Arrow schema and the record batches. UserError when the file is empty or damaged."""
        import pyarrow as pa

        if path.stat().st_size == 0:
            raise UserError(Reason.SOURCE_EMPTY, f"{self.uri} is empty")
        try:
            with ExitStack() as stack:
                yield _open(path, stack)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
            raise UserError(
                Reason.SOURCE_MALFORMED, f"{self.uri} is cut short or damaged: {short(error)}; copy it again"
            ) from error


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(6)


def _open(path: Path, stack: ExitStack) -> tuple[Any, Iterator[Any]]:
    import pyarrow as pa

    head = _head(path)
    if head.startswith(b"PAR1"):
        import pyarrow.parquet as pq

        file = stack.enter_context(pq.ParquetFile(path))
        return file.schema_arrow, file.iter_batches(BATCH_ROWS)
    mapped = stack.enter_context(pa.memory_map(str(path)))
    if head.startswith(b"ARROW1"):
        reader = stack.enter_context(pa.ipc.open_file(mapped))
        return reader.schema, (reader.get_batch(number) for number in range(reader.num_record_batches))
    stream = stack.enter_context(pa.ipc.open_stream(mapped))
    return stream.schema, iter(stream)
