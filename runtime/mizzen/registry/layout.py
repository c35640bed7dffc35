"""The folder that `mizzen export` writes for GitOps, and what is checked of one before it is imported.

    models/v4.0/
      config.yaml        model, training, metrics, where it came from, and the digest of each file
      dataset_hash.txt   fingerprint of the Dataset's version
      checkpoint/        safetensors, JSON, the pipeline, and code of one's own
      .gitattributes     weights go to Git LFS

Nothing in it depends on when or where it was exported: the same version gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from mizzen.errors import UserError
from mizzen_api import contract
from mizzen_api.conditions import Reason

FORMAT = 1
CONFIG, HASH, CHECKPOINT, ATTRIBUTES = "config.yaml", "dataset_hash.txt", "checkpoint", ".gitattributes"
# Git must not change ends of lines, which the digests count.
ATTRIBUTES_TEXT = f"* -text\n{CHECKPOINT}/*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
ORIGIN = "origin.json"  # beside a model that was trained without a run: what a run would say
# Files of a registered version that name its run, and leavings: they are made anew.
LEFT_OUT = ("MLmodel", "registered_model_meta", "__pycache__", ORIGIN)
TRIPLE = {
    "datasetFingerprint": contract.TAG_DATASET_FINGERPRINT,
    "codeRevision": contract.TAG_CODE_REVISION,
    "configHash": contract.TAG_CONFIG_HASH,
}
SUFFIXES = frozenset({".safetensors", ".json", ".py"})  # none of them is ever unpickled
_POINTER = b"version https://git-lfs.github.com/spec/"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Exported:
    """What config.yaml says besides the digests."""

    provenance: dict[str, str] = field(default_factory=dict)  # by the names of TRIPLE
    parameters: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


def leave_origin(folder: Path, origin: Exported) -> None:
    """For the export of a model that has no run."""
    (folder / ORIGIN).write_text(json.dumps(asdict(origin), indent=1, sort_keys=True))


def origin_of(folder: Path) -> Exported:
    """What is known of a model in a folder: by config.yaml of an exported one, once checked, or by `leave_origin`."""
    if (folder / CONFIG).is_file():
        return read(folder)
    path = folder / ORIGIN
    return Exported(**json.loads(path.read_bytes())) if path.is_file() else Exported()


def holds_model(folder: Path) -> bool:
    """Whether it is one that `mizzen export` or a training wrote."""
    return (folder / CONFIG).is_file() or (folder / contract.MODEL_CONFIG).is_file()


def model_in(folder: Path) -> Path:
    """Where weights, configuration and pipeline lie: here, or in checkpoint/ of an exported folder, once checked."""
    if not (folder / CONFIG).is_file():
        return folder
    read(folder)
    return folder / CHECKPOINT


def files_of(folder: Path) -> Iterator[Path]:
    """Those that are the model, relative to the folder and in order."""
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and not any(part in LEFT_OUT for part in relative.parts):
            yield relative


def check_kinds(folder: Path) -> None:
    """UserError where a folder is no model of ours, or holds what a pickle may be in."""
    if not (folder / contract.MODEL_CONFIG).is_file():
        raise _bad(folder, f"holds no {contract.MODEL_CONFIG}: this is no model of Mizzen's")
    for path in files_of(folder):
        if path.suffix not in SUFFIXES:
            raise _bad(folder / path, f"does not belong to a model, whose files are {', '.join(sorted(SUFFIXES))}")


def write_papers(folder: Path, about: Exported) -> None:
    """Write everything beside checkpoint/, which is there."""
    checkpoint = folder / CHECKPOINT
    document = {
        "format": FORMAT,
        "provenance": dict(sorted(about.provenance.items())),
        "parameters": dict(sorted(about.parameters.items())),
        "metrics": dict(sorted(about.metrics.items())),
        "files": {f"{CHECKPOINT}/{path.as_posix()}": _digest(checkpoint / path) for path in files_of(checkpoint)},
    }
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)
    (folder / CONFIG).write_text(f"# Written by `mizzen export`; `mizzen import` checks each digest.\n{text}")
    (folder / HASH).write_text(about.provenance.get("datasetFingerprint", "") + "\n")
    (folder / ATTRIBUTES).write_text(ATTRIBUTES_TEXT)


def read(folder: Path) -> Exported:
    """What the folder says, once all of it is as it was exported. UserError names the file that is not."""
    document = _document(folder / CONFIG)
    _check_files(folder, document["files"])
    provenance = {str(key): str(value) for key, value in document["provenance"].items()}
    said = (folder / HASH).read_text().strip() if (folder / HASH).exists() else ""
    if said != provenance.get("datasetFingerprint", ""):
        raise _bad(folder / HASH, f"says {said or 'nothing'}, {CONFIG} {provenance.get('datasetFingerprint')}")
    parameters = {str(key): str(value) for key, value in document["parameters"].items()}
    return Exported(provenance, parameters, {str(k): float(v) for k, v in document["metrics"].items()})


def _document(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise _bad(path, "is not there: name a folder that `mizzen export` wrote")
    try:
        document = yaml.safe_load(path.read_bytes())
    except yaml.YAMLError as error:
        raise _bad(path, f"is no YAML: {str(error).splitlines()[0]}") from error
    parts = ("provenance", "parameters", "metrics", "files")
    if not isinstance(document, dict) or not all(isinstance(document.get(part), dict) for part in parts):
        raise _bad(path, f"must hold the mappings {', '.join(parts)}")
    if document.get("format") != FORMAT:
        raise _bad(path, f"has format {document.get('format')!r}; this version of mizzen reads {FORMAT}")
    return document


def _check_files(folder: Path, digests: Mapping[str, str]) -> None:
    there = {f"{CHECKPOINT}/{path.as_posix()}" for path in files_of(folder / CHECKPOINT)}
    for name, digest in digests.items():
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or pure.parts[:1] != (CHECKPOINT,):
            raise _bad(folder / CONFIG, f"names the file {name!r}, which does not lie in {CHECKPOINT}/")
        if name not in there:
            raise _bad(folder / name, "is not there")
        with (folder / name).open("rb") as file:
            if file.read(len(_POINTER)) == _POINTER:
                raise _bad(folder / name, "is a pointer of Git LFS and not the file: run `git lfs pull`")
        if _digest(folder / name) != digest:
            raise _bad(folder / name, "is not what was exported: its digest differs")
    if extra := sorted(there - set(digests)):
        raise _bad(folder / extra[0], f"is not among the files of {CONFIG}: remove it")
    check_kinds(folder / CHECKPOINT)


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return f"sha256:{found.hexdigest()}"


def _bad(path: Path, what: str) -> UserError:
    return UserError(Reason.INVALID_PARAMETERS, f"{path} {what}")
