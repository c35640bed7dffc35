"""A published version as a diff reads it: its papers, never its rows; found by folder, URI, or NAME@VERSION."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mizzen.data.expectations.results import Outcome
from mizzen.data.homes import open_home
from mizzen.errors import SystemError_, UserError
from mizzen_api import contract
from mizzen_api.conditions import Reason
from mizzen_api.dataset_drift import Drift

if TYPE_CHECKING:
    from mizzen.data.profiles import Profile

NEWEST = ("latest", "previous")
_NAME_AT_VERSION = re.compile(r"([a-z0-9]([-a-z0-9]*[a-z0-9])?)@([A-Za-z0-9:]+)")


@dataclass(frozen=True)
class Snapshot:
    """What the papers of one version say. What an older version did not write is empty."""

    uri: str
    fingerprint: str
    rows: dict[str, int]
    target: str = ""
    classes: tuple[str, ...] = ()
    schema: dict[str, str] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    sources: dict[str, str] = field(default_factory=dict)  # URI to rows and digest, "" where they were not recorded
    steps: tuple[dict[str, Any], ...] = ()
    outcome: Outcome | None = None
    profile: Profile | None = None
    profile_note: str = ""  # why there is no profile
    counts: dict[str, int] = field(default_factory=dict)  # bad and dropped rows
    code_version: str = ""
    drift_settings: Drift | None = None  # of the spec that it was made by


def load(uri: str | Path) -> Snapshot:
    """Read a version's papers. UserError where there is no version."""
    from mizzen.data.profiles import Profile

    where = str(uri)
    read = _reader(where)
    manifest_text = read(contract.DATASET_MANIFEST)
    if manifest_text is None:
        raise UserError(
            Reason.SOURCE_UNREADABLE,
            f"there is no dataset version at {where}: it holds no {contract.DATASET_MANIFEST}; name the folder of one "
            "version, or NAME@VERSION with --artifacts",
        )
    manifest = _json(where, contract.DATASET_MANIFEST, manifest_text)
    pipeline = _json(where, contract.DATASET_PIPELINE, read(contract.DATASET_PIPELINE) or b"{}")
    outcome, profile_text = read(contract.DATASET_EXPECTATIONS), read(contract.DATASET_PROFILE)
    profile, note = None, "it has no profile"
    if profile_text is not None:
        try:
            profile, note = Profile.from_json(profile_text), ""
        except (ValueError, KeyError, TypeError) as error:
            note = f"its profile cannot be read: {error}"
    return Snapshot(
        uri=where,
        fingerprint=manifest["fingerprint"],
        rows=dict(manifest["rows"]),
        target=manifest.get("target", ""),
        classes=tuple(manifest.get("classes", ())),
        schema=dict(manifest.get("schema", {})),
        features=tuple(manifest.get("features", ())),
        sources=dict(_source(source) for source in manifest.get("sources", ())),
        steps=tuple(pipeline.get("steps", ())),
        outcome=Outcome.from_json(outcome) if outcome is not None else None,
        profile=profile,
        profile_note=note,
        counts={name: int(manifest.get(name, 0)) for name in ("badRows", "droppedRows")},
        code_version=manifest.get("codeVersion", ""),
        drift_settings=Drift.model_validate(manifest["driftSettings"]) if "driftSettings" in manifest else None,
    )


def _source(source: Any) -> tuple[str, str]:
    if isinstance(source, str):
        return source, ""
    rows, digest = source.get("rows"), source.get("digest", "").removeprefix("sha256:")[:12]
    return source.get("uri", ""), ", ".join([*([f"{rows:,} rows"] if rows is not None else []), digest])


def _json(where: str, name: str, text: bytes) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise UserError(Reason.SOURCE_MALFORMED, f"{where}/{name} is not JSON: {error}") from error
    return document


def _reader(where: str) -> Callable[[str], bytes | None]:
    """Reads a file of the folder by its name; None where it is not there."""

    def read(name: str) -> bytes | None:
        try:
            return open_home(where.rstrip("/")).read(name)
        except (SystemError_, OSError) as error:
            raise UserError(Reason.SOURCE_UNREADABLE, f"cannot read {where}/{name}: {error}") from error

    return read


def locate(reference: str, artifacts_uri: str = "", namespace: str = "default") -> str:
    """The folder that a reference names: itself, or for NAME@VERSION the one below the artifacts folder.

    VERSION is a number of status.version, the beginning of a fingerprint, latest, or previous. UserError names the
    versions there are.
    """
    match = _NAME_AT_VERSION.fullmatch(reference)
    if match is None or Path(reference).exists():
        return reference
    name, wanted = match[1], match[3].removeprefix("sha256:")
    if not artifacts_uri:
        raise UserError(
            Reason.INVALID_PARAMETERS,
            f"{reference} lies in an artifacts folder: name it with --artifacts or ${contract.ENV_ARTIFACTS_URI}",
        )
    home = f"{artifacts_uri.rstrip('/')}/datasets/{namespace}/{name}"
    versions, numbers = _versions(home), _numbers(home)
    found = _named(wanted, versions, numbers)
    if len(found) == 1:
        return f"{home}/{found[0]}"
    told = {version: number for number, version in numbers.items()}
    listed = [f"{told[version]} ({version[:12]})" if version in told else version[:12] for version in versions[:10]]
    problem = "there is no version" if not found else f"{len(found)} versions begin like"
    raise UserError(
        Reason.SOURCE_UNREADABLE,
        f"{problem} {reference}: {home} holds {', '.join(listed) or 'none'}; name one by its number, or by how its "
        "fingerprint begins",
    )


def _named(wanted: str, versions: list[str], numbers: Mapping[int, str]) -> list[str]:
    """Versions that a word may mean; a number that the Dataset has counted to is one, whatever fingerprints say."""
    if wanted in NEWEST:
        place = NEWEST.index(wanted)
        counted = [version for _, version in sorted(numbers.items(), reverse=True) if version in versions]
        return (counted or versions)[place : place + 1]
    if wanted.isdecimal() and int(wanted) in numbers:
        return [version for version in versions if version == numbers[int(wanted)]]
    return [version for version in versions if version.startswith(wanted)]


def _numbers(home: str) -> dict[int, str]:
    """Fingerprints by number, as notes.History wrote them."""
    text = _reader(home)(contract.DATASET_VERSIONS)
    try:
        entries = json.loads(text or b"{}")
        return {int(number): str(fingerprint).removeprefix("sha256:") for number, fingerprint in entries.items()}
    except (ValueError, AttributeError):
        return {}


def _versions(home: str) -> list[str]:
    """The published versions, the one that was made or used last first."""
    try:
        return open_home(home).versions()
    except (SystemError_, OSError) as error:
        raise UserError(Reason.SOURCE_UNREADABLE, f"cannot list {home}: {error}") from error
