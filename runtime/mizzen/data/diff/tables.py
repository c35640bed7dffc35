"""A diff of versions for a terminal: only what differs, one table for each subject."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mizzen.data.diff.compare import Change, Count, StepChange, VersionDiff
from mizzen.data.drift import DriftReport

_SIGNS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}
MOST_FEATURES = 12
_ASIDE = {"badRows": "unreadable", "droppedRows": "dropped"}


def render(diff: VersionDiff) -> RenderableType:
    """Everything that differs, or one line that says that nothing does."""
    parts: list[RenderableType] = [_head(diff)]
    if diff.same:
        parts.append(Text("the same version: same sources, spec and code", style="green"))
        return Group(*parts)
    parts += _sections(diff)
    return Group(*parts)


def _sections(diff: VersionDiff) -> Iterator[RenderableType]:
    yield from _section("rows", _rows(diff))
    for title, changes in (
        ("sources", diff.sources),
        ("schema", diff.schema),
        ("target", diff.target),
        ("classes", diff.classes),
        ("expectations", diff.expectations),
        ("features", diff.features),
    ):
        if changes:
            yield from _section(title, _changes(changes))
    if diff.transforms:
        yield from _section("transforms", _steps(diff.transforms))
    if diff.drift is not None:
        yield from _section("drift", _drift(diff.drift))
    else:
        yield from _section("drift", Text(f"not compared: {diff.drift_note}", style="dim"))


def _section(title: str, body: RenderableType) -> Iterator[RenderableType]:
    yield Text()
    yield Text(title, style="bold")
    yield Padding(body, (0, 0, 0, 2))


def _head(diff: VersionDiff) -> Table:
    table = _table()
    for sign, style, side in (("a", "red", diff.a), ("b", "green", diff.b)):
        digest = side.fingerprint.removeprefix("sha256:")
        where = side.uri.replace(digest, f"{digest[:12]}…")
        code = f"mizzen {side.code_version}" if side.code_version else ""
        table.add_row(Text(sign, style=style), Text(digest[:12], style="bold"), Text(where, style="dim"), Text(code))
    return table


_NUMBERS = ("before", "after", "change", "effect", "threshold")


def _table(*headers: str) -> Table:
    table = Table(box=None, show_header=bool(headers), pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for header in headers:
        table.add_column(header, justify="right" if header in _NUMBERS else "left")
    return table


def _rows(diff: VersionDiff) -> Table:
    table = _table("", "before", "after", "change")
    total = Count("all", sum(count.before for count in diff.rows), sum(count.after for count in diff.rows))
    for count in (*diff.rows, total, *diff.set_aside):
        change = count.after - count.before
        part = f" ({100 * change / count.before:+.1f} %)" if count.before and change else ""
        said = Text(f"{change:+,}{part}" if change else "=", style="" if change else "dim")
        table.add_row(Text(_ASIDE.get(count.name, count.name)), f"{count.before:,}", f"{count.after:,}", said)
    return table


def _changes(changes: Sequence[Change]) -> Table:
    table = _table()
    for change in changes:
        sign, style = _SIGNS[change.kind]
        said = " → ".join(text for text in (change.before, change.after) if text)
        table.add_row(Text(sign, style=style), Text(change.name), Text(said, style="dim"))
    return table


def _steps(steps: Sequence[StepChange]) -> Table:
    table = _table()
    for step in steps:
        sign, style = _SIGNS[step.kind]
        table.add_row(Text(sign, style=style), Text(step.step), "")
        for detail in step.details:
            said = f"{detail.before or '–'} → {detail.after or '–'}"
            table.add_row("", Text(f"  {detail.name}", style="dim"), Text(said, style="dim"))
    return table


def _drift(drift: DriftReport) -> RenderableType:
    verdict = Text(drift.message, style="red" if drift.drifted else "green")
    table = _table("", "column", "by", "effect", "threshold", "")
    compared = [feature for feature in drift.features if feature.statistic is not None]
    for feature in compared[:MOST_FEATURES]:
        assert feature.statistic is not None and feature.threshold is not None
        style = "red" if feature.drifted else "dim"
        note = f"new: {', '.join(feature.unseen)}" if feature.unseen else ""
        table.add_row(
            Text("✕" if feature.drifted else "·", style=style),
            Text(feature.column),
            feature.method,
            Text(f"{feature.statistic:.3f}", style=style),
            f"{feature.threshold:.3f}",
            Text(note, style="dim"),
        )
    if len(compared) > MOST_FEATURES:
        table.add_row("", Text(f"and {len(compared) - MOST_FEATURES} more, below these", style="dim"))
    return Group(verdict, table)
