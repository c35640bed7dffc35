"""One contestant's profiles and drift report, in a process and a virtual environment of its own; see drift.py.

    python drift_runs.py mizzen|evidently|whylogs REFERENCE.parquet CURRENT.parquet

Prints JSON: seconds without imports and reading, the peak of the memory in MB, and how many columns have drifted.
"""

from __future__ import annotations

import json
import re
import sys
import time
import warnings
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")


def mizzen(reference: str, current: str) -> tuple[float, int]:
    import polars as pl

    from mizzen.data.drift import compare
    from mizzen.data.profiles import Profile
    from mizzen_api.dataset_drift import Drift

    frames = [pl.read_parquet(path) for path in (reference, current)]
    started = time.perf_counter()
    profiles = []
    for frame in frames:
        profile = Profile.empty(frame.schema)
        for chunk in frame.iter_slices(262_144):
            profile.update(chunk)
        profiles.append(Profile.from_json(profile.to_json()))
    report = compare(*profiles, Drift())
    return time.perf_counter() - started, sum(feature.drifted for feature in report.features)


def evidently(reference: str, current: str) -> tuple[float, int]:
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset, DataSummaryPreset

    frames = [pd.read_parquet(path) for path in (current, reference)]
    numbers = [name for name in frames[0] if pd.api.types.is_numeric_dtype(frames[0][name])]
    others = [name for name in frames[0] if name not in numbers]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=others)
    started = time.perf_counter()
    pair = [Dataset.from_pandas(frame, data_definition=definition) for frame in frames]
    found = Report([DataSummaryPreset(), DataDriftPreset()]).run(*pair).dict()
    seconds = time.perf_counter() - started
    counts = [m["value"]["count"] for m in found["metrics"] if "DriftedColumnsCount" in m["metric_name"]]
    return seconds, int(counts[0])


def whylogs(reference: str, current: str) -> tuple[float, int]:
    import pandas as pd
    import whylogs as why
    from whylogs.viz.drift.column_drift_algorithms import calculate_drift_scores

    frames = [pd.read_parquet(path) for path in (current, reference)]
    started = time.perf_counter()
    views: list[Any] = [why.log(pandas=frame).view() for frame in frames]
    scores = calculate_drift_scores(target_view=views[0], reference_view=views[1], with_thresholds=True)
    seconds = time.perf_counter() - started
    return seconds, sum(score is not None and score["drift_category"] == "DRIFT" for score in scores.values())


def main() -> None:
    contestant, reference, current = sys.argv[1:]
    run = {"mizzen": mizzen, "evidently": evidently, "whylogs": whylogs}[contestant]
    seconds, drifted = run(reference, current)
    print(json.dumps({"seconds": seconds, "megabytes": peak(), "drifted": drifted}))


def peak() -> float:
    """Not by getrusage, whose maximum begins with that of the process that started this one."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


if __name__ == "__main__":
    main()
