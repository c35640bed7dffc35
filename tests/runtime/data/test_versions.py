"""Versions: made, found again, published whole or not at all, and held against what was there before."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from mizzen.data import store
from mizzen.data.homes import home_of
from mizzen.data.materialize import Request, Version, make, materialize
from mizzen.data.notes import History
from mizzen.data.pipeline import Pipeline, RowError
from mizzen.data.references import Reference
from mizzen.errors import UserError
from mizzen_api.conditions import Reason
from mizzen_api.dataset import DatasetSpec
from mizzen_api.workload import NewestVersion

from ..conftest import corpus, dataset_spec


def test_materialising_twice_reuses_and_a_change_makes_a_new_version(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text(corpus(120))
    seen: list[tuple[int, int]] = []
    one = materialize(dataset_spec(source), str(tmp_path / "a"), "ns", "d", lambda *p: seen.append(p))
    two = materialize(dataset_spec(source), str(tmp_path / "a"), "ns", "d")
    assert (one.reused, two.reused) == (False, True)
    assert one.fingerprint == two.fingerprint
    assert one.uri == two.uri
    assert seen[-1] == (100, 120)
    assert [percent for percent, _ in seen] == sorted(percent for percent, _ in seen)
    other = materialize(dataset_spec(source, split={"seed": 8}), str(tmp_path / "a"), "ns", "d")
    source.write_text(corpus(121))
    third = materialize(dataset_spec(source), str(tmp_path / "a"), "ns", "d")
    assert len({one.fingerprint, other.fingerprint, third.fingerprint}) == 3
    assert one.uri.endswith(f"/datasets/ns/d/{one.fingerprint.removeprefix('sha256:')}")


def test_a_manifest_names_each_source_with_its_rows_and_its_digest(tmp_path: Path) -> None:
    first, second = tmp_path / "1.csv", tmp_path / "2.csv"
    first.write_text("n,label\n" + "".join(f"{n},{'ab'[n % 2]}\n" for n in range(60)))
    second.write_text("n,label\n" + "".join(f"{n},{'ab'[n % 2]}\n" for n in range(60, 100)) + "x,y,z\n")
    names = tmp_path / "names.json"
    names.write_text(json.dumps([{"label": "a", "name": "A"}, {"label": "b", "name": "B"}]))
    made = {}
    for word in ("on", "keys"):
        sources = [{"uri": str(tmp_path / "*.csv")}, {"uri": str(names), "join": {word: ["label"]}}]
        spec = DatasetSpec.model_validate({"sources": sources, "target": "label", "maxBadRows": 1})
        made[word] = materialize(spec, str(tmp_path / "a"), "ns", "d")
    assert made["on"].fingerprint == made["keys"].fingerprint, "two names of one thing"
    assert store.DatasetVersion(made["on"].uri).manifest["sources"] == [
        {"uri": str(file), "rows": rows, "digest": f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"}
        for file, rows in ((first, 60), (second, 40), (names, 2))
    ]


def test_a_version_that_was_left_half_written_is_made_anew(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text(corpus(120))
    first = materialize(dataset_spec(source), str(tmp_path / "a"), "ns", "d")
    folder = store.local_folder(first.uri)
    (folder / "manifest.json").unlink()
    again = materialize(dataset_spec(source), str(tmp_path / "a"), "ns", "d")
    assert not again.reused
    assert store.is_published(folder)
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]


def test_versions_are_counted_as_the_status_counts_them(tmp_path: Path) -> None:
    source, spec = tmp_path / "in.csv", dataset_spec(tmp_path / "in.csv")

    def made(rows: int, newest: NewestVersion | None) -> Version:
        source.write_text(corpus(rows))
        return make(Request(spec, str(tmp_path / "a"), "ns", "d", newest=newest))

    first, second = made(120, None), made(121, None)
    assert (first.number, second.number) == (1, 2)
    assert made(121, None).number == 2, "the same again"
    back = made(120, NewestVersion(version=2, fingerprint=second.fingerprint))
    assert (back.number, back.fingerprint) == (3, first.fingerprint), "an old version may come back as a new one"
    history = History(home_of(str(tmp_path / "a"), "ns", "d"))
    assert history.all() == {1: first.fingerprint, 2: second.fingerprint, 3: first.fingerprint}
    assert made(121, NewestVersion(version=0, fingerprint="")).number == 1, "the Dataset was created anew"
    assert history.all() == {1: second.fingerprint}


def test_one_class_cannot_be_classified(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("label,text\na,b\na,c\n")
    with pytest.raises(UserError, match="only the value 'a'"):
        materialize(dataset_spec(source), str(tmp_path / "a"), "ns", "d")
    assert not [path for path in (tmp_path / "a").rglob("*") if path.is_file()]


def test_training_and_serving_see_the_same_arrays(version: Version) -> None:
    dataset = store.DatasetVersion(version.uri)
    served = Pipeline.load(dataset.folder / "pipeline.json")
    raw = [text for name in ("train", "validation", "test") for text in dataset.frame(name)["raw.text"]]
    arrays = served.transform_rows([{"text": text} for text in raw])
    served_rows = Counter(map(bytes, arrays["ids"]))
    stored_rows = Counter(
        bytes(row) for name in ("train", "validation", "test") for row in np.ascontiguousarray(dataset.part(name).ids)
    )
    assert served_rows == stored_rows
    assert len(raw) == 900
    assert dataset.classes == ("bad", "good", "so-so")


def test_rows_that_do_not_fit_are_named(version: Version) -> None:
    pipeline = store.DatasetVersion(version.uri).pipeline
    assert pipeline.transform_rows([{"text": ""}])["lengths"].tolist() == [1]
    assert pipeline.transform_rows([])["ids"].shape == (0, 24)
    assert pipeline.transform_rows([{"text": "x", "label": "bad"}])["ids"].dtype == np.int32
    for row, said in [
        ({"words": "x"}, "row 1 lacks the column 'text'; it has words"),
        ({"text": "x", "age": 3}, "row 1 has an unknown column 'age'"),
        ({"text": 3}, "row 1: column 'text' must be a string, not int"),
    ]:
        with pytest.raises(RowError, match=said):
            pipeline.transform_rows([{"text": "fine"}, row])


def test_unchanged_sources_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "in.csv"
    source.write_text(corpus(120))
    first = materialize(dataset_spec(source), str(tmp_path / "a"), "ns", "d")
    monkeypatch.setattr("mizzen.data.making.ingest", lambda *_: pytest.fail("the sources were read"))
    assert materialize(dataset_spec(source), str(tmp_path / "a"), "ns", "d").fingerprint == first.fingerprint


def test_where_a_file_lies_does_not_change_its_fingerprint(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "in.csv").write_text(corpus(120))
        found.append(materialize(dataset_spec(folder / "in.csv"), str(folder / "a"), "ns", name).fingerprint)
    assert found[0] == found[1]


def test_old_versions_go_and_the_current_one_stays(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    made = []
    for rows in (100, 110, 120):
        source.write_text(corpus(rows))
        made.append(materialize(dataset_spec(source, keep=2), str(tmp_path / "a"), "ns", "d"))
    left = {path.name for path in (tmp_path / "a" / "datasets" / "ns" / "d").iterdir() if not path.name.startswith(".")}
    assert left == {version.fingerprint.removeprefix("sha256:") for version in made[1:]}


def test_a_row_that_breaks_an_expectation_is_kept_aside(tmp_path: Path) -> None:
    import polars as pl

    source = tmp_path / "in.csv"
    source.write_text(corpus(120) + "bad,spam\nbad,spam\n")
    spec = dataset_spec(source, expectations=[{"column": "text", "pattern": ".*n[0-9]+.*", "onViolation": "Drop"}])
    version = materialize(spec, str(tmp_path / "a"), "ns", "d")
    assert (version.rows, version.dropped_rows) == (120, 2)
    aside = pl.read_parquet(store.local_folder(version.uri) / "rejected.parquet")
    assert aside["text"].to_list() == ["spam", "spam"]
    assert aside["_row"].to_list() == [121, 122]


def test_an_expectation_that_fails_publishes_nothing(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text(corpus(120))
    with pytest.raises(UserError) as error:
        materialize(dataset_spec(source, expectations=[{"minRows": 500}]), str(tmp_path / "a"), "ns", "d")
    assert error.value.reason == Reason.EXPECTATION_FAILED
    assert "500" in error.value.message
    assert not list((tmp_path / "a").rglob("manifest.json"))


def test_a_column_that_vanished_breaks_the_contract(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    rows = corpus(120).splitlines()
    source.write_text("\n".join([rows[0] + ",age", *(f"{row},{i}" for i, row in enumerate(rows[1:]))]) + "\n")
    spec = dataset_spec(source)
    first = materialize(spec, str(tmp_path / "a"), "ns", "d")
    source.write_text("\n".join(rows) + "\n")
    with pytest.raises(UserError, match="age") as error:
        make(Request(spec, str(tmp_path / "a"), "ns", "d", previous=first.uri))
    assert error.value.reason == Reason.SCHEMA_BROKEN


def test_drift_warns_or_fails(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    lines = [f"{'ab'[i % 2]},word number {i},{i % 50}" for i in range(2000)]
    source.write_text("\n".join(["label,text,age", *lines]) + "\n")
    spec = dataset_spec(source, drift={"threshold": 0.1})
    first = materialize(spec, str(tmp_path / "a"), "ns", "d")
    moved = [f"{'ab'[i % 2]},other thing entirely {i},{200 + i % 50}" for i in range(2000)]
    source.write_text("\n".join(["label,text,age", *moved]) + "\n")
    second = make(Request(spec, str(tmp_path / "a"), "ns", "d", reference=Reference("version 1", first.uri)))
    assert "drifted from version 1" in (store.local_folder(second.uri) / "report.html").read_text()
    assert second.drift is not None
    assert second.drift.drifted
    assert second.drift.drifted_features >= 1
    source.write_text("\n".join(["label,text,age", *moved, "a,x,300"]) + "\n")
    strict = dataset_spec(source, drift={"threshold": 0.1, "onDrift": "Fail"})
    with pytest.raises(UserError, match="drifted") as error:
        make(Request(strict, str(tmp_path / "a"), "ns", "d", reference=Reference("version 1", first.uri)))
    assert error.value.reason == Reason.DRIFTED


def test_two_makers_of_one_version_publish_it_once(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text(corpus(300))
    found: list[Version] = []
    threads = [
        threading.Thread(target=lambda: found.append(materialize(dataset_spec(source), str(tmp_path / "a"), "ns", "d")))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({version.uri for version in found}) == 1
    assert len(found) == 3
    folder = tmp_path / "a" / "datasets" / "ns" / "d"
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 1


def test_three_rows_cannot_fill_three_parts(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("label,text\na,one\nb,two\na,three\n")
    with pytest.raises(UserError, match="split gets none of the 3 rows"):
        materialize(dataset_spec(source), str(tmp_path / "a"), "ns", "d")
    assert not list((tmp_path / "a").rglob("manifest.json"))


def test_ages_are_judged_anew_on_unchanged_data(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    lines = [f"{'ab'[i % 2]},text {i},2026-01-{i % 28 + 1:02d}" for i in range(100)]
    source.write_text("\n".join(["label,text,day", *lines]) + "\n")
    spec = dataset_spec(source, expectations=[{"column": "day", "maxAge": "7d"}])
    request = Request(spec, str(tmp_path / "a"), "ns", "d")
    first = make(request, now=datetime(2026, 1, 30, tzinfo=UTC))
    assert make(request, now=datetime(2026, 1, 31, tzinfo=UTC)).uri == first.uri
    with pytest.raises(UserError) as error:
        make(request, now=datetime(2026, 3, 1, tzinfo=UTC))
    assert error.value.reason == Reason.EXPECTATION_FAILED


def test_bad_rows_are_named_in_the_manifest_and_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = tmp_path / "in.csv"
    source.write_text(corpus(120) + "a,b,c,d\n")
    made = make(Request(dataset_spec(source, maxBadRows=1), str(tmp_path / "a"), "ns", "d"))
    manifest = store.DatasetVersion(made.uri).manifest
    (bad,) = manifest["firstBadRows"]
    assert (made.rows, made.bad_rows, manifest["badRows"]) == (120, 1, 1)
    assert f"{source}:122: the row has 4 fields" in bad
    assert f"set aside: {bad}" in caplog.text
