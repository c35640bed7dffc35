"""`mizzen data materialize`: sources → split → fitted pipeline → arrays → one published, fingerprinted version."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import mizzen
from mizzen.data import pipeline as pipelines
from mizzen.data import profile as profiles
from mizzen.data import sources, split, store
from mizzen.errors import UserError
from mizzen_api import contract
from mizzen_api.conditions import Reason
from mizzen_api.dataset import DatasetSpec

log = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]  # percentage, rows read so far


@dataclass(frozen=True)
class Version:
    """A published version, as the operator's status tells it."""

    fingerprint: str
    uri: str
    rows: int
    classes: tuple[str, ...]
    reused: bool


def materialize(
    spec: DatasetSpec, artifacts_uri: str, namespace: str, name: str, on_progress: OnProgress = lambda *_: None
) -> Version:
    """Make the version, or find it: the same bytes, spec and code give the same fingerprint, and then no work is done.

    UserError where a source cannot be used; nothing is published then.
    """
    raw = [sources.read(source.uri) for source in spec.sources]
    fingerprint = fingerprint_of(spec, raw)
    folder = store.version_folder(artifacts_uri, namespace, name, fingerprint)
    if store.is_published(folder):
        log.info("%s is there already", folder)
        return _describe(folder, reused=True)
    step = pipelines.the_tokenize_step(spec.transforms)
    tables = []
    for number, file in enumerate(raw, start=1):
        tables.append(sources.parse(file, spec.target, [step.column]))
        on_progress(round(30 * number / len(raw)), sum(table.frame.height for table in tables))
    texts = [text or "" for table in tables for text in table.frame[step.column].to_list()]
    labels = [label.strip() for table in tables for label in table.frame[spec.target].to_list()]
    classes = sorted(set(labels))
    if len(classes) < 2:
        raise UserError(
            Reason.SOURCE_MALFORMED,
            f"the target column {spec.target!r} holds only the value {classes[0]!r}: classification needs two or more",
        )
    assigned = split.assign(texts, labels, spec.split)
    train = [text for text, part in zip(texts, assigned, strict=True) if part == contract.SPLITS[0]]
    fitted = pipelines.fit(step, train, spec.target, classes)
    on_progress(60, len(texts))
    rows = _rows(assigned, spec.split.seed)
    parts = _parts(fitted, texts, labels, rows)
    raw_texts = {name: [texts[row] for row in chosen] for name, chosen in rows.items()}
    on_progress(90, len(texts))
    with store.Publication(folder) as draft:
        for split_name, part in parts.items():
            store.write_part(draft, split_name, part, {step.column: raw_texts[split_name]})
        _write(draft, fitted, parts, spec, fingerprint, [table.undecodable for table in tables])
    on_progress(100, len(texts))
    return _describe(folder, reused=False)


def fingerprint_of(spec: DatasetSpec, raw: list[sources.RawFile]) -> str:
    """sha256 over the sources' bytes, the part of the spec that shapes the data, and the pipeline's format."""
    digest = hashlib.sha256()
    shape = spec.model_dump(mode="json", by_alias=True, include={"transforms", "target", "split"})
    digest.update(json.dumps({"format": pipelines.FORMAT, "spec": shape}, sort_keys=True).encode())
    for file in raw:
        digest.update(hashlib.sha256(file.content).digest())
    return f"sha256:{digest.hexdigest()}"


def _rows(assigned: list[str], seed: int) -> dict[str, np.ndarray]:
    """Row numbers of each part, shuffled once here, so that any head of a part is a fair sample."""
    names = np.array(assigned)
    return {name: np.random.default_rng(seed).permutation(np.flatnonzero(names == name)) for name in contract.SPLITS}


def _parts(
    fitted: pipelines.Pipeline, texts: list[str], labels: list[str], rows: dict[str, np.ndarray]
) -> dict[str, store.Part]:
    arrays = fitted.transform_texts(texts)
    ids_of = {name: index for index, name in enumerate(fitted.classes)}
    label_ids = np.array([ids_of[label] for label in labels], dtype=np.int64)
    return {
        name: store.Part(arrays[pipelines.IDS][chosen], arrays[pipelines.LENGTHS][chosen], label_ids[chosen])
        for name, chosen in rows.items()
    }


def _write(
    draft: Path,
    fitted: pipelines.Pipeline,
    parts: dict[str, store.Part],
    spec: DatasetSpec,
    fingerprint: str,
    undecodable: list[int],
) -> None:
    (draft / contract.DATASET_PIPELINE).write_text(fitted.to_json())
    profile = profiles.profile(parts, fitted.classes, sum(undecodable))
    (draft / contract.DATASET_PROFILE).write_text(json.dumps(profile, indent=1))
    manifest = {
        "fingerprint": fingerprint,
        "rows": {name: len(part) for name, part in parts.items()},
        "classes": list(fitted.classes),
        "target": spec.target,
        "columns": list(fitted.columns),
        "schema": {
            pipelines.IDS: f"list<int32>[{fitted.max_length}]",
            pipelines.LENGTHS: "int32",
            store.LABEL: "int32",
            **{f"{store.RAW}{column}": "string" for column in fitted.columns},
        },
        "vocabSize": fitted.vocab_size,
        "sources": [source.uri for source in spec.sources],
        "codeVersion": mizzen.__version__,
        "pipelineFormat": pipelines.FORMAT,
    }
    (draft / contract.DATASET_MANIFEST).write_text(json.dumps(manifest, indent=1))  # last: it marks the version whole


def _describe(folder: Path, *, reused: bool) -> Version:
    manifest = json.loads((folder / contract.DATASET_MANIFEST).read_bytes())
    return Version(
        fingerprint=manifest["fingerprint"],
        uri=folder.absolute().as_uri(),
        rows=sum(manifest["rows"].values()),
        classes=tuple(manifest["classes"]),
        reused=reused,
    )
