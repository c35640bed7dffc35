"""Servers that several files of tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import buckets


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an S3 server."""
    with buckets.seaweed(tmp_path_factory.mktemp("s3")) as url:
        yield url


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", buckets.ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", buckets.SECRET)
    return endpoint
