"""What a newcomer types first."""

from __future__ import annotations

import pytest

from tests.e2e.platform_under_test import Platform

pytestmark = pytest.mark.cluster


def test_kubectl_explains_every_kind(platform: Platform) -> None:
    assert "Passes over the train split" in platform.kubectl("explain", "trainingjob.spec.trainer").stdout
    for kind in ("dataset", "searchjob", "trainingjob", "modelservice"):
        assert "GROUP:      mizzen.dev" in platform.kubectl("explain", kind).stdout


def test_mizzen_up_twice_is_fine(platform: Platform) -> None:
    before = {p["metadata"]["uid"] for p in platform.pods("", "mizzen-system")}
    assert "already" in platform.mizzen("up").stdout
    assert {p["metadata"]["uid"] for p in platform.pods("", "mizzen-system")} == before
