"""Dataset: sources, transforms and splits that become one fingerprinted, immutable version after another."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar, Literal

from pydantic import Field

from mizzen_api.contract import API_VERSION
from mizzen_api.dataset_drift import Drift
from mizzen_api.dataset_expectations import Expectation
from mizzen_api.dataset_sources import Schema, Source
from mizzen_api.dataset_transforms import Tokenize, Transform
from mizzen_api.meta import (
    MAX_INT32,
    QUANTITY,
    ApiModel,
    Measured,
    ObjectMeta,
    PrinterColumn,
    Resources,
    Status,
    ready_columns,
    rules,
)

__all__ = ["Dataset", "DatasetSpec", "DatasetStatus", "Source", "Split", "Tokenize", "Transform"]


class Split(ApiModel):
    """Parts of the rows for training, for choosing and for the final measurement."""

    model_config = rules(
        (
            "self.train + self.validation + self.test > 0.999 && self.train + self.validation + self.test < 1.001",
            "train, validation and test must add up to 1",
        ),
        ("!(has(self.group) && has(self.time))", "split by group or by time, not both"),
    )

    train: float = Field(0.8, description="Part of the rows to train on.", gt=0, le=1)
    validation: float = Field(0.1, description="Part of the rows to choose models with.", ge=0, lt=1)
    test: float = Field(0.1, description="Part of the rows that only the final measurement sees.", ge=0, lt=1)
    stratify: bool = Field(True, description="Keep the proportions of the target's classes in every part.")
    seed: int = Field(
        7, description="Seed of the shuffle: the same seed and rows give the same parts.", ge=0, le=2**31 - 1
    )
    group: str | None = Field(
        None,
        description="Column whose equal values stay in one part, such as a customer.",
        min_length=1,
        max_length=256,
    )
    time: str | None = Field(
        None,
        description="Column of times: the oldest rows train, the newest test.",
        min_length=1,
        max_length=256,
    )


class Refresh(ApiModel):
    """When to read the sources again."""

    schedule: str = Field(
        description="Cron expression: minute, hour, day of month, month, day of week; or @hourly, @daily, @weekly, "
        "@monthly.",
        pattern=r"^(@(hourly|daily|weekly|monthly)|\S+( \S+){4})$",
        max_length=128,
    )
    time_zone: str = Field("Etc/UTC", description="Time zone of the schedule, as Europe/Berlin.", max_length=64)


Engine = Literal["polars", "ray"]


class DatasetScaling(ApiModel):
    """Workers of the engine ray; the pod that reads the sources is their head."""

    model_config = rules(("self.minWorkers <= self.maxWorkers", "minWorkers must not be above maxWorkers"))

    min_workers: int = Field(1, description="Fitting waits until so many workers are there.", ge=1, le=1000)
    max_workers: int = Field(2, description="Pods that are asked for; work goes to those that come.", ge=1, le=1000)
    resources_per_worker: Resources = Field(Resources(cpu="1", memory="2Gi"), description="Compute of each worker.")
    min_source_size: str = Field(
        "8Gi",
        description="With engine auto: size of the sources' files, as they are stored, from which on it is ray.",
        max_length=32,
        pattern=QUANTITY,
    )


class DatasetSpec(ApiModel):
    """The wanted dataset."""

    sources: list[Source] = Field(
        description="Where rows come from: one below the other, or joined.", min_length=1, max_length=64
    )
    transforms: list[Transform] = Field(
        default_factory=list, description="Steps from raw columns to features, in this order.", max_length=64
    )
    target: str = Field(description="Column to predict.", min_length=1, max_length=256)
    target_type: Literal["auto", "class", "number"] = Field(
        "auto",
        description="Whether the target is a class or a number; auto takes fractions as numbers, all else as classes.",
    )
    column_types: Schema = Field(
        default_factory=dict, description="Types of columns where they are not to be inferred, by column."
    )
    split: Split = Field(Split(), description="How rows are divided.")
    max_bad_rows: int = Field(
        0, description="Rows that may be set aside because they cannot be read.", ge=0, le=MAX_INT32
    )
    expectations: list[Expectation] = Field(
        default_factory=list, description="What the rows must be like.", max_length=256
    )
    drift: Drift | None = Field(None, description="How much a version may differ from a reference.")
    refresh: Refresh | None = Field(None, description="Read the sources again on a schedule.")
    suspend: bool = Field(
        False, description="Start nothing, and end what runs; the newest version stays, and stays Ready."
    )
    keep: int = Field(10, description="Newest versions to keep in the artifact store.", ge=1, le=10000)
    ttl_seconds_after_finished: int | None = Field(
        None,
        description="Seconds after which the pods of a finished materialisation are removed, once the status has what "
        "they reported.",
        ge=0,
        le=MAX_INT32,
    )
    engine: Literal["polars", "ray", "auto"] = Field(
        "polars",
        description="polars makes a version in one pod, ray on a cluster of its own; auto takes ray from "
        "scaling.minSourceSize on. The version is the same, to the bit.",
    )
    scaling: DatasetScaling = Field(DatasetScaling(), description="Workers of the engine ray.")
    resources: Resources = Field(Resources(cpu="500m", memory="1Gi"), description="Compute of the materialising pod.")
    backoff_limit: int = Field(
        3, description="Retries of a materialisation that failed for want of a system.", ge=0, le=100
    )


class ExpectationCounts(ApiModel):
    """Expectations by their outcome."""

    passed: int = Field(0, description="Expectations that hold.")
    warned: int = Field(0, description="Expectations that do not hold, and only warn.")
    dropped: int = Field(0, description="Expectations that dropped rows.")


class DriftStatus(ApiModel):
    """How far a version is from its reference."""

    drifted: bool = Field(False, description="Whether the version as a whole has drifted.")
    features: int = Field(0, description="Columns that were compared.")
    drifted_features: int = Field(0, description="Columns that have drifted.")
    score: Measured | None = Field(None, description="Part of the columns that have drifted.")
    reference: str | None = Field(None, description="What it was compared with.")
    worst: str | None = Field(None, description="The column that differs most.")


class DatasetStatus(Status):
    """The newest version, and how it came about."""

    version: int = Field(0, description="Counts up with each new fingerprint; 0 before the first version.")
    fingerprint: str | None = Field(None, description="sha256 over source bytes, pipeline and split.")
    uri: str | None = Field(None, description="Folder of the version in the artifact store.")
    rows: int | None = Field(None, description="Rows of all parts together.")
    bad_rows: int = Field(0, description="Rows that were set aside because they could not be read.")
    dropped_rows: int = Field(0, description="Rows that an expectation dropped.")
    expectations: ExpectationCounts | None = Field(None, description="How the newest version fared.")
    drift: DriftStatus | None = Field(None, description="How the newest version differs from its reference.")
    rows_per_second: Measured | None = Field(None, description="Rows read a second, while it runs and at the end.")
    engine: Engine | None = Field(None, description="What makes the version, or made it: polars or ray.")
    mlflow_run: str | None = Field(None, description="Run in MLflow with the version's report and profile.")
    run: int = Field(0, description="Scheduled readings of this generation.")
    last_refresh_time: datetime | None = Field(None, description="When the sources were last read on schedule.")
    next_refresh_time: datetime | None = Field(None, description="When the sources are read again.")
    classes: list[str] = Field(default_factory=list, description="Classes of the target, in the order of their ids.")
    progress_percentage: int | None = Field(None, description="Part of the materialisation that is done.", ge=0, le=100)


class Dataset(ApiModel):
    """A dataset: from raw files to a fingerprinted version that training and serving share."""

    KIND: ClassVar[Literal["Dataset"]] = "Dataset"
    PLURAL: ClassVar[str] = "datasets"
    SHORT_NAMES: ClassVar[list[str]] = ["mds"]
    COLUMNS: ClassVar[Sequence[PrinterColumn]] = ready_columns(
        PrinterColumn(name="Rows", type="integer", json_path=".status.rows"),
        PrinterColumn(name="Version", type="integer", json_path=".status.version"),
        PrinterColumn(name="Drift", type="number", json_path=".status.drift.score"),
        PrinterColumn(name="Fingerprint", json_path=".status.fingerprint", priority=1),
    )

    api_version: Literal["mizzen.dev/v1alpha1"] = API_VERSION
    kind: Literal["Dataset"] = "Dataset"
    metadata: ObjectMeta
    spec: DatasetSpec
    status: DatasetStatus = Field(default_factory=DatasetStatus)
