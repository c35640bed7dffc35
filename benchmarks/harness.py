"""What all benchmarks share: a table of measurements beside peers and targets, `--short`, `--check`, `--json`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One figure. `target` is what it must reach ("min") or stay under ("max"); `peer` the same figure of another."""

    name: str
    unit: str
    ours: float
    target: float | None = None
    bound: Literal["min", "max"] = "max"
    peer: float | None = None
    peer_name: str = ""
    samples: list[float] = field(default_factory=list)

    @property
    def missed(self) -> bool:
        if self.target is None:
            return False
        return self.ours > self.target if self.bound == "max" else self.ours < self.target

    @property
    def ratio(self) -> float | None:
        """How far from the target, or else from the peer; 1 is even."""
        other = self.target if self.target is not None else self.peer
        return self.ours / other if other else None


@dataclass(frozen=True)
class Options:
    short: bool


def median_row(name: str, unit: str, samples: Sequence[float], target: float | None = None) -> Row:
    """The median of several runs, which must stay under `target`."""
    return Row(name, unit, statistics.median(samples), target, samples=[round(s, 4) for s in samples])


def quantile(samples: Sequence[float], q: float) -> float:
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def main(title: str, measure: Callable[[Options], list[Row]], packages: Sequence[str] = ()) -> None:
    """Measure, print, and end with exit code 1 where `--check` finds a target missed."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--short", action="store_true", help="smaller sizes, within a minute")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a target is missed")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    rows = measure(Options(short=arguments.short))
    about = {
        "title": title,
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} x {_processor()}, {platform.system()} {platform.release()}",
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }
    _show(title, rows)
    if arguments.json:
        arguments.json.write_text(json.dumps({**about, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")
    missed = [row for row in rows if row.missed]
    for row in missed:
        print(f"missed: {row.name}: {row.ours:g} {row.unit}, {row.bound} {row.target:g}")
    if arguments.check and missed:
        raise SystemExit(1)


def _show(title: str, rows: list[Row]) -> None:
    table = Table("measurement", "ours", "peer", "limit", "ratio", title=title)
    for row in rows:
        peer = f"{row.peer:.4g} ({row.peer_name})" if row.peer is not None else ""
        sign = "≤" if row.bound == "max" else "≥"
        limit = f"{sign} {row.target:g} {row.unit}" if row.target is not None else ""
        ratio = f"{row.ratio:.2f}" if row.ratio is not None else ""
        table.add_row(row.name, f"{row.ours:.4g} {row.unit}", peer, limit, f"{ratio} ✗" if row.missed else ratio)
    Console(width=120, highlight=False).print(table)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
