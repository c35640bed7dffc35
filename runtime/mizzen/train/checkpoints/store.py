"""The durable checkpoints of a run: which there are, which of them are whole, and how one becomes whole.

    <uri>/step-000000000400-<group>/
        rank-00000-of-00004.safetensors   a part, see parts.py
        rank-00000-of-00004.json          its size and digest, written after it
        checkpoint.json                   written last, by the rank that sees all parts: their digests, the state

A folder without checkpoint.json is not there for a reader. Ranks write their parts on their own, without a word between
them; those that finish at once write the same checkpoint.json. `group` keeps apart what two formations of the group
wrote of one step.
"""

from __future__ import annotations

import json
import logging
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mizzen.train.checkpoints.files import Files, files_of
from mizzen.train.checkpoints.parts import Part, digest_of, part_name, write_part
from mizzen.train.checkpoints.pieces import Piece, share

if TYPE_CHECKING:
    from mizzen.train.checkpoints.restore import Restored

log = logging.getLogger(__name__)

MANIFEST = "checkpoint.json"
BROKEN = "checkpoint.broken.json"  # the manifest of one that was found corrupted
_FOLDER = re.compile(r"step-(\d+)-(.+)")
_READERS = 8  # parts that are checked at once


@dataclass(frozen=True)
class Origin:
    """Which rank of which formation of the group took a snapshot, and where the run was."""

    step: int
    rank: int
    world: int
    group: str
    state: dict[str, Any]  # seams.TrainState as JSON values

    @property
    def folder(self) -> str:
        return f"step-{self.step:012d}-{re.sub(r'[^A-Za-z0-9._-]', '_', self.group)}"


@dataclass(frozen=True)
class Checkpoint:
    """A whole one: every part of it is there."""

    store: Store
    folder: str
    step: int
    world: int
    state: dict[str, Any]
    parts: list[Part]

    def faults(self) -> list[str]:
        """What is wrong with its parts; reads them all."""
        with ThreadPoolExecutor(_READERS) as pool:
            found = pool.map(self._fault, self.parts)
        return [fault for fault in found if fault]

    def load(self) -> Restored:
        """The run as it was. Tensors are read when they are asked for."""
        from mizzen.train.checkpoints.restore import restored_from_store

        return restored_from_store(self)

    def _fault(self, part: Part) -> str:
        files, path = self.store.files, f"{self.folder}/{part.file}"
        try:
            size = files.size(path)
            if size != part.size:
                return f"{part.file} has {size} bytes instead of {part.size}"
            if digest_of(files, path, size) != part.digest:
                return f"{part.file} has other bytes than were written"
        except FileNotFoundError:
            return f"{part.file} is missing"
        return ""


class Store:
    """The checkpoints below a URI: a path, file://, s3:// or another scheme of fsspec."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.files: Files = files_of(uri)

    def checkpoints(self) -> list[Checkpoint]:
        """The whole ones, newest first. OSError where the store is away."""
        found = [checkpoint for name in self._folders() if (checkpoint := self.open(name)) is not None]
        return sorted(found, key=lambda one: (-one.step, one.folder))

    def newest(self, *, below: int | None = None) -> Checkpoint | None:
        """The newest whose bytes are what was written. Corrupted ones are set aside, with a word in the log.

        `below` leaves out that step and later ones. Reads all parts of the one that it returns.
        """
        for name in self._folders():
            if below is not None and step_of(name) >= below:
                continue
            checkpoint = self.open(name)
            if checkpoint is None:
                continue
            faults = checkpoint.faults()
            if not faults:
                return checkpoint
            log.warning("checkpoint %s is corrupted, an older one is taken: %s", name, "; ".join(faults))
            self._set_aside(name)
        return None

    def open(self, folder: str) -> Checkpoint | None:
        """The checkpoint of a folder; None where it is not whole. Looks at no part."""
        try:
            manifest = json.loads(self.files.read(f"{folder}/{MANIFEST}"))
            parts = [Part(**part) for part in manifest["parts"]]
            return Checkpoint(self, folder, manifest["step"], manifest["world"], manifest["state"], parts)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            log.warning("checkpoint %s is no checkpoint: its %s cannot be read: %s", folder, MANIFEST, error)
            return None

    def write(self, origin: Origin, pieces: list[Piece], data: memoryview, keep: int) -> tuple[bool, int]:
        """Write a rank's part. Whether the checkpoint is whole with it, and the bytes written. OSError by the store."""
        name = part_name(origin.rank, origin.world)
        part = write_part(self.files, f"{origin.folder}/{name}", share(pieces, origin.rank, origin.world), data)
        self._put(f"{origin.folder}/{_note(name)}", asdict(part))
        whole = self._complete(origin)
        if whole:
            self._prune(keep, origin)
        return whole, part.size

    def _complete(self, origin: Origin) -> bool:
        names = [part_name(rank, origin.world) for rank in range(origin.world)]
        if not {_note(name) for name in names} <= set(self.files.names(origin.folder)):
            return False
        parts = [json.loads(self.files.read(f"{origin.folder}/{_note(name)}")) for name in names]
        manifest = {"step": origin.step, "world": origin.world, "group": origin.group, "state": origin.state}
        self._put(f"{origin.folder}/{MANIFEST}", {**manifest, "parts": parts})
        return True

    def _prune(self, keep: int, newest: Origin) -> None:
        """Remove whole ones beyond the `keep` newest, and what older writers left half done."""
        kept = 0
        for name in self._folders():
            if name == newest.folder:
                kept += 1
            elif step_of(name) < newest.step:
                whole = MANIFEST in self.files.names(name)
                if whole and kept < max(keep, 1):
                    kept += 1
                else:
                    self.files.remove(f"{name}/{MANIFEST}")  # first: half a checkpoint must not look like one
                    self.files.remove(name)

    def _folders(self) -> list[str]:
        names = [name for name in self.files.names("") if _FOLDER.fullmatch(name)]
        return sorted(names, key=lambda name: (step_of(name), name), reverse=True)

    def _set_aside(self, folder: str) -> None:
        try:
            manifest = self.files.read(f"{folder}/{MANIFEST}")
            self.files.write(f"{folder}/{BROKEN}", [manifest])
            self.files.remove(f"{folder}/{MANIFEST}")
        except OSError as error:
            log.warning("checkpoint %s could not be set aside: %s", folder, error)

    def _put(self, path: str, values: dict[str, Any]) -> None:
        self.files.write(path, [json.dumps(values).encode()])


def step_of(folder: str) -> int:
    match = _FOLDER.fullmatch(folder)
    assert match is not None, folder
    return int(match[1])


def _note(part: str) -> str:
    return part.removesuffix(".safetensors") + ".json"
