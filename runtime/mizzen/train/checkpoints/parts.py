"""One rank's part of a checkpoint: a safetensors file that says in its metadata which boxes of the tensors it holds.

    uint64 length, JSON header, bytes        https://huggingface.co/docs/safetensors (any reader of it can open a part)

Written straight from the snapshot's memory: no tensor is copied, and no torch is needed.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import xxhash

from mizzen.train.checkpoints.files import Bytes, Files
from mizzen.train.checkpoints.pieces import DTYPES, Piece

CHUNK = 8 * 1024 * 1024  # bytes
_LENGTH = struct.Struct("<Q")
_BOXES = "mizzen.boxes"
_LONGEST_HEADER = 100 * 1024 * 1024  # bytes, as safetensors has it


@dataclass(frozen=True)
class Part:
    """A written part: `digest` is xxh3-128 over the file, which tells of faults and not of forgers."""

    file: str
    size: int
    digest: str


def part_name(rank: int, world: int) -> str:
    return f"rank-{rank:05d}-of-{world:05d}.safetensors"


def write_part(files: Files, path: str, pieces: Sequence[Piece], data: memoryview) -> Part:
    """Write the pieces, whose bytes lie in `data` at their `start`. OSError where the store does not take them."""
    ordered = sorted(pieces, key=lambda piece: -DTYPES[piece.dtype])  # so that each is aligned by its dtype
    hashing, size = xxhash.xxh3_128(), 0

    def counted() -> Iterator[Bytes]:
        nonlocal size
        for chunk in _chunks(ordered, data):
            hashing.update(chunk)
            size += len(chunk)
            yield chunk

    files.write(path, counted())
    return Part(path.rpartition("/")[2], size, hashing.hexdigest())


def digest_of(files: Files, path: str, size: int) -> str:
    """Over what lies in the store now; less than `size` bytes give another digest."""
    hashing = xxhash.xxh3_128()
    for start in range(0, size, CHUNK):
        hashing.update(files.read(path, start, min(start + CHUNK, size)))
    return hashing.hexdigest()


def read_table(files: Files, path: str) -> list[Piece]:
    """The pieces of a part, `start` counted from the file's first byte. ValueError where it is no such file."""
    (length,) = _LENGTH.unpack(files.read(path, 0, _LENGTH.size))
    if length > _LONGEST_HEADER:
        raise ValueError(f"{path}: no safetensors header")
    header = json.loads(files.read(path, _LENGTH.size, _LENGTH.size + length))
    boxes = json.loads(header.pop("__metadata__")[_BOXES])
    found = []
    for key, entry in header.items():
        kind, name, shape, offsets = boxes[key]
        start = _LENGTH.size + length + entry["data_offsets"][0]
        found.append(Piece(name, entry["dtype"], tuple(shape), tuple(offsets), tuple(entry["shape"]), kind, start))
    return found


def _chunks(pieces: Sequence[Piece], data: memoryview) -> Iterator[Bytes]:
    yield _header(pieces)
    for piece in pieces:
        for start in range(piece.start, piece.start + piece.nbytes, CHUNK):
            yield data[start : min(start + CHUNK, piece.start + piece.nbytes)]


def _header(pieces: Sequence[Piece]) -> bytes:
    entries: dict[str, object] = {}
    boxes, at = {}, 0
    for piece in pieces:
        entries[piece.key] = {"dtype": piece.dtype, "shape": piece.size, "data_offsets": (at, at + piece.nbytes)}
        boxes[piece.key] = (piece.kind, piece.name, piece.shape, piece.offsets)
        at += piece.nbytes
    metadata = {"format": "pt", _BOXES: json.dumps(boxes)}
    text = json.dumps({"__metadata__": metadata, **entries}).encode()
    text += b" " * (-len(text) % 8)
    return _LENGTH.pack(len(text)) + text
