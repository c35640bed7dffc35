"""Versions in an object store, a real S3: published by their manifest, found again, counted, pruned, read back."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from mizzen.cli import app
from mizzen.data.homes import RemoteHome, home_of, is_published
from mizzen.data.materialize import Request, Version, make, materialize
from mizzen.data.notes import History
from mizzen.data.references import Reference
from mizzen.data.store import DatasetVersion
from mizzen.errors import MizzenError, SystemError_, UserError
from mizzen_api.conditions import Reason
from mizzen_api.contract import SPLITS

from ..conftest import corpus, dataset_spec
from .buckets import ACCESS, SECRET, client, free_ports

pytestmark = pytest.mark.cluster


@pytest.fixture
def store(s3: str) -> str:
    """A prefix of a bucket that nobody else writes below."""
    return f"s3://raw/artifacts-{uuid.uuid4().hex[:8]}"


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def version(store: str, folder: Path, rows: int = 120, **changes: Any) -> Version:
    (folder / "in.csv").write_text(corpus(rows))
    return materialize(dataset_spec(folder / "in.csv", **changes), store, "ns", "d")


def objects(url: str, store: str) -> set[str]:
    from pyarrow import fs

    base = store.removeprefix("s3://")
    found = client(url).get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))  # type: ignore[attr-defined]
    return {info.path.removeprefix(base) for info in found if info.type == fs.FileType.File}


def test_a_version_in_a_bucket_is_that_of_a_folder(store: str, tmp_path: Path) -> None:
    remote = version(store, tmp_path)
    local = version(str(tmp_path / "a"), tmp_path)
    assert remote.fingerprint == local.fingerprint
    assert remote.uri == f"{store}/datasets/ns/d/{remote.fingerprint.removeprefix('sha256:')}"
    here, there = DatasetVersion(local.uri), DatasetVersion(remote.uri, tmp_path / "cache")
    assert there.manifest == here.manifest
    assert there.profile().to_json() == here.profile().to_json()
    assert there.paper("no-such-file.json") is None
    assert not (there.folder / "data").exists(), "rows are fetched when they are asked for"
    for part in SPLITS:
        assert there.file(part).read_bytes() == here.file(part).read_bytes()
    assert isinstance(there.frame("train"), pl.DataFrame)


def test_it_is_found_again_counted_compared_and_pruned(store: str, tmp_path: Path) -> None:
    first = version(store, tmp_path, keep=2)
    assert version(store, tmp_path, keep=2).reused
    second = version(store, tmp_path, 140, keep=2)
    (tmp_path / "in.csv").write_text(corpus(120))
    spec = dataset_spec(tmp_path / "in.csv", keep=2, drift={"minRows": 30})
    third = make(Request(spec, store, "ns", "d", reference=Reference("version 2", second.uri)))
    assert (third.fingerprint, third.reused, third.number) == (first.fingerprint, True, 3)
    assert third.drift is not None and third.drift.reference == "version 2"
    home = home_of(store, "ns", "d")
    assert History(home).all() == {1: first.fingerprint, 2: second.fingerprint, 3: first.fingerprint}
    fourth = version(store, tmp_path, 160, keep=2)
    kept = {one.fingerprint.removeprefix("sha256:") for one in (first, fourth)}
    assert set(home.versions()) == kept, "the one that was used longest ago is gone"
    run = CliRunner().invoke(app, ["data", "diff", "d@1", "d@4", "--artifacts", store, "--namespace", "ns"])
    assert run.exit_code == 0, run.output
    assert "+40" in run.output


def test_nothing_is_visible_before_all_of_it_is_there(
    s3: str, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, sent = RemoteHome._upload, []

    def breaks(self: RemoteHome, file: Path, name: str) -> None:
        if name.endswith("profile.json"):
            raise SystemError_("the connection broke")
        upload(self, file, name)
        sent.append(name)

    monkeypatch.setattr(RemoteHome, "_upload", breaks)
    with pytest.raises(SystemError_, match="the connection broke"):
        version(store, tmp_path)
    assert sent, "it broke half-way"
    home = home_of(store, "ns", "d")
    assert home.versions() == []
    assert not [name for name in objects(s3, store) if name.endswith("manifest.json")]
    monkeypatch.undo()
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    made = version(store, tmp_path)
    assert not made.reused
    assert is_published(home, made.fingerprint.removeprefix("sha256:"))


def test_the_keys_are_those_of_the_mounted_secret(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    keys = {"accessKeyId": ACCESS, "secretAccessKey": SECRET, "endpoint": endpoint}
    for key, value in keys.items():
        (tmp_path / key).write_text(value)
    monkeypatch.setattr("mizzen_api.contract.DATASETS_SECRET_DIR", str(tmp_path))
    made = version(f"s3://raw/secretly-{uuid.uuid4().hex[:8]}", tmp_path)
    assert DatasetVersion(made.uri).frame("train").height


def test_half_a_version_is_swept_away_when_it_is_nobody_s(
    s3: str, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = home_of(store, "ns", "d")
    home.write("f00/data/train.parquet", b"half")
    made = version(store, tmp_path)
    assert any("/f00/" in name for name in objects(s3, store)), "somebody may be writing it"
    monkeypatch.setattr("mizzen.data.homes.ABANDONED_SECONDS", -1.0)
    assert home.versions() == [made.fingerprint.removeprefix("sha256:")]
    assert not any("/f00/" in name for name in objects(s3, store))


@pytest.mark.parametrize(
    ("name", "value", "kind", "said"),
    [
        ("AWS_ENDPOINT_URL", "closed", SystemError_, "artifact store s3://raw/"),
        ("AWS_SECRET_ACCESS_KEY", "wrong-one", UserError, "check the address, and the Secret"),
    ],
)
def test_a_store_that_cannot_be_used_says_so(
    store: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    kind: type[MizzenError],
    said: str,
) -> None:
    from mizzen.data.sources.files import _bucket

    _bucket.cache_clear()
    monkeypatch.setenv(name, f"http://127.0.0.1:{free_ports(1)[0]}" if value == "closed" else value)
    with pytest.raises(kind) as error:
        version(store, tmp_path)
    _bucket.cache_clear()
    assert said in error.value.message
    assert "wrong-one" not in error.value.message
    assert error.value.reason == (Reason.ARTIFACTS_FORBIDDEN if kind is UserError else Reason.INTERNAL_ERROR)
