"""Modules that train, copy and compress for real take seconds each: `make test-fast` leaves them out."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
# Tables of pure functions, which stay.
FAST = {"accelerators", "group_controller", "group_telemetry", "parameter_server", "plan", "schedule", "stacking"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        fast = item.path.stem.removeprefix("test_") in FAST
        if (item.path.is_relative_to(HERE) and not fast) or item.path.parent.name == "testing":
            item.add_marker(pytest.mark.slow)
