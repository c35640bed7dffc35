"""What has changed between two versions, read from their papers: as values, as text, as JSON, from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import fsspec
import polars as pl
import pytest
from rich.console import Console
from typer.testing import CliRunner

from mizzen.cli import app
from mizzen.data.diff import Change, Count, VersionDiff, compare_versions, locate
from mizzen.data.diff.tables import render
from mizzen.data.materialize import materialize
from mizzen.errors import UserError
from mizzen_api import contract
from mizzen_api.conditions import Reason
from mizzen_api.dataset import DatasetSpec
from mizzen_api.dataset_drift import Drift


def table(rows: int, shift: float = 0.0, kinds: str = "abc") -> pl.DataFrame:
    return pl.DataFrame(
        {
            "number": list(range(rows)),
            "size": [(row * 37 % 101) / 7 + shift for row in range(rows)],
            "kind": [kinds[row % len(kinds)] for row in range(rows)],
            "label": ["no" if row % 3 else "yes" for row in range(rows)],
        }
    )


EXPECTATIONS = [
    {"column": "size", "min": 0, "max": 16, "onViolation": "Drop"},
    {"column": "kind", "values": ["a", "b", "c"], "onViolation": "Warn"},
    {"minRows": 100},
]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("diff")


def make(artifacts: Path, source: str, frame: pl.DataFrame, **changes: Any) -> str:
    file = artifacts / source
    frame.write_csv(file)
    spec = {
        "sources": [{"uri": str(file)}],
        "target": "label",
        "transforms": [{"scale": {"columns": ["size"]}}, {"encode": {"columns": ["kind"]}}],
        "expectations": EXPECTATIONS,
        **changes,
    }
    return materialize(DatasetSpec.model_validate(spec), str(artifacts), "default", "things").uri


@pytest.fixture(scope="module")
def first(artifacts: Path) -> str:
    return make(artifacts, "a.csv", table(600))


@pytest.fixture(scope="module")
def second(artifacts: Path) -> str:
    frame = table(900, shift=5.0, kinds="abcd").with_columns(extra=pl.lit(1.5), number=pl.lit("n")).select(
        "number", "size", "kind", "extra", "label"
    )  # fmt: skip
    log = {"log": {"columns": ["size"]}}
    transforms = [log, {"scale": {"columns": ["size"]}}, {"encode": {"columns": ["kind"]}}]
    return make(artifacts, "b.csv", frame, transforms=transforms)


@pytest.fixture(scope="module")
def diff(first: str, second: str) -> VersionDiff:
    return compare_versions(first, second)


def text(diff: VersionDiff) -> str:
    console = Console(width=160, no_color=True, highlight=False)
    with console.capture() as captured:
        console.print(render(diff))
    return captured.get()


def test_a_version_equals_itself(first: str) -> None:
    diff = compare_versions(first, Path(first.removeprefix("file://")))
    assert diff.same
    empty = (diff.schema, diff.features, diff.target, diff.classes, diff.transforms, diff.sources, diff.expectations)
    assert set(empty) == {()}
    assert diff.drift is not None and not diff.drift.drifted
    assert all(count.before == count.after for count in (*diff.rows, *diff.set_aside))
    assert "the same version" in text(diff)


def test_rows_of_each_split_and_those_set_aside(diff: VersionDiff) -> None:
    assert [count.name for count in diff.rows] == list(contract.SPLITS)
    before, after = (sum(getattr(count, side) for count in diff.rows) for side in ("before", "after"))
    dropped = int((table(900, 5.0)["size"] > 16).sum())
    assert (before, after) == (600, 900 - dropped)
    assert diff.set_aside == (Count("droppedRows", 0, dropped),)


def test_schema_sources_and_features(diff: VersionDiff, artifacts: Path) -> None:
    assert diff.schema == (Change("changed", "number", "Int64", "String"), Change("added", "extra", after="Float64"))
    assert {(change.kind, Path(change.name).name) for change in diff.sources} == {
        ("removed", "a.csv"),
        ("added", "b.csv"),
    }
    assert [(change.kind, change.name) for change in diff.features] == [("added", "kind=d")]
    assert diff.target == ()


def test_transforms_are_added_and_refitted(diff: VersionDiff) -> None:
    kinds = {step.step: step.kind for step in diff.transforms}
    assert kinds["log(size)"] == "added"
    assert [kind for step, kind in kinds.items() if "kind" in step or "move" in step] == ["changed", "changed"]
    (moved,) = [step for step in diff.transforms if step.step == "move(size)"]
    assert {detail.name for detail in moved.details} >= {"shift", "factor"}
    assert all(detail.before != detail.after and len(detail.before) <= 80 for detail in moved.details)


def test_expectations_by_their_outcome(diff: VersionDiff) -> None:
    changes = {change.name: change for change in diff.expectations}
    dropped = diff.set_aside[0].after
    assert changes["0 ≤ size ≤ 16"] == Change("changed", "0 ≤ size ≤ 16", "Passed", f"Dropped, {dropped} rows")
    assert changes["kind in {a, b, c}"].after.startswith("Warned, ")
    assert "100 ≤ rows" not in changes


def test_drift_has_the_first_as_its_reference(diff: VersionDiff) -> None:
    assert diff.drift is not None
    size = next(feature for feature in diff.drift.features if feature.column == "size")
    assert size.drifted
    kind = next(feature for feature in diff.drift.features if feature.column == "kind")
    assert kind.unseen == ["d"]
    assert diff.drift.new_columns == ["extra"]


def test_drift_is_measured_as_the_spec_says(tmp_path: Path, first: str) -> None:
    strict = {"threshold": 0.0001, "exclude": ["number"], "method": "ks"}
    made = make(tmp_path, "c.csv", table(700, shift=4.0), drift=strict)
    drift = compare_versions(first, made).drift
    assert drift is not None
    features = {feature.column: feature for feature in drift.features}
    assert "number" not in features
    assert (features["size"].method, features["size"].drifted) == ("ks", True)
    loose = compare_versions(first, made, Drift(method="ks", threshold=0.9)).drift
    assert loose is not None and not any(feature.drifted for feature in loose.features)


def test_sources_that_changed_show_their_rows(diff: VersionDiff) -> None:
    gone, new = sorted(diff.sources, key=lambda change: change.kind, reverse=True)
    assert (gone.kind, new.kind) == ("removed", "added")
    assert gone.before.startswith("600 rows, ") and new.after.startswith("900 rows, ")


def test_the_other_way_round_everything_is_turned_round(diff: VersionDiff, first: str, second: str) -> None:
    back = compare_versions(second, first)
    turned = {"added": "removed", "removed": "added", "changed": "changed"}
    for there, here in ((diff.schema, back.schema), (diff.sources, back.sources), (diff.classes, back.classes)):
        assert {(turned[c.kind], c.name, c.after, c.before) for c in there} == {
            (c.kind, c.name, c.before, c.after) for c in here
        }
    assert {(turned[s.kind], s.step) for s in diff.transforms} == {(s.kind, s.step) for s in back.transforms}
    assert [Count(c.name, c.after, c.before) for c in diff.rows] == list(back.rows)


def test_the_text_names_what_differs_and_nothing_else(diff: VersionDiff) -> None:
    said = text(diff)
    for words in (
        "~  number  Int64 → String",
        "+  extra   Float64",
        "+  log(size)",
        "rows",
        "drift",
        "new: d",
        "dropped",
    ):
        assert words in said
    assert "target" not in said.splitlines()
    assert "100 ≤ rows" not in said


def test_json_has_all_of_it(diff: VersionDiff) -> None:
    wire = json.loads(diff.to_json())
    assert wire["same"] is False
    assert wire["setAside"] == [{"name": "droppedRows", "before": 0, "after": diff.set_aside[0].after}]
    assert wire["schema"][0] == {"kind": "changed", "name": "number", "before": "Int64", "after": "String"}
    assert wire["drift"]["new_columns"] == ["extra"]


def test_shares_of_classes_count_as_a_change(artifacts: Path, first: str) -> None:
    more = table(600).with_columns(
        label=pl.when(pl.col("number") % 2 == 0).then(pl.lit("yes")).otherwise(pl.lit("maybe"))
    )
    other = make(artifacts, "classes.csv", more)
    changes = compare_versions(first, other).classes
    assert changes == (
        Change("removed", "no", before="67 %"),
        Change("added", "maybe", after="50 %"),
        Change("changed", "yes", "33 %", "50 %"),
    )


def test_versions_are_read_from_any_store(first: str, second: str, diff: VersionDiff) -> None:
    memory = fsspec.filesystem("memory")
    for name, uri in (("a", first), ("b", second)):
        for file in Path(uri.removeprefix("file://")).glob("*.json"):
            memory.pipe(f"/versions/{name}/{file.name}", file.read_bytes())
    found = compare_versions("memory://versions/a", "memory://versions/b")
    assert (found.schema, found.rows, found.transforms) == (diff.schema, diff.rows, diff.transforms)


def test_papers_that_are_missing_are_said_to_be(first: str, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(first.removeprefix("file://"), bare)
    (bare / contract.DATASET_PROFILE).unlink()
    diff = compare_versions(first, bare)
    assert diff.drift is None and diff.drift_note == f"{bare}: it has no profile"
    (bare / contract.DATASET_PROFILE).write_text('{"format": 99}')
    assert "its profile cannot be read: profile format 99" in compare_versions(first, bare).drift_note
    (bare / contract.DATASET_MANIFEST).write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json is not JSON"):
        compare_versions(first, bare)


@pytest.mark.parametrize("uri", ["/nowhere", "memory://nowhere/at/all", "file:///nowhere"])
def test_where_there_is_no_version(uri: str, first: str) -> None:
    with pytest.raises(UserError) as error:
        compare_versions(first, uri)
    assert error.value.reason == Reason.SOURCE_UNREADABLE
    assert f"there is no dataset version at {uri}" in error.value.message


def test_names_and_versions_below_an_artifacts_folder(artifacts: Path, first: str, second: str) -> None:
    digests = [uri.rsplit("/", 1)[-1] for uri in (first, second)]
    for digest in digests:
        for wanted in (digest, digest[:8], f"sha256:{digest}"):
            assert locate(f"things@{wanted}", str(artifacts)).endswith(f"things/{digest}")
            assert locate(f"things@{wanted}", artifacts.as_uri()).endswith(f"things/{digest}")
    assert locate(first, str(artifacts)) == first
    latest, previous = (locate(f"things@{word}", str(artifacts)) for word in ("latest", "previous"))
    assert latest != previous
    assert locate("things@1", str(artifacts)).endswith(digests[0])
    assert locate("things@2", artifacts.as_uri()).endswith(digests[1])


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("things@zzz", "there is no version things@zzz"),
        ("others@latest", "holds none"),
        ("things@previous", "there is no version things@previous"),
        ("things@99999999", "there is no version things@99999999"),
    ],
)
def test_a_version_that_is_not_there_is_answered_with_those_that_are(
    artifacts: Path, first: str, tmp_path: Path, reference: str, said: str
) -> None:
    home = tmp_path / "datasets" / "default" / "things"
    digest = first.rsplit("/", 1)[-1]
    shutil.copytree(first.removeprefix("file://"), home / digest)
    with pytest.raises(UserError) as error:
        locate(reference, str(tmp_path))
    assert said in error.value.message
    assert digest[:12] in error.value.message or reference.startswith("others")


def test_the_command(artifacts: Path, first: str, second: str) -> None:
    run = CliRunner().invoke
    a, b = (f"things@{uri.rsplit('/', 1)[-1][:16]}" for uri in (first, second))
    shown = run(app, ["data", "diff", a, b, "--artifacts", str(artifacts)])
    assert shown.exit_code == 0 and "log(size)" in shown.stdout
    wire = run(app, ["data", "diff", a, b, "-o", "json"], env={"MIZZEN_ARTIFACTS_URI": str(artifacts)})
    assert json.loads(wire.stdout)["a"]["fingerprint"].startswith(f"sha256:{a.removeprefix('things@')}")
    assert run(app, ["data", "diff", first, second, "--exit-code"]).exit_code == 1
    assert run(app, ["data", "diff", first, first, "--exit-code"]).exit_code == 0
    nameless = run(app, ["data", "diff", a, b], env={"MIZZEN_ARTIFACTS_URI": None})
    assert nameless.exit_code == 2 and "name it with --artifacts or $MIZZEN_ARTIFACTS_URI" in nameless.stderr
    assert run(app, ["data", "diff", first, second, "-o", "yaml"]).exit_code == 2
