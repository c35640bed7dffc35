"""One platform for all end-to-end tests: the embedded cluster with the chart, started once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.platform_under_test import Platform


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    platform = Platform(tmp_path_factory.mktemp("platform"))
    platform.mizzen("up")
    yield platform
    platform.mizzen("down", "--purge")


@pytest.fixture(scope="session")
def raw(platform: Platform) -> Path:
    """A folder that pods see as /artifacts/raw, once the operator has claimed the artifact volume."""
    folder = platform.state / "volumes" / "default" / "mizzen-artifacts" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
