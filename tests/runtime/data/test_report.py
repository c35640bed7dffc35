"""The report of a version: one page without requests or scripts, whatever the data holds, and the same as JSON."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mizzen.data.drift import compare
from mizzen.data.expectations import Suite
from mizzen.data.profiles import Profile
from mizzen.data.report import Report, read_report, render, report_of, wording
from mizzen.data.report.view import Bins, Column, Part, Unit
from mizzen_api import contract
from mizzen_api.dataset_drift import Drift
from mizzen_api.dataset_expectations import Expectation

EVIL = "<script>alert('x')</script>\"&'"
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """The page as elements; an end tag that closes nothing, or something else, fails."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.setdefault(self.open[-1], []).append(" ".join(data.split()))

    def count(self, tag: str, **attributes: str) -> int:
        return sum(
            name == tag and all(there.get(key.rstrip("_")) == value for key, value in attributes.items())
            for name, there in self.elements
        )


def frame(rows: int = 400, shift: float = 0.0) -> pl.DataFrame:
    numbers = [(number * 37 % 101) / 7 + shift for number in range(rows)]
    return pl.DataFrame(
        {
            "size": [None if number % 10 == 0 else value for number, value in enumerate(numbers)],
            "kind": [("a", "b", EVIL)[number % 3] for number in range(rows)],
            "day": [date(2025, 1, 1) + timedelta(days=number) for number in range(rows)],
            "at": [datetime(2025, 1, 1, tzinfo=UTC) + timedelta(hours=number) for number in range(rows)],
            "text": [f"text {number} " + "x" * (number % 50) for number in range(rows)],
            "empty": pl.Series([None] * rows, dtype=pl.Float64),
            "label": [number % 2 == 0 for number in range(rows)],
        }
    )


def version(folder: Path) -> Path:
    """A folder as a published version leaves it."""
    data = frame()
    suite = Suite(
        [
            Expectation(column="size", min=1, on_violation="Drop"),
            Expectation(column="kind", values=["a", "b"], on_violation="Warn"),
            Expectation(min_rows=10),
        ],
        data.schema,
    )
    kept = suite.update(data).kept
    profile = Profile.of(kept)
    outcome = suite.finish(datetime(2026, 1, 1, tzinfo=UTC))
    drift = compare(Profile.of(frame(shift=9.0)), profile, Drift())
    labels = kept["label"].cast(pl.Int32)
    (folder / contract.DATASET_DATA).mkdir(parents=True)
    rows = {}
    for split, start, stop in (("train", 0, 300), ("validation", 300, 340), ("test", 340, kept.height)):
        part = labels.slice(start, stop - start)
        part.to_frame().write_parquet(folder / contract.DATASET_DATA / f"{split}.parquet")
        rows[split] = len(part)
    manifest = {
        "fingerprint": "sha256:" + "0123456789abcdef" * 4,
        "rows": rows,
        "classes": ["false", "true"],
        "target": "label",
        "schema": {name: str(dtype) for name, dtype in kept.schema.items()},
        "features": ["size", "kind"],
        "sources": ["s3://raw/a.csv", {"uri": f"s3://raw/{EVIL}", "rows": 7, "digest": "sha256:feed"}],
        "badRows": 3,
        "codeVersion": "0.1.0",
    }
    steps = [{"kind": "scale", "columns": ["size"], "method": "standard", "means": [0.25], "table": {"a": 1, "b": 2}}]
    documents: dict[str, str] = {
        contract.DATASET_PIPELINE: json.dumps({"steps": steps}),
        contract.DATASET_PROFILE: profile.to_json(),
        contract.DATASET_EXPECTATIONS: outcome.to_json(),
        contract.DATASET_DRIFT: drift.to_json(),
        contract.DATASET_MANIFEST: json.dumps(manifest),
    }
    for name, text in documents.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return version(tmp_path_factory.mktemp("report") / "v1")


@pytest.fixture(scope="module")
def report(folder: Path) -> Report:
    return read_report(folder, "flowers", "flowers@2")


@pytest.fixture(scope="module")
def html(report: Report) -> str:
    return render(report).html


def test_the_page_has_every_section_and_is_well_formed(html: str) -> None:
    page = Page(html)
    sections = [attributes["id"] for tag, attributes in page.elements if tag == "section"]
    assert sections == ["splits", "expectations", "drift", "columns", "lineage", "schema"]
    assert page.count("article", class_="column") == 7
    assert page.count("span", class_="pill warned") == 1
    assert page.count("span", class_="pill dropped") == 1
    assert page.count("span", class_="pill failed") > 0  # columns that have drifted


