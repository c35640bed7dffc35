"""Dataset versions at rest: where they lie, how one is published whole or not at all, how one is read back."""

from __future__ import annotations

import json
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mizzen.data.pipeline import IDS, LENGTHS, Pipeline
from mizzen.errors import SystemError_
from mizzen_api import contract

if TYPE_CHECKING:
    import torch

LABEL = "label"
RAW = "raw."  # prefix of the source columns that features were made from


def local_folder(uri: str) -> Path:
    """The path behind file:// or a plain path. Other stores are fetched by their own means."""
    if "://" in uri and not uri.startswith("file://"):
        raise SystemError_(f"artifact store {uri}: only file:// and paths (a mounted volume) are supported")
    return Path(uri.removeprefix("file://"))


def version_folder(artifacts_uri: str, namespace: str, name: str, fingerprint: str) -> Path:
    digest = fingerprint.removeprefix("sha256:")
    return local_folder(artifacts_uri) / "datasets" / namespace / name / digest


def is_published(folder: Path) -> bool:
    return (folder / contract.DATASET_MANIFEST).is_file()


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
                if self.folder.exists():  # a broken rest, or another pod was faster
                    shutil.rmtree(self.folder) if not is_published(self.folder) else None
                if not self.folder.exists():
                    self.draft.rename(self.folder)
        finally:
            shutil.rmtree(self.draft, ignore_errors=True)


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

    def part(self, split: str) -> Part:
        """Read one of contract.SPLITS."""
        import pyarrow.parquet as pq

        file = self.folder / contract.DATASET_DATA / f"{split}.parquet"
        table = pq.read_table(file, columns=[IDS, LENGTHS, LABEL], use_threads=False)
        width = self.pipeline.max_length
        ids = table[IDS].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return Part(
            # Copies: arrays over Arrow's buffers are read-only, which torch refuses to share.
            ids=ids.reshape(-1, width).copy(),
            lengths=table[LENGTHS].to_numpy().copy(),
            labels=table[LABEL].to_numpy().astype(np.int64),
        )


def write_part(folder: Path, split: str, part: Part, raw: dict[str, list[str]]) -> None:
    """Parquet with fixed-size lists of token ids, lengths, labels, and the raw columns that they were made from."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    width = part.ids.shape[1]
    table = pa.table(
        {
            IDS: pa.FixedSizeListArray.from_arrays(pa.array(part.ids.reshape(-1)), width),
            LENGTHS: pa.array(part.lengths),
            LABEL: pa.array(part.labels.astype(np.int32)),
            **{f"{RAW}{column}": pa.array(values, pa.string()) for column, values in raw.items()},
        }
    )
    target = folder / contract.DATASET_DATA
    target.mkdir(exist_ok=True)
    pq.write_table(table, target / f"{split}.parquet", compression="zstd")
