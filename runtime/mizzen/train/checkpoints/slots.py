"""One snapshot in one file in memory: written in place, and whole only while its commit record says so.

    0      commit record: what is there, with checksums; zeros while the slot is written
    4096   the state as JSON, then the table of pieces as JSON, then the tensors' bytes

The record is written last. A process that is killed in the middle of a copy leaves a slot without a record, and the
other slot of its pair is whole. The writing process and a later training read slots; both know no more than this file.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import mmap
import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from mizzen.train.checkpoints.pieces import Piece

PAGE = mmap.PAGESIZE
_MAGIC = b"MIZZEN01"
_RECORD = struct.Struct("<8s Q Q Q Q Q I I Q I")  # ..., checksum of the record itself


@dataclass(frozen=True)
class Record:
    """The commit record. Sizes and positions in bytes; `taken` counts the snapshots of one owner."""

    step: int
    taken: int
    state_bytes: int
    table_start: int
    table_bytes: int
    state_crc: int
    table_crc: int
    digest: int  # of the tensors' bytes

    def pack(self) -> bytes:
        body = _RECORD.pack(
            _MAGIC, self.step, self.taken, self.state_bytes, self.table_start, self.table_bytes, self.state_crc,
            self.table_crc, self.digest, 0,
        )[:-4]  # fmt: skip
        return body + struct.pack("<I", zlib.crc32(body))

    @classmethod
    def unpack(cls, raw: bytes) -> Record | None:
        """None where there is no whole record."""
        raw = raw[: _RECORD.size]
        if len(raw) < _RECORD.size or not raw.startswith(_MAGIC):
            return None
        values = _RECORD.unpack(raw)
        return cls(*values[1:-1]) if zlib.crc32(raw[:-4]) == values[-1] else None


@dataclass(frozen=True)
class Header:
    """What a whole slot says of itself."""

    record: Record
    state: dict[str, Any]  # TrainState and the place in the group, see snapshots.py
    pieces: list[Piece]
    data_start: int
    data_bytes: int

    @property
    def step(self) -> int:
        return self.record.step


class Slot:
    """The owner's side: a file of a fixed layout in memory, mapped for writing. Locked as long as its owner lives."""

    def __init__(self, path: Path, pieces: Sequence[Piece], data_bytes: int, state_room: int) -> None:
        """OSError (ENOSPC) where there is no room: pages are taken now, for later a write would be a SIGBUS."""
        table = json.dumps([piece.to_dict() for piece in pieces]).encode()
        self.path, self.pieces = path, pieces
        self.holders: set[object] = set()  # who still reads it: it must not be written
        self._table_start, self._table = PAGE + state_room, table
        self.data_start = _up(self._table_start + len(table))
        self.data_bytes, self._state_room = data_bytes, state_room
        size = _up(self.data_start + max(data_bytes, 1))
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(self._file, 0, size)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self.memory = mmap.mmap(self._file, size, flags=mmap.MAP_SHARED)
        except OSError:
            os.close(self._file)
            path.unlink(missing_ok=True)
            raise
        # Every page is touched once, so that no copy waits for the kernel. ctypes lets other threads run meanwhile.
        ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(self.memory)), 0, size)
        self.memory[self._table_start : self._table_start + len(table)] = table
        self.record: Record | None = None

    def begin(self) -> None:
        """What was there is whole no longer."""
        self.record = None
        self.memory[: _RECORD.size] = bytes(_RECORD.size)

    def commit(self, step: int, taken: int, state: bytes) -> None:
        self.memory[PAGE : PAGE + len(state)] = state
        self.record = Record(
            step=step,
            taken=taken,
            state_bytes=len(state),
            table_start=self._table_start,
            table_bytes=len(self._table),
            state_crc=zlib.crc32(state),
            table_crc=zlib.crc32(self._table),
            digest=_digest(self.memory, self.data_start, self.data_bytes),
        )
        self.memory[: _RECORD.size] = self.record.pack()
        os.utime(self._file)

    def fits(self, state: bytes) -> bool:
        return len(state) <= self._state_room

    def close(self, *, keep: bool) -> None:
        """The memory goes back when the file is removed and the last tensor that looks into it is gone."""
        if not keep:
            self.path.unlink(missing_ok=True)
        os.close(self._file)


class View:
    """A reader's side: a copy-on-write view of a slot's file. It stays readable after the file is removed."""

    def __init__(self, path: Path) -> None:
        """OSError where there is no such file."""
        with path.open("rb") as file:
            self.memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self.path = path

    def header(self) -> Header | None:
        """None while the slot is written, or where its owner died before it was whole."""
        record = Record.unpack(self.memory[: _RECORD.size])
        if record is None:
            return None
        state = self.memory[PAGE : PAGE + record.state_bytes]
        table = self.memory[record.table_start : record.table_start + record.table_bytes]
        if zlib.crc32(state) != record.state_crc or zlib.crc32(table) != record.table_crc:
            return None
        pieces = [Piece.from_dict(values) for values in json.loads(table)]
        data_bytes = max((piece.start + piece.nbytes for piece in pieces), default=0)
        return Header(record, json.loads(state), pieces, _up(record.table_start + record.table_bytes), data_bytes)

    def is_sound(self, header: Header) -> bool:
        """Whether the tensors' bytes are those that were committed."""
        return _digest(self.memory, header.data_start, header.data_bytes) == header.record.digest


def is_owned(path: Path) -> bool:
    """Whether the process that made the slot lives."""
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False


def _digest(memory: mmap.mmap, start: int, size: int) -> int:
    with memoryview(memory) as whole, whole[start : start + size] as data:
        return xxhash.xxh3_64_intdigest(data)


def _up(size: int) -> int:
    return -(-size // PAGE) * PAGE
