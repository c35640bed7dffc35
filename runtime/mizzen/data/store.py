"""Dataset versions at rest: where they lie, how one is published whole or not at all, how one is read back."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mizzen.data.pipeline import Arrays, Pipeline, arrays
from mizzen.errors import SystemError_
from mizzen_api import contract
from mizzen_api.workload import NewestVersion

if TYPE_CHECKING:
    import polars as pl
    import torch

    from mizzen.data.profiles import Profile

LABEL = "label"
_ABANDONED = 24 * 3600.0  # seconds after which a scratch folder is nobody's
RAW = "raw."  # prefix of the source columns that features were made from


def local_folder(uri: str) -> Path:
    """The path behind file:// or a plain path. Other stores are fetched by their own means."""
    if "://" in uri and not uri.startswith("file://"):
        raise SystemError_(f"artifact store {uri}: only file:// and paths (a mounted volume) are supported")
    return Path(uri.removeprefix("file://"))


def dataset_folder(artifacts_uri: str, namespace: str, name: str) -> Path:
    """Where the versions of a Dataset lie."""
    return local_folder(artifacts_uri) / "datasets" / namespace / name


def is_published(folder: Path) -> bool:
    return (folder / contract.DATASET_MANIFEST).is_file()


@contextmanager
def scratch(home: Path) -> Iterator[Path]:
    """A hidden folder beside the versions: on the same file system, and gone afterwards. So are those of dead pods."""
    home.mkdir(parents=True, exist_ok=True)
    for left in home.glob(".scratch-*"):
        with contextlib.suppress(FileNotFoundError):  # its maker has just ended
            if time.time() - left.stat().st_mtime > _ABANDONED:
                shutil.rmtree(left, ignore_errors=True)
    folder = home / f".scratch-{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            home.rmdir()  # where nothing was published, nothing is left


class Notes:
    """A small JSON file of texts by keys beside the versions. What cannot be read is empty: notes only save work."""

    MOST = 1000

    def __init__(self, file: Path) -> None:
        self._file = file

    def all(self) -> dict[str, str]:
        try:
            found: dict[str, str] = json.loads(self._file.read_bytes())
        except (OSError, ValueError):
            return {}
        return found

    def get(self, key: str) -> str | None:
        return self.all().get(key)

    def put(self, key: str, value: str) -> None:
        if self.get(key) != value:
            self.write(self.all() | {key: value})

    def write(self, entries: Mapping[str, str]) -> None:
        draft = self._file.with_suffix(f".{secrets.token_hex(4)}")
        draft.write_text(json.dumps(dict(list(entries.items())[-self.MOST :])))
        draft.replace(self._file)


class Known:
    """Fingerprints by what the sources looked like from outside: sizes, times, ETags. Unchanged ones are not read."""

    def __init__(self, home: Path) -> None:
        self._home, self._notes = home, Notes(home / ".known.json")

    def get(self, identity: str) -> str | None:
        """The fingerprint of a version that is still there."""
        found = self._notes.get(_digest(identity))
        return found if found and is_published(self._home / found.removeprefix("sha256:")) else None

    def put(self, identity: str, fingerprint: str) -> None:
        self._notes.put(_digest(identity), fingerprint)


class History:
    """Fingerprints by the numbers that versions have in a Dataset's status."""

    def __init__(self, home: Path) -> None:
        self._notes = Notes(home / contract.DATASET_VERSIONS)

    def all(self) -> dict[int, str]:
        return {int(number): fingerprint for number, fingerprint in self._notes.all().items()}

    def record(self, fingerprint: str, newest: NewestVersion | None) -> int:
        """The version's number: that of the newest where it is the same, else the next.

        `newest` is what the status says. Without a status the history knows; a Dataset of the same name that was
        deleted leaves no numbers above.
        """
        there = self.all()
        if newest is None:
            last = max(there, default=0)
            newest = NewestVersion(version=last, fingerprint=there.get(last, ""))
        number = newest.version + (fingerprint != newest.fingerprint)
        wanted = {n: kept for n, kept in there.items() if n < number} | {number: fingerprint}
        if wanted != there:
            self._notes.write({str(n): kept for n, kept in sorted(wanted.items())})
        return number


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def prune(home: Path, keep: int, current: str) -> None:
    """Remove the versions that were used longest ago, beyond `keep`; never the current one."""
    versions = [folder for folder in home.iterdir() if not folder.name.startswith(".") and is_published(folder)]
    versions.sort(key=lambda folder: (folder / contract.DATASET_MANIFEST).stat().st_mtime, reverse=True)
    for folder in versions[keep:]:
        if folder.name != current.removeprefix("sha256:"):
            (folder / contract.DATASET_MANIFEST).unlink()  # first: half a version must not look like one
            shutil.rmtree(folder, ignore_errors=True)


