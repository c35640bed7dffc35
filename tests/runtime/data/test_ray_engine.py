"""Ray makes, to the bit, what one machine makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from mizzen.data import (
    Bucketizer,
    CategoricalEncoder,
    DataPipeline,
    FeatureScaler,
    Imputer,
    OutlierClipper,
    TfIdf,
)
from mizzen.data.store import DatasetVersion

from .builders import table

pytestmark = pytest.mark.cluster

STEPS = (
    Imputer(columns=["age"], method="median"),
    OutlierClipper(columns=["price"], upper_quantile=0.9),
    FeatureScaler(columns=["age", "price"], method="robust"),
    Bucketizer(columns=["visits"], buckets=5),
    CategoricalEncoder(columns=["country"], method="target"),
    TfIdf(column="text", max_features=50),
)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_one_machine_and_a_cluster_make_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr("mizzen.data.frames.FrameSource.chunk_rows", 170)
    frame = table(1500)
    here = DataPipeline(frame, STEPS, "label").materialize(tmp_path / "here")
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    try:
        there = DataPipeline(frame, STEPS, "label", engine="ray").materialize(tmp_path / "there")
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # what was fetched before must not count
        # A store that workers do not mount: Ray carries the chunks.
        apart = DataPipeline(frame, STEPS, "label", engine="ray").materialize("memory://apart")
    finally:
        ray.shutdown()
    for name in ("pipeline.json", "profile.json", "manifest.json", "data/train.parquet", "data/test.parquet"):
        assert (here.folder / name).read_bytes() == (there.folder / name).read_bytes(), name
        assert (apart.paper(name) or there.folder).read_bytes() == (there.folder / name).read_bytes(), name
    assert isinstance(there, DatasetVersion)
