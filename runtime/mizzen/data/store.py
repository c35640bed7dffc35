"""Dataset versions at rest, opened for reading; homes.py knows where they lie."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mizzen.data.homes import RemoteHome, open_home
from mizzen.data.pipeline import Arrays, Pipeline, arrays
from mizzen.data.publication import Publication, is_published, local_folder
from mizzen.errors import SystemError_
from mizzen_api import contract

if TYPE_CHECKING:
    import polars as pl
    import torch

    from mizzen.data.profiles import Profile

__all__ = ["LABEL", "RAW", "DatasetVersion", "Part", "Publication", "is_published", "local_folder"]

LABEL = "label"
RAW = "raw."  # prefix of the source columns that features were made from


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


def _cache() -> Path:
    """This user's own: on a machine that others share, they must not put files there."""
    folder = Path(tempfile.gettempdir()) / f"mizzen-datasets-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise SystemError_(f"{folder} belongs to another user: set TMPDIR to a folder of your own")
    return folder


class DatasetVersion:
    """A published version, opened for reading.

    One in an object store is fetched file by file, as it is asked for, into a cache: versions never change.
    """

    def __init__(self, uri: str, cache: Path | None = None) -> None:
        home, _, version = uri.rstrip("/").rpartition("/")
        self._home, self._version = open_home(home), version
        if isinstance(self._home, RemoteHome):
            self.folder = (cache or _cache()) / hashlib.sha256(uri.encode()).hexdigest()[:16] / version
        else:
            self.folder = local_folder(uri)
        if self.paper(contract.DATASET_MANIFEST) is None:
            raise SystemError_(f"there is no dataset version at {uri}: was it deleted, or is the volume not mounted?")
        self.manifest: dict[str, Any] = json.loads((self.folder / contract.DATASET_MANIFEST).read_bytes())
        self.paper(contract.DATASET_PIPELINE)
        self.pipeline = Pipeline.load(self.folder / contract.DATASET_PIPELINE)

    def paper(self, name: str) -> Path | None:
        """A file of the version by its name; None where it has none such."""
        path = self.folder / name
        if path.is_file():
            return path
        fetched = isinstance(self._home, RemoteHome) and self._home.download(f"{self._version}/{name}", path)
        return path if fetched else None

    @property
    def classes(self) -> tuple[str, ...]:
        return self.pipeline.classes

    def profile(self) -> Profile:
        from mizzen.data.profiles import Profile

        self.paper(contract.DATASET_PROFILE)
        return Profile.from_json((self.folder / contract.DATASET_PROFILE).read_bytes())

    def file(self, split: str) -> Path:
        name = f"{contract.DATASET_DATA}/{split}.parquet"
        self.paper(name)
        return self.folder / name

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
