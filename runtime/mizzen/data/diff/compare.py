"""What has changed from one version of a dataset to another, from their papers alone."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic.alias_generators import to_camel

from mizzen.data.diff.snapshot import Snapshot, load
from mizzen.data.expectations.results import ROW_KINDS, Outcome, Result, count, cut
from mizzen.data.report.wording import number
from mizzen_api.dataset_drift import Drift

if TYPE_CHECKING:
    from mizzen.data.drift import DriftReport
    from mizzen.data.profiles import Profile

MOST_VALUES = 4  # of a list of settings

Kind = Literal["added", "removed", "changed"]


@dataclass(frozen=True)
class Change:
    """Something with a name that is new, gone, or different."""

    kind: Kind
    name: str
    before: str = ""
    after: str = ""


@dataclass(frozen=True)
class Count:
    """A number on both sides."""

    name: str
    before: int
    after: int


@dataclass(frozen=True)
class StepChange:
    """A transform that is new, gone, set otherwise, or fitted to other data (`details`: what differs)."""

    kind: Kind
    step: str
    details: tuple[Change, ...] = ()


@dataclass(frozen=True)
class Side:
    uri: str
    fingerprint: str
    code_version: str


@dataclass(frozen=True)
class VersionDiff:
    """All differences, from `a` to `b`. `drift` has `a` as its reference; where it is None, `drift_note` says why."""

    a: Side
    b: Side
    rows: tuple[Count, ...]  # of each split
    set_aside: tuple[Count, ...]  # rows that could not be read, and rows that expectations dropped
    schema: tuple[Change, ...]
    features: tuple[Change, ...]
    target: tuple[Change, ...]
    classes: tuple[Change, ...]  # also those whose share has changed
    transforms: tuple[StepChange, ...]
    sources: tuple[Change, ...]
    expectations: tuple[Change, ...]
    drift: DriftReport | None
    drift_note: str = ""

    @property
    def same(self) -> bool:
        """Whether both are one version: the fingerprint stands for source bytes, spec and code."""
        return self.a.fingerprint == self.b.fingerprint

    def to_json(self) -> str:
        wire = _wire(self)
        wire["drift"] = json.loads(self.drift.to_json()) if self.drift is not None else None
        return json.dumps({"same": self.same, **wire}, indent=1, ensure_ascii=False, allow_nan=False)


def compare_versions(a: str | Path, b: str | Path, settings: Drift | None = None) -> VersionDiff:
    """From version `a` to version `b`, each a folder or a URI. UserError where there is no version.

    Without `settings` drift is measured as the spec says that `b` was made by, or by the defaults.
    """
    before, after = load(a), load(b)
    drift, note = _drift(before, after, settings or after.drift_settings or Drift())
    return VersionDiff(
        a=Side(before.uri, before.fingerprint, before.code_version),
        b=Side(after.uri, after.fingerprint, after.code_version),
        rows=_counts(before.rows, after.rows),
        set_aside=tuple(count for count in _counts(before.counts, after.counts) if count.before or count.after),
        schema=_changes(before.schema, after.schema),
        features=_changes(dict.fromkeys(before.features, ""), dict.fromkeys(after.features, "")),
        target=_changes({"target": before.target}, {"target": after.target}),
        classes=_changes(_classes(before), _classes(after)),
        transforms=_transforms(before.steps, after.steps),
        sources=_changes(before.sources, after.sources),
        expectations=_changes(_outcomes(before.outcome), _outcomes(after.outcome)),
        drift=drift,
        drift_note=note,
    )


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[Change, ...]:
    """What is gone, then what is new or different, each in its side's order."""
    gone = [Change("removed", name, before=value) for name, value in before.items() if name not in after]
    rest = [
        Change("changed", name, before[name], value) if name in before else Change("added", name, after=value)
        for name, value in after.items()
        if before.get(name) != value
    ]
    return (*gone, *rest)


def _counts(before: Mapping[str, int], after: Mapping[str, int]) -> tuple[Count, ...]:
    return tuple(Count(name, before.get(name, 0), after.get(name, 0)) for name in dict.fromkeys([*before, *after]))


def _classes(side: Snapshot) -> dict[str, str]:
    """Each class with its share of the rows, in whole percents: less is noise in a diff."""
    shares = _shares(side.profile, side.target)
    return {name: f"{100 * shares[name]:.0f} %" if name in shares else "" for name in side.classes}


def _shares(profile: Profile | None, target: str) -> dict[str, float]:
    column = profile.columns.get(target) if profile is not None else None
    if column is None or not column.present:
        return {}
    if column.frequent is not None and column.frequent.exact:
        counts: dict[str, int] = dict(column.frequent.counts)
    elif column.numbers is not None and column.numbers.values is not None:
        exact = column.numbers.values
        counts = {str(value): int(count) for value, count in zip(exact.values, exact.counts, strict=True)}
    else:
        return {}
    return {name: count / column.present for name, count in counts.items()}


def _transforms(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> tuple[StepChange, ...]:
    """Steps are the same step where kind and columns agree, in the same order; the rest is aligned as text would be."""
    matcher = difflib.SequenceMatcher(a=[_title(step) for step in before], b=[_title(step) for step in after])
    found: list[StepChange] = []
    for tag, a1, a2, b1, b2 in matcher.get_opcodes():
        if tag == "equal":
            pairs = zip(before[a1:a2], after[b1:b2], strict=True)
            found += [StepChange("changed", _title(new), _details(old, new)) for old, new in pairs if old != new]
        else:
            found += [StepChange("removed", _title(step)) for step in before[a1:a2]]
            found += [StepChange("added", _title(step)) for step in after[b1:b2]]
    return tuple(found)


def _title(step: Mapping[str, Any]) -> str:
    return f"{step.get('kind', 'step')}({', '.join(map(str, step.get('columns', ())))})"


def _details(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Change, ...]:
    names = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    return tuple(Change("changed", name, _brief(old.get(name)), _brief(new.get(name))) for name in names)


def _brief(value: Any) -> str:
    """Enough of a setting, or of what was learned, to see how it changed."""
    if value is None:
        return ""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list):
        shown = ", ".join(_brief(one) for one in value[:MOST_VALUES])
        return cut(shown if len(value) <= MOST_VALUES else f"{shown}, … ({len(value)})")
    return cut(value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False))


def _outcomes(outcome: Outcome | None) -> dict[str, str]:
    return {result.statement: _verdict(result) for result in outcome.results} if outcome is not None else {}


def _verdict(result: Result) -> str:
    """With the rows that break it, where rows do: that more of them do is news, too."""
    counted = result.kind in ROW_KINDS and result.violations
    return f"{result.outcome}, {count(result.violations)}" if counted else result.outcome


def _drift(before: Snapshot, after: Snapshot, settings: Drift) -> tuple[DriftReport | None, str]:
    from mizzen.data.drift import compare

    for side in (before, after):
        if side.profile is None:
            return None, f"{side.uri}: {side.profile_note}"
    assert before.profile is not None and after.profile is not None
    return compare(before.profile, after.profile, settings), ""


def _wire(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {to_camel(one.name): _wire(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [_wire(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _wire(one) for key, one in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
