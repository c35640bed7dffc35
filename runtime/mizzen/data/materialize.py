"""`mizzen data materialize`: sources → split → fitted pipeline → arrays → one published, fingerprinted version."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars
import tokenizers

from mizzen.data import homes, making, papers, references, store
from mizzen.data import pipeline as pipelines
from mizzen.data.ahead import Behind
from mizzen.data.homes import Home
from mizzen.data.making import LocalRunner, Making, PartWriters, RowSource, Runner
from mizzen.data.notes import History, Known
from mizzen.data.pipeline import dtype_text
from mizzen.data.references import Reference
from mizzen.data.spool import Spool
from mizzen.data.steps.catalog import texts_of_spec
from mizzen.errors import UserError
from mizzen_api import contract
from mizzen_api.conditions import Reason
from mizzen_api.dataset import DatasetSpec, DriftStatus, ExpectationCounts
from mizzen_api.workload import NewestVersion

if TYPE_CHECKING:
    from mizzen.data.expectations import Outcome

log = logging.getLogger(__name__)

_LOGGED = 10  # of the rows that were set aside; the manifest has a hundred

OnProgress = Callable[[int, int], None]  # percentage, rows read so far


@dataclass(frozen=True)
class Version:
    """A published version, as the operator's status tells it."""

    fingerprint: str
    uri: str
    rows: int
    classes: tuple[str, ...]
    reused: bool
    number: int = 0  # as status.version counts
    bad_rows: int = 0
    dropped_rows: int = 0
    expectations: ExpectationCounts | None = None
    drift: DriftStatus | None = None
    drift_note: str = ""  # why drift is not known, where it should be


@dataclass(frozen=True)
class Request:
    """What to make, and what it is held against."""

    spec: DatasetSpec
    artifacts_uri: str
    namespace: str
    name: str
    secrets: Mapping[str, str] = field(default_factory=dict)
    previous: str | None = None  # URI of the version whose schema this one must keep
    reference: Reference | None = None  # what drift is measured against
    newest: NewestVersion | None = None  # what the status says; without a status, the history beside the versions
    source: RowSource | None = None  # instead of spec.sources

    @cached_property
    def home(self) -> Home:
        return homes.home_of(self.artifacts_uri, self.namespace, self.name)


def materialize(
    spec: DatasetSpec, artifacts_uri: str, namespace: str, name: str, on_progress: OnProgress = lambda *_: None
) -> Version:
    """As `make`, for the plain case."""
    return make(Request(spec, artifacts_uri, namespace, name), on_progress)


def make(
    request: Request,
    on_progress: OnProgress = lambda *_: None,
    runner: Callable[[RowSource], Runner] = lambda _: LocalRunner(),
    now: datetime | None = None,
) -> Version:
    """Make the version, or find it: the same bytes, spec and code give the same fingerprint, and then no work is done.

    `runner` chooses where, once it is clear that something has to be done.
    UserError where a source, an expectation or a step cannot be met; nothing is published then.
    """
    spec = request.spec
    source = request.source or _open(request)
    shape = shape_of(spec)
    known = Known(request.home)
    # What is old today was fresh yesterday: ages are judged anew, on the rows.
    ages = any(expectation.max_age is not None for expectation in spec.expectations)
    identity = "" if ages else source.identity()
    remembered = known.get(identity + shape) if identity else None
    if remembered is not None:
        log.info("the sources are as they were: %s", remembered)
        return _numbered(request, _reuse(request, remembered))
    chosen = runner(source)
    with request.home.scratch() as folder, Spool(folder, shared=request.home.shared) as spool:
        made = making.ingest(
            spec, source, spool, lambda rows: on_progress(_share(rows), rows), folder / contract.DATASET_REJECTED
        )
        outcome = made.suite.finish(now or datetime.now(UTC))
        outcome.check()
        fingerprint = f"sha256:{hashlib.sha256((shape + source.digest()).encode()).hexdigest()}"
        if homes.is_published(request.home, fingerprint.removeprefix("sha256:")):
            log.info("%s is there already", fingerprint)
            found = _reuse(request, fingerprint)
        else:
            making_of = _Publishing(request, made, source, outcome, chosen, on_progress)
            found = making_of.publish(fingerprint, folder)
    if identity:
        known.put(identity + shape, fingerprint)
    homes.prune(request.home, spec.keep, fingerprint.removeprefix("sha256:"))
    return _numbered(request, found)


def _numbered(request: Request, found: Version) -> Version:
    return replace(found, number=History(request.home).record(found.fingerprint, request.newest))


def _open(request: Request) -> RowSource:
    from mizzen.data.sources import open_sources

    spec = request.spec
    found: RowSource = open_sources(
        spec.sources,
        text_columns=texts_of_spec(spec.transforms),
        schema=spec.column_types,
        max_bad_rows=spec.max_bad_rows,
        secrets=request.secrets,
    )
    return found


def _reuse(request: Request, fingerprint: str) -> Version:
    version = fingerprint.removeprefix("sha256:")
    request.home.use(version)
    found, reference = describe(request.home, version, reused=True), request.reference
    if reference is None or reference.uri == found.uri:
        return found
    # The version is as it was; what it is compared with may not be, nor the settings.
    measured = references.measure(request.spec.drift, reference, store.DatasetVersion(found.uri).profile())
    return replace(found, drift=papers.drift_status(measured), drift_note=measured.note)


