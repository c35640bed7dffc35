"""Sources beside each other: each frame of the rows so far is joined with another source, held in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mizzen.data.sources.parts import Concatenation, total
from mizzen.data.sources.rows import BadRow, BadRows, Origin, rechunk
from mizzen.errors import UserError
from mizzen_api.conditions import Reason
from mizzen_api.dataset_sources import Join

if TYPE_CHECKING:
    import polars as pl

_NUMBER = "\0number"  # of the right side's rows, to know which ones found no partner


@dataclass(frozen=True)
class Step:
    """A source to join."""

    right: Concatenation
    join: Join

    @property
    def uri(self) -> str:
        return self.right.uris[0]

    def keys(self, left: Mapping[str, pl.DataType]) -> list[str]:
        """The columns that must be equal. UserError when one is missing, of another type, or would come twice."""
        right = self.right.contract().dtypes()
        keys = list(self.join.columns) or [name for name in left if name in right]
        if not keys:
            raise UserError(
                Reason.COLUMN_MISSING,
                f"{self.uri} has no column in common with the rows that it joins: it has {', '.join(right)}, "
                f"they have {', '.join(left)}",
            )
        for name in keys:
            for whose, schema in (("the rows so far have", left), (f"{self.uri} has", right)):
                if name not in schema:
                    raise UserError(
                        Reason.COLUMN_MISSING, f"join.keys: {whose} no column {name!r}; there are {', '.join(schema)}"
                    )
            if left[name] != right[name]:
                raise UserError(
                    Reason.SOURCE_MALFORMED,
                    f"join.keys: {name!r} is {right[name]} in {self.uri} and {left[name]} in the rows that it joins; "
                    "declare its type in columnTypes",
                )
        twice = [name for name in right if name in left and name not in keys]
        if twice and self.join.suffix is None and self.join.how not in {"semi", "anti"}:
            raise UserError(
                Reason.SOURCE_MALFORMED,
                f"{self.uri} and the rows that it joins both have the column {twice[0]!r}; set join.suffix",
            )
        return keys

    def schema(self, left: Mapping[str, pl.DataType]) -> dict[str, pl.DataType]:
        import polars as pl

        return dict(self._joined(pl.DataFrame(schema=left), pl.DataFrame(schema=self.right.contract().dtypes())).schema)

    def frames(self, left: Mapping[str, pl.DataType], frames: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """Each frame with its partners; with `full` then the rows that found none."""
        import polars as pl

        keys = self.keys(left)
        right = pl.concat(self.right.frames())
        if self.join.how != "full":
            yield from (self._joined(frame, right) for frame in frames)
            return
        met = pl.Series(dtype=pl.UInt32)
        numbered = right.with_row_index(_NUMBER)
        for frame in frames:
            joined = frame.join(
                numbered, on=keys, how="left", suffix=self.join.suffix or "", maintain_order="left_right"
            )
            met = pl.concat([met, joined[_NUMBER].drop_nulls()]).unique()
            yield joined.drop(_NUMBER)
        alone = numbered.filter(~pl.col(_NUMBER).is_in(met.implode())).drop(_NUMBER)
        # As the right side of a join with nothing its columns get the names that they have above.
        yield pl.DataFrame(schema=left).join(alone, on=keys, how="full", coalesce=True, suffix=self.join.suffix or "")

    def _joined(self, left: pl.DataFrame, right: pl.DataFrame) -> pl.DataFrame:
        keys = self.keys(left.schema)
        if self.join.how in {"semi", "anti"}:
            return left.join(right, on=keys, how=self.join.how, maintain_order="left")
        how = "left" if self.join.how == "full" else self.join.how
        return left.join(right, on=keys, how=how, suffix=self.join.suffix or "", maintain_order="left_right")


class Joined:
    """A RowSource: the first source's rows with the columns of the others."""

    def __init__(self, base: Concatenation, steps: Sequence[Step], bad_rows: BadRows) -> None:
        self._base = base
        self._steps = steps
        self._bad_rows = bad_rows

    @property
    def _sources(self) -> list[Concatenation]:
        return [self._base, *(step.right for step in self._steps)]

    @property
    def uris(self) -> tuple[str, ...]:
        return tuple(uri for source in self._sources for uri in source.uris)

    @property
    def bad_rows(self) -> list[BadRow]:
        return self._bad_rows.first

    @property
    def bad_row_count(self) -> int:
        return self._bad_rows.count

    @property
    def undecodable(self) -> int:
        return sum(source.undecodable for source in self._sources)

    def size(self) -> int | None:
        return total(source.size() for source in self._sources)

    def origins(self) -> tuple[Origin, ...]:
        return tuple(origin for source in self._sources for origin in source.origins())

    def identity(self) -> str:
        each = [source.identity() for source in self._sources]
        return "\n".join(each) if all(each) else ""

    def digest(self) -> str:
        return hashlib.sha256("".join(source.digest() for source in self._sources).encode()).hexdigest()

    def schema(self) -> dict[str, pl.DataType]:
        schema = self._base.contract().dtypes()
        for step in self._steps:
            schema = step.schema(schema)
        self._base.check_declared(schema)
        return schema

    def chunks(self) -> Iterator[pl.DataFrame]:
        self._bad_rows.clear()
        self.schema()  # what cannot be joined is told before anything is read
        frames, schema = self._base.frames(), self._base.contract().dtypes()
        for step in self._steps:
            frames = step.frames(schema, frames)
            schema = step.schema(schema)
        rows = 0
        for chunk in rechunk(frames):
            rows += chunk.height
            yield chunk
        if not rows:
            raise UserError(
                Reason.SOURCE_EMPTY, f"the join of {' and '.join(self.uris)} has no rows: no keys are equal"
            )
