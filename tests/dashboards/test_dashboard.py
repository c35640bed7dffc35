"""The committed dashboard is the generated one, and its queries know only metrics that Mizzen exports."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mizzen_api.contract import METRICS

ROOT = Path(__file__).parents[2]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "dashboards" / "mizzen.json").read_text())
QUERIES = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]


def test_committed_files_are_generated() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "dashboards" / "generate.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("title", "query"), QUERIES)
def test_queries_know_only_exported_metrics(title: str, query: str) -> None:
    found = set(re.findall(r"\bmizzen_(?!dev_)\w+", query))
    assert found, title
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in found} <= METRICS.keys()
    assert "rate(" not in query or "$__rate_interval" in query


def test_every_metric_is_shown() -> None:
    shown = " ".join(query for _, query in QUERIES)
    assert [metric for metric in METRICS if metric not in shown] == []


def test_links_to_the_dashboard_stay_valid() -> None:
    assert DASHBOARD["uid"] == "mizzen-overview"
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["datasource", "namespace", "name"]


def test_panels_do_not_overlap() -> None:
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for place in [panel["gridPos"]]
        for x in range(place.get("x", 0), place.get("x", 0) + place["w"])
        for y in range(place.get("y", 0), place.get("y", 0) + place["h"])
    ]
    assert len(cells) == len(set(cells))


def test_every_metric_is_documented() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", (ROOT / "docs" / "metrics.md").read_text(), re.M))
    assert rows == METRICS