class Publication:
    """A folder that appears under its name only when it is complete.

    with Publication(folder) as draft: ...write into draft...
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.draft = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")

    def __enter__(self) -> Path:
        self.draft.mkdir(parents=True)
        return self.draft

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._appear()
        finally:
            shutil.rmtree(self.draft, ignore_errors=True)

    def _appear(self) -> None:
        """Take the name, unless another maker was faster; what lies there half-written goes."""
        while not is_published(self.folder):
            try:
                self.draft.rename(self.folder)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                if not is_published(self.folder):
                    shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class Part:
    """One split in memory: `ids` (rows, max_length) int32, `lengths` (rows,) int32, `labels` (rows,) int64."""

    ids: np.ndarray[Any, Any]
    lengths: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]

    def __len__(self) -> int:
        return len(self.labels)

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        import torch

        return torch.from_numpy(self.ids), torch.from_numpy(self.lengths), torch.from_numpy(self.labels)

    def head(self, fraction: float) -> Part:
        """The first part of the rows; they lie in shuffled order, so it is a sample."""
        rows = max(1, round(len(self) * fraction))
        return Part(self.ids[:rows], self.lengths[:rows], self.labels[:rows])


class DatasetVersion:
    """A published version, opened for reading."""

    def __init__(self, uri: str) -> None:
        self.folder = local_folder(uri)
        if not is_published(self.folder):
            raise SystemError_(f"there is no dataset version at {uri}: was it deleted, or is the volume not mounted?")
        self.manifest: dict[str, Any] = json.loads((self.folder / contract.DATASET_MANIFEST).read_bytes())
        self.pipeline = Pipeline.load(self.folder / contract.DATASET_PIPELINE)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.pipeline.classes

    def profile(self) -> Profile:
        from mizzen.data.profiles import Profile

        return Profile.from_json((self.folder / contract.DATASET_PROFILE).read_bytes())

    def file(self, split: str) -> Path:
        return self.folder / contract.DATASET_DATA / f"{split}.parquet"

    def frame(self, split: str, columns: list[str] | None = None) -> pl.DataFrame:
        """One of contract.SPLITS as it is stored: features in compact form, `label`, and `raw.` columns."""
        import polars as pl

        return pl.read_parquet(self.file(split), columns=columns)

    def arrays(self, split: str) -> Arrays:
        """The arrays of pipeline.arrays, and `label` (rows,): int64 ids of classes, or float64 numbers."""
        frame = self.frame(split)
        labels = frame[LABEL].to_numpy()
        labels = labels.astype(np.int64 if self.pipeline.target.is_class else np.float64)
        return {**arrays(frame, self.pipeline.features), LABEL: labels}

    def part(self, split: str) -> Part:
        """One of contract.SPLITS for a text model; UserError where no column is tokenised."""
        (name,) = self.pipeline.tokens.columns
        frame = self.frame(split, [name, f"{name}_length", LABEL])
        # Copies: arrays over Arrow's buffers are read-only, which torch refuses to share.
        return Part(
            ids=np.array(frame[name].explode().to_numpy(), np.int32).reshape(-1, self.pipeline.max_length)[
                : len(frame)
            ],
            lengths=frame[f"{name}_length"].to_numpy().copy(),
            labels=frame[LABEL].to_numpy().astype(np.int64),
        )
