"""Sources in a bucket: a real S3 server on loopback."""

from __future__ import annotations

import io
import traceback
from pathlib import Path

import polars as pl
import pytest

from mizzen.data import DataPipeline
from mizzen.data.command import read_secrets
from mizzen.data.sources import RowSource, open_sources
from mizzen.data.sources.access import access_of
from mizzen.errors import SystemError_, UserError
from mizzen_api.dataset import DatasetSpec
from mizzen_api.dataset_sources import Source

from .buckets import ACCESS, SECRET, free_ports, put

pytestmark = pytest.mark.cluster


def opened(uri: str) -> RowSource:
    return open_sources([Source(uri=uri)])


def test_files_folders_and_globs_of_a_bucket_are_read(s3: str) -> None:
    for number in (2, 1):
        put(s3, f"raw/tables/part-{number}.csv", b"n,name\n%d,x\n" % number)
    put(s3, "raw/tables/_SUCCESS", b"")
    parquet = io.BytesIO()
    pl.DataFrame({"n": [3], "name": ["y"]}).write_parquet(parquet)
    put(s3, "raw/other/part-3.parquet", parquet.getvalue())
    for uri in ("s3://raw/tables/*.csv", "s3://raw/tables", "s3://raw/**/part-[12].csv"):
        assert pl.concat(opened(uri).chunks())["n"].to_list() == [1, 2], uri
    source = open_sources([Source(uri="s3://raw/tables/part-1.csv"), Source(uri="s3://raw/other/part-3.parquet")])
    assert pl.concat(source.chunks()).rows() == [(1, "x"), (3, "y")]
    unread = open_sources([Source(uri="s3://raw/tables/part-1.csv"), Source(uri="s3://raw/other/part-3.parquet")])
    assert unread.digest() == source.digest()


def test_an_object_that_changed_has_another_identity(s3: str) -> None:
    put(s3, "raw/changing.csv", b"n\n1\n")
    before = opened("s3://raw/changing.csv").identity()
    assert before == opened("s3://raw/changing.csv").identity() != ""
    put(s3, "raw/changing.csv", b"n\n1\n2\n")
    assert opened("s3://raw/changing.csv").identity() != before


@pytest.mark.parametrize("uri", ["s3://raw/nowhere.csv", "s3://nowhere/in.csv", "s3://raw/nowhere/*.csv"])
def test_what_is_not_there_is_the_user_s_to_mend(s3: str, uri: str) -> None:
    with pytest.raises(UserError) as error:
        list(opened(uri).chunks())
    assert f"cannot read source {uri}" in error.value.message


def test_wrong_keys_are_the_user_s_to_mend(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put(s3, "raw/in.csv", b"n\n1\n")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-one")
    with pytest.raises(UserError) as error:
        list(opened("s3://raw/in.csv").chunks())
    assert SECRET not in error.value.message
    assert "wrong-one" not in error.value.message


def test_an_endpoint_that_is_away_is_worth_another_try(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (closed,) = free_ports(1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed}")
    with pytest.raises(SystemError_, match=r"cannot read source s3://raw/in\.csv"):
        list(opened("s3://raw/in.csv").chunks())


def test_the_sdk_takes_secrets_as_a_cluster_has_them(endpoint: str) -> None:
    put(endpoint, "raw/sdk.csv", b"n,y\n" + b"".join(b"%d,%s\n" % (n, b"ab"[n % 2 :][:1]) for n in range(60)))
    bucket = {"accessKeyId": ACCESS, "secretAccessKey": SECRET, "endpoint": endpoint}
    source = {"uri": "s3://raw/sdk.csv", "secretRef": {"name": "bucket"}}
    assert len(DataPipeline([source], target="y", secrets={"bucket": bucket}).fit_transform()) == 60


def test_keys_and_endpoint_come_from_a_secret(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the operator mounts it: files, and nothing of them in the environment or in what is said."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    put(endpoint, "raw/secret/in.csv", b"n,y\n" + b"".join(b"%d,%d\n" % (n, n % 2) for n in range(60)))
    values = {"accessKeyId": ACCESS, "secretAccessKey": SECRET, "endpoint": endpoint, "region": "us-east-1"}
    (tmp_path / "bucket").mkdir()
    for key, value in values.items():
        (tmp_path / "bucket" / key).write_text(value + "\n")
    source = {"uri": "s3://raw/secret/*.csv", "secretRef": {"name": "bucket"}}
    spec = DatasetSpec.model_validate({"sources": [source], "target": "y", "targetType": "class"})
    secrets = read_secrets(spec, tmp_path)
    found = open_sources(spec.sources, secrets=secrets)
    assert sum(chunk.height for chunk in found.chunks()) == 60
    (tmp_path / "bucket" / "secretAccessKey").write_text("wrong-one")
    with pytest.raises(UserError) as error:
        list(open_sources(spec.sources, secrets=read_secrets(spec, tmp_path)).chunks())
    said = "".join(traceback.format_exception(error.value)) + repr(access_of(spec.sources[0], secrets))
    assert "cannot read source s3://raw/secret" in said
    assert not [value for value in (SECRET, "wrong-one") if value in said]
