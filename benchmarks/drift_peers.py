"""One peer's profile and drift report, run by benchmarks/drift.py in the peer's own virtual environment.

    python drift_peers.py evidently|whylogs REFERENCE.parquet CURRENT.parquet

Prints JSON: seconds without imports and reading, and the peak of the memory in MB.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings
from typing import Any

import pandas as pd

warnings.simplefilter("ignore")


def evidently(reference: pd.DataFrame, current: pd.DataFrame) -> float:
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset, DataSummaryPreset

    numbers = [name for name in current if pd.api.types.is_numeric_dtype(current[name])]
    definition = DataDefinition(
        numerical_columns=numbers, categorical_columns=[name for name in current if name not in numbers]
    )
    started = time.perf_counter()
    pair = [Dataset.from_pandas(frame, data_definition=definition) for frame in (current, reference)]
    Report([DataSummaryPreset(), DataDriftPreset()]).run(*pair).dict()
    return time.perf_counter() - started


def whylogs(reference: pd.DataFrame, current: pd.DataFrame) -> float:
    import whylogs as why
    from whylogs.viz.drift.column_drift_algorithms import calculate_drift_scores

    started = time.perf_counter()
    views: list[Any] = [why.log(pandas=frame).view() for frame in (current, reference)]
    calculate_drift_scores(target_view=views[0], reference_view=views[1], with_thresholds=True)
    return time.perf_counter() - started


def main() -> None:
    peer, *paths = sys.argv[1:]
    reference, current = map(pd.read_parquet, paths)
    seconds = {"evidently": evidently, "whylogs": whylogs}[peer](reference, current)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "megabytes": peak}))


if __name__ == "__main__":
    main()
