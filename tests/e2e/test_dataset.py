"""A table's way through the kind Dataset: joined, judged, encoded, and compared with the version before; a query's."""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mizzen.data.sources import CHUNK_ROWS
from tests.e2e import manifests
from tests.e2e.platform_under_test import BIN, Platform, until

pytestmark = pytest.mark.cluster

PRODUCTS = [{"product": f"p{number}", "price": 10.0 + number} for number in range(8)]
SPEC: dict[str, Any] = {
    "sources": [
        {"uri": "file:///artifacts/raw/visits/*.csv"},
        {"uri": "file:///artifacts/raw/products.json", "join": {"on": ["product"]}},
    ],
    "transforms": [
        {"impute": {"columns": ["seconds"], "indicator": True}},
        {"scale": {"columns": ["seconds", "price"], "method": "minmax"}},
        {"encode": {"columns": ["country"]}},
    ],
    "target": "bought",
    "expectations": [
        {"column": "seconds", "max": 600, "onViolation": "Drop"},
        {"column": "seconds", "maxNullFraction": 0.01, "onViolation": "Warn"},
        {"columns": ["visit"], "unique": True},
    ],
    "drift": {"reference": "previous"},
    "resources": {"cpu": "100m", "memory": "512Mi"},
}
ROWS, LONG = 2000, 20  # visits of a file, and those of them that last too long


def write_visits(file: Path, first: int, countries: list[str]) -> None:
    """Visits with a missing duration here and there, and some that last too long."""
    draw = random.Random(first)
    lines = ["visit,product,country,seconds,bought"]
    for number in range(ROWS):
        seconds = "9000" if number < LONG else "" if number % 20 == 0 else str(draw.randrange(5, 500))
        bought = draw.choice(["yes", "no"])
        lines.append(f"v{first + number},p{draw.randrange(8)},{draw.choice(countries)},{seconds},{bought}")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n")


def published(raw: Path, status: dict[str, Any]) -> Path:
    """The version's folder as this machine sees it."""
    return raw.parent / str(status["uri"]).removeprefix("file:///artifacts/")


def at_version(platform: Platform, version: int) -> dict[str, Any] | None:
    status: dict[str, Any] = platform.get("dataset/visits")["status"]
    return status if status["version"] == version else None


def in_mlflow(platform: Platform, run: str) -> set[str]:
    """Names of a run's artifacts."""
    address = platform.get("service/mizzen-mlflow", "-n", "mizzen-system")["spec"]["clusterIP"]
    url = f"http://{address}:5000/api/2.0/mlflow/artifacts/list?run_id={run}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return {file["path"] for file in json.load(answer)["files"]}


def test_a_table_becomes_versions_that_are_judged_and_compared(platform: Platform, raw: Path) -> None:
    write_visits(raw / "visits" / "1.csv", 0, ["de", "fr", "it"])
    (raw / "products.json").write_text(json.dumps(PRODUCTS))
    platform.apply(manifests.resource("Dataset", "visits", SPEC))
    platform.wait("dataset/visits", "Ready", timeout=120)
    first = platform.get("dataset/visits")["status"]
    assert (first["version"], first["rows"], first["droppedRows"]) == (1, ROWS - LONG, LONG)
    assert first["expectations"] == {"passed": 1, "warned": 1, "dropped": 1}
    assert first.get("drift") is None, "the first version has nothing to be compared with"

    folder = published(raw, first)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    assert manifest["features"] == [
        "country=de", "country=fr", "country=it", "seconds", "price", "seconds_missing",
    ]  # fmt: skip
    parts = [pl.read_parquet(folder / "data" / f"{part}.parquet") for part in ("train", "validation", "test")]
    rows = pl.concat(parts)
    assert (parts[0]["seconds"].min(), parts[0]["seconds"].max()) == (0, 1), "scaled by the train split"
    assert rows["seconds"].null_count() == 0
    assert rows["seconds_missing"].sum() == ROWS // 20 - 1  # the first of them lasts too long
    rejected = pl.read_parquet(folder / "rejected.parquet")
    assert rejected.height == LONG
    assert rejected["seconds"].unique().to_list() == [9000]
    assert "visits" in (folder / "report.html").read_text()
    assert {"report.html", "report.json", "profile.json"} <= in_mlflow(platform, first["mlflowRun"])

    write_visits(raw / "visits" / "2.csv", ROWS, ["pt", "es"])
    platform.apply(manifests.resource("Dataset", "visits", {**SPEC, "keep": 2}))
    second = until(lambda: at_version(platform, 2), 120)
    assert second["rows"] == 2 * (ROWS - LONG)
    assert second["fingerprint"] != first["fingerprint"]
    assert second["drift"]["worst"] == "country"
    assert second["drift"]["driftedFeatures"] >= 1
    assert "drifted" in platform.condition("dataset/visits", "Ready")["message"]

    command = [BIN / "mizzen", "data", "diff", "visits@1", "visits@2", "--artifacts", raw.parent]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "2.csv" in done.stdout
    platform.kubectl("delete", "dataset", "visits")