def test_the_page_asks_the_network_for_nothing_and_runs_nothing(html: str) -> None:
    page = Page(html)
    assert {tag for tag, _ in page.elements} & {"script", "link", "iframe", "img", "object", "a", "form"} == set()
    names = {name for _, attributes in page.elements for name in attributes}
    assert not names & {"src", "href", "xlink:href", "style", "action"}
    assert not [name for name in names if name.startswith("on")]
    assert "url(" not in html and "@import" not in html
    policy = next(a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def test_values_of_the_data_are_escaped_wherever_they_stand(html: str) -> None:
    assert "<script" not in html
    page = Page(html)
    assert EVIL in page.texts["span"]  # a frequent value, and a sample of a violation
    assert f"s3://raw/{EVIL}" in page.texts["code"]
    assert EVIL in [attributes.get("title") for tag, attributes in page.elements if tag == "span"]


def test_figures_are_those_of_the_version(report: Report, html: str, folder: Path) -> None:
    texts = Page(html).texts
    outcome = report.expectations
    assert outcome is not None and report.rows == outcome.rows - outcome.dropped
    assert wording.number(report.rows) in texts["dd"]
    assert "1 warned, 1 dropped, 1 passed" in texts["dd"]
    for part in report.parts:
        labels = pl.read_parquet(folder / contract.DATASET_DATA / f"{part.name}.parquet")["label"].to_list()
        assert part.classes == {"false": labels.count(0), "true": labels.count(1)}
    size = next(column for column in report.columns if column.name == "size")
    # Rows without a size pass its range: 40 of 400.
    assert size.missing == 40 and size.bins is not None and sum(size.bins.counts) == size.rows - size.missing


def test_times_are_shown_as_times(report: Report) -> None:
    day, at = (next(column for column in report.columns if column.name == name) for name in ("day", "at"))
    assert (day.unit, at.unit) == (Unit.DATE, Unit.TIME)
    assert wording.quantity(day.low, day.unit) == "2025-01-01"
    assert wording.quantity(at.low, at.unit) == "2025-01-01 00:00"
    assert wording.dtype("Datetime(time_unit='us', time_zone='UTC')") == "Datetime, UTC"
    assert wording.dtype("Datetime(time_unit='ns', time_zone=None)") == "Datetime"
    assert wording.dtype("List(Int64)") == "List(Int64)"


def test_the_json_has_the_same_content(report: Report) -> None:
    wire = json.loads(render(report).json)
    assert wire["fingerprint"] == report.fingerprint
    assert wire["parts"][0]["classes"] == report.parts[0].classes
    assert [column["name"] for column in wire["columns"]] == [column.name for column in report.columns]
    assert wire["expectations"]["results"][0]["onViolation"] == "Drop"
    assert wire["drift"]["aucThreshold"] == report.drift.auc_threshold  # type: ignore[union-attr]
    assert wire["columns"][0]["isTarget"] is False


def test_rendering_is_deterministic_and_writes_both_files(report: Report, tmp_path: Path) -> None:
    first = render(report)
    first.write(tmp_path)
    assert render(report) == first
    assert (tmp_path / contract.DATASET_REPORT).read_text() == first.html
    assert (tmp_path / contract.DATASET_REPORT_JSON).read_text() == first.json


def test_a_version_with_nothing_but_a_manifest_has_a_report() -> None:
    bare = report_of("bare", {"fingerprint": "sha256:1", "rows": {"train": 0}, "schema": {"a": "Int64"}}, {})
    page = Page(render(bare).html)
    assert [a["id"] for tag, a in page.elements if tag == "section"] == ["splits", "columns", "lineage", "schema"]


def test_drift_lists_the_deciding_statistic_and_the_worst_first(report: Report, html: str) -> None:
    drift = report.drift
    assert drift is not None and drift.reference == "flowers@2"
    size = next(feature for feature in drift.features if feature.column == "size")
    assert size.drifted and size.statistic == size.statistics[size.method]
    assert "flowers@2" in Page(html).texts["code"]
    assert f"<dd>{sum(f.drifted for f in drift.features)} of {drift.compared}</dd>" in html
    assert drift.compared == sum(bool(feature.statistics) for feature in drift.features)
    rows = re.findall(r'<th scope="row">(\w+)', html[html.index('id="drift"') : html.index('id="columns"')])
    assert rows[0] == "size" and set(rows) == {feature.column for feature in drift.features}


BIG = st.floats(-1e18, 1e18)


@given(
    st.lists(BIG, min_size=2, max_size=90, unique=True).map(sorted),
    st.sampled_from(list(Unit)),
    st.text(max_size=20),
    st.data(),
)
@settings(max_examples=40, deadline=None)
def test_any_histogram_stays_within_its_picture(edges: list[float], unit: Unit, name: str, data: Any) -> None:
    counts = data.draw(st.lists(st.integers(0, 10**12), min_size=len(edges) - 1, max_size=len(edges) - 1))
    bins = Bins(tuple(edges), tuple(counts))
    column = Column(name, "Float64", sum(counts), unit=unit, low=edges[0], high=edges[-1], bins=bins)
    made = Report("r", "sha256:1", name, (Part("train", sum(counts), {name: 1}),), (column,))
    page = Page(render(made).html)
    (start,) = [place for place, (tag, a) in enumerate(page.elements) if a.get("class") == "histogram"]
    bars = [a for tag, a in page.elements[start:] if tag == "rect" and "y" in a]
    assert 0 < len(bars) <= 41
    for bar in bars:
        x, y, wide, tall = (float(bar[side] or "nan") for side in ("x", "y", "width", "height"))
        assert x >= 0 and x + wide <= 241 and y >= 0 and y + tall <= 56.2


@pytest.mark.parametrize(
    ("value", "said"),
    [(38158, "38,158"), (-3, "−3"), (0.03124, "0.03124"), (12.3456, "12.35"), (1.5e12, "1.5e+12"), (None, "–"),
     (float("nan"), "–"), (0, "0"), (1234.5, "1,234"), (0.1, "0.1")],
)  # fmt: skip
def test_numbers(value: float | None, said: str) -> None:
    assert wording.number(value) == said


@pytest.mark.parametrize(
    ("part", "said"), [(0, "0 %"), (1, "100 %"), (0.123456, "12.3 %"), (1e-9, "<0.1 %"), (1 - 1e-9, ">99.9 %")]
)
def test_percentages_never_round_to_nothing_or_all(part: float, said: str) -> None:
    assert wording.percent(part) == said


def test_every_field_of_a_report_is_on_the_wire(report: Report) -> None:
    wire = json.loads(report.to_json())
    assert len(wire) == len(dataclasses.fields(Report))