@dataclass(frozen=True)
class _Publishing:
    """The second half of a making: all rows are in the spool and keep their expectations."""

    request: Request
    made: Making
    source: RowSource
    outcome: Outcome
    runner: Runner
    on_progress: OnProgress

    def publish(self, fingerprint: str, scratch: Path) -> Version:
        made, rows = self.made, self.made.spool.rows
        _check_contract(self.request.previous, made)
        measured = references.measure(self.request.spec.drift, self.request.reference, made.profile)
        self.on_progress(50, rows)
        pipeline = making.fit(made, self.runner)
        self.on_progress(70, rows)
        home, version = self.request.home, fingerprint.removeprefix("sha256:")
        with home.publication(version) as draft:
            _write_parts(made, self.runner, draft)
            _check_parts(made)
            if (scratch / contract.DATASET_REJECTED).exists():
                shutil.move(scratch / contract.DATASET_REJECTED, draft / contract.DATASET_REJECTED)
            source, name = self.source, self.request.name
            bad_rows = [str(row) for row in source.bad_rows]
            for row in bad_rows[:_LOGGED]:
                log.warning("set aside: %s", row)
            papers.write(
                draft,
                papers.Papers(
                    made,
                    pipeline,
                    fingerprint,
                    self.outcome,
                    measured,
                    source.bad_row_count,
                    bad_rows,
                    source.origins(),
                    name,
                ),
            )
        self.on_progress(100, rows)
        return replace(describe(home, version, reused=False), drift_note=measured.note)


def _check_contract(previous: str | None, made: Making) -> None:
    """A column that later data lacks, or has of another type, breaks whoever trained on it."""
    if previous is None:
        return
    from mizzen.data.sources import check_contract

    then = store.DatasetVersion(previous).manifest["schema"]
    broken = check_contract(then, {name: dtype_text(dtype) for name, dtype in made.raw.schema.items()})
    if broken:
        raise UserError(
            Reason.SCHEMA_BROKEN,
            f"the sources break the schema of the version before: {'; '.join(broken)}. Mend the data, or edit the spec "
            "to begin a new schema",
        )


def _check_parts(made: Making) -> None:
    """A part that was asked for has rows: training measures itself on them."""
    for name in contract.SPLITS:
        if getattr(made.spec.split, name) > 0 and not made.rows[name]:
            raise UserError(
                Reason.SOURCE_MALFORMED,
                f"the {name} split gets none of the {made.spool.rows} rows: give more data, or other fractions; equal "
                "rows stay together",
            )


def _share(rows: int) -> int:
    """Progress of a reading whose end is not known: never back, never at the end."""
    return min(49, round(50 * rows / (rows + 1_000_000)))


def shape_of(spec: DatasetSpec) -> str:
    """The part of the spec that shapes the data, and the code that makes it, as text.

    Splits follow polars' hash and token ids follow tokenizers: their versions are part of the code.
    """
    reading = {"sources", "column_types", "max_bad_rows", "expectations"}
    making_ = {"transforms", "target", "target_type", "split"}
    shape = spec.model_dump(mode="json", by_alias=True, include=reading | making_, exclude_none=True)
    shape["sources"] = [_reading(source) for source in shape["sources"]]
    code = {"format": pipelines.FORMAT, "polars": polars.__version__, "tokenizers": tokenizers.__version__}
    return json.dumps({"code": code, "spec": shape}, sort_keys=True)


def _reading(source: dict[str, Any]) -> dict[str, Any]:
    """How a source is read. Where it lies changes nothing, nor by which name a join has its columns."""
    kept = {key: value for key, value in source.items() if key not in ("uri", "sql", "labels", "secretRef")}
    if "keys" in kept.get("join", {}):
        kept["join"] = {**kept["join"], "on": kept["join"]["keys"]}
        del kept["join"]["keys"]
    return kept


def _write_parts(made: Making, runner: Runner, draft: Path) -> None:
    writers = PartWriters(draft / contract.DATASET_DATA, len(made.target.classes))
    try:
        with Behind[tuple[int, "polars.DataFrame"]](lambda item: writers.write(*item)) as behind:
            runner.transform(made, lambda _, part, frame: behind((part, frame)))
    finally:
        writers.close()
    made.rows = writers.rows
    names = made.target.classes
    counted = writers.labels.items() if names else ()
    made.class_counts = {part: dict(zip(names, counts.tolist(), strict=True)) for part, counts in counted}


def describe(home: Home, version: str, *, reused: bool) -> Version:
    """A published version by its manifest."""
    manifest = homes.manifest_of(home, version)
    counts, drifted = manifest.get("expectations"), manifest.get("drift")
    return Version(
        fingerprint=manifest["fingerprint"],
        uri=home.uri(version),
        rows=sum(manifest["rows"].values()),
        classes=tuple(manifest["classes"]),
        reused=reused,
        bad_rows=manifest["badRows"],
        dropped_rows=manifest["droppedRows"],
        expectations=ExpectationCounts.model_validate(counts) if counts else None,
        drift=DriftStatus.model_validate(drifted) if drifted else None,
    )