def test_the_rows_of_a_query_come_through_a_secret(platform: Platform, raw: Path) -> None:
    with contextlib.closing(sqlite3.connect(raw / "shop.db")) as database, database:
        database.execute("CREATE TABLE orders (id INTEGER, amount REAL, country TEXT, returned TEXT)")
        database.executemany(
            "INSERT INTO orders VALUES (?, ?, ?, ?)",
            [(n, n * 1.5, "de" if n % 3 else "fr", "yes" if n % 4 else "no") for n in range(600)],
        )
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "shop"},
        "stringData": {"url": "sqlite:////artifacts/raw/shop.db"},
    }
    query = {
        "query": "SELECT * FROM orders WHERE id >= :first ORDER BY id",
        "parameters": {"first": 100},
        "secretRef": {"name": "shop"},
    }
    spec = {
        **SPEC,
        "sources": [{"sql": query}],
        "transforms": [{"encode": {}}],
        "target": "returned",
        "expectations": [],
    }
    platform.apply(secret, manifests.resource("Dataset", "orders", {**spec, "resources": SPEC["resources"]}))
    platform.wait("dataset/orders", "Ready", timeout=120)
    assert platform.get("dataset/orders")["status"]["rows"] == 500
    config = json.dumps(platform.get("configmaps", "-l", "mizzen.dev/name=orders"))
    assert "sqlite:" not in config, "the database's URL stays in the Secret"
    platform.kubectl("delete", "dataset", "orders")
    platform.kubectl("delete", "secret", "shop")


def test_ray_and_one_pod_make_the_same_version(platform: Platform, raw: Path) -> None:
    """Sources of more than a chunk, else there would be nothing to share."""
    lines = (f"{n % 977},{('de', 'fr', 'it')[n % 3]},{'yes' if n % 7 else 'no'}" for n in range(CHUNK_ROWS + 9000))
    (raw / "many.csv").write_text("amount,country,returned\n" + "\n".join(lines) + "\n")
    spec = {
        "sources": [{"uri": "file:///artifacts/raw/many.csv"}],
        "transforms": [{"scale": {"columns": ["amount"], "method": "robust"}}, {"encode": {"columns": ["country"]}}],
        "target": "returned",
        "resources": {"cpu": "100m", "memory": "1Gi"},
        "scaling": {"minSourceSize": "1Mi", "maxWorkers": 1, "resourcesPerWorker": {"cpu": "100m", "memory": "512Mi"}},
    }
    engines = {"many-polars": "polars", "many-ray": "auto"}
    platform.apply(
        *(manifests.resource("Dataset", name, {**spec, "engine": engine}) for name, engine in engines.items())
    )
    for name in engines:
        platform.wait(f"dataset/{name}", "Ready", timeout=120)
    one, ray = (platform.get(f"dataset/{name}")["status"] for name in engines)
    assert (one["engine"], ray["engine"]) == ("polars", "ray")
    assert one["fingerprint"] == ray["fingerprint"]
    for file in (
        "data/train.parquet",
        "data/validation.parquet",
        "data/test.parquet",
        "pipeline.json",
        "manifest.json",
    ):
        assert (published(raw, one) / file).read_bytes() == (published(raw, ray) / file).read_bytes(), file
    log = platform.kubectl("logs", "-l", "mizzen.dev/name=many-ray,mizzen.dev/role=materialize").stdout
    assert "1 of 1 workers joined" in log, "a worker did it, not the head"
    until(lambda: not platform.pods("mizzen.dev/name=many-ray,mizzen.dev/role=workers"), 60)
    platform.kubectl("delete", "dataset", *engines)
