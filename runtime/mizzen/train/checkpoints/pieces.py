"""Pieces of tensors: what a rank holds of each tensor, and which of it the rank writes. Knows no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

REPLICATED, SHARD, LOCAL = "replicated", "shard", "local"
ALIGNMENT = 64  # bytes: a cache line, and more than any dtype needs

# safetensors' names and bytes per element.
DTYPES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8, "C64": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """A box of a tensor: `size` elements from `offsets` on, of a whole of `shape`. `start` is its byte in a file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offsets: tuple[int, ...]
    size: tuple[int, ...]
    kind: str = REPLICATED
    start: int = 0

    @property
    def nbytes(self) -> int:
        return math.prod(self.size) * DTYPES[self.dtype]

    @property
    def key(self) -> str:
        """Its name in a file: what ranks have alike and what one alone has may be called the same."""
        return f"local/{self.name}" if self.kind == LOCAL else self.name

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Piece:
        boxes = {name: tuple(values[name]) for name in ("shape", "offsets", "size")}
        return cls(**{**values, **boxes})


def laid_out(pieces: Iterable[Piece]) -> tuple[list[Piece], int]:
    """The pieces one after the other, aligned, and the bytes that they take together."""
    found, end = [], 0
    for piece in pieces:
        start = -(-end // ALIGNMENT) * ALIGNMENT
        found.append(replace(piece, start=start))
        end = start + piece.nbytes
    return found, end


def share(pieces: Sequence[Piece], rank: int, world: int) -> list[Piece]:
    """What a rank writes: its shards and what it alone has, and 1/world of what all have alike, in whole rows.

    The replicated tensors lie one after the other on a line; rank r takes the rows that begin in the r-th part of it.
    """
    total = sum(piece.nbytes for piece in pieces if piece.kind == REPLICATED)
    low, high = total * rank // world, total * (rank + 1) // world
    found, at = [], 0
    for piece in pieces:
        if piece.kind != REPLICATED:
            found.append(piece)
            continue
        mine = _rows(piece, low - at, high - at) if piece.nbytes else (piece if rank == 0 else None)
        at += piece.nbytes
        if mine is not None:
            found.append(mine)
    return found


def _rows(piece: Piece, low: int, high: int) -> Piece | None:
    """The rows of a piece that begin at the bytes [low, high)."""
    if not piece.size:
        return piece if low <= 0 < high else None
    rows = piece.size[0]
    row_bytes = piece.nbytes // rows
    first, last = (min(max(-(-edge // row_bytes), 0), rows) for edge in (low, high))
    if first == last:
        return None
    return replace(
        piece,
        offsets=(piece.offsets[0] + first, *piece.offsets[1:]),
        size=(last - first, *piece.size[1:]),
        start=piece.start + first * row_bytes,
    )
