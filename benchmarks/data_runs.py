"""One run of read → fit → transform → write, in a process of its own, for benchmarks/data.py.

    python data_runs.py ours|sklearn TABLE.csv FOLDER

Both scale nine numbers, fill their gaps with the mean, one-hot encode two categories, split 80/10/10 and write Parquet.
Ours also profiles every column, keeps duplicates together and writes manifest and profile. Prints JSON: seconds of
the clock and of CPUs without imports, and the peak of the memory in MB.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

NUMBERS = [
    "dep_time", "sched_dep_time", "dep_delay", "arr_time", "sched_arr_time", "air_time", "distance", "hour", "minute",
]  # fmt: skip
CATEGORIES = ["carrier", "dest"]
TARGET = "origin"


Taken = tuple[float, float]  # seconds of the clock, seconds of CPUs


def _clocks() -> Taken:
    return time.perf_counter(), time.process_time()


def _since(before: Taken) -> Taken:
    now = _clocks()
    return now[0] - before[0], now[1] - before[1]


def ours(table: Path, folder: Path) -> Taken:
    import jinja2  # noqa: F401
    import polars  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import tokenizers  # noqa: F401

    from mizzen.data import CategoricalEncoder, DataPipeline, FeatureScaler, Imputer, materialize, sources  # noqa: F401

    taken = _clocks()
    steps = [
        Imputer(columns=NUMBERS, method="mean"),
        FeatureScaler(columns=NUMBERS, method="standard"),
        CategoricalEncoder(columns=CATEGORIES, handle_unknown="ignore"),
    ]
    DataPipeline([str(table)], steps, TARGET).materialize(folder)
    return _since(taken)


def sklearn(table: Path, folder: Path) -> Taken:
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    taken = _clocks()
    frame = pd.read_csv(table)
    train, rest = train_test_split(frame, test_size=0.2, random_state=7, stratify=frame[TARGET])
    validation, test = train_test_split(rest, test_size=0.5, random_state=7)
    transform = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS),
            ("categories", OneHotEncoder(handle_unknown="ignore", sparse_output=False), CATEGORIES),
        ]
    ).set_output(transform="pandas")
    parts = {"train": (train, transform.fit_transform(train)), "validation": (validation, None), "test": (test, None)}
    folder.mkdir(parents=True, exist_ok=True)
    for name, (raw, features) in parts.items():
        made = transform.transform(raw) if features is None else features
        made.assign(label=raw[TARGET]).to_parquet(folder / f"{name}.parquet", compression="zstd")
    return _since(taken)


def main() -> None:
    which, table, folder = sys.argv[1:]
    seconds, cpu = {"ours": ours, "sklearn": sklearn}[which](Path(table), Path(folder))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "cpu": cpu, "megabytes": peak}))


if __name__ == "__main__":
    main()
