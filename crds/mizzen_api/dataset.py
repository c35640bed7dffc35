"""Dataset: sources, transforms and splits that become one fingerprinted, immutable version after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from mizzen_api.contract import API_VERSION
from mizzen_api.meta import ApiModel, ObjectMeta, PrinterColumn, Resources, Status, ready_columns, rules


class Source(ApiModel):
    """Where rows come from."""

    uri: str = Field(
        description="CSV file to read: a path, file://, s3:// or another fsspec URI, or package://PACKAGE/PATH for a "
        "file that an installed Python package carries.",
        min_length=1,
        max_length=2048,
    )


class Tokenize(ApiModel):
    """Turn a text column into token ids with a vocabulary that is trained on the train split."""

    column: str = Field(description="Text column.", min_length=1, max_length=256)
    vocab_size: int = Field(8192, description="Entries of the vocabulary.", ge=64, le=262144)
    max_length: int = Field(64, description="Tokens kept of each text; longer texts are cut.", ge=1, le=8192)
    lowercase: bool = Field(True, description="Fold case before tokenising.")


class Transform(ApiModel):
    """One step from raw columns to features. Fitted on the train split only and replayed in serving."""

    model_config = rules(("has(self.tokenize)", "a transform names exactly one step: set tokenize"))

    tokenize: Tokenize | None = Field(None, description="Text to token ids.")


class Split(ApiModel):
    """Parts of the rows for training, for choosing and for the final measurement."""

    model_config = rules(
        (
            "self.train + self.validation + self.test > 0.999 && self.train + self.validation + self.test < 1.001",
            "train, validation and test must add up to 1",
        )
    )

    train: float = Field(0.8, description="Part of the rows to train on.", gt=0, le=1)
    validation: float = Field(0.1, description="Part of the rows to choose models with.", ge=0, lt=1)
    test: float = Field(0.1, description="Part of the rows that only the final measurement sees.", ge=0, lt=1)
    stratify: bool = Field(True, description="Keep the proportions of the target's classes in every part.")
    seed: int = Field(7, description="Seed of the shuffle: the same seed and rows give the same parts.", ge=0)


class DatasetSpec(ApiModel):
    """The wanted dataset."""

    sources: list[Source] = Field(description="Files to read, one below the other.", min_length=1, max_length=64)
    transforms: list[Transform] = Field(
        default_factory=list, description="Steps from raw columns to features, in this order.", max_length=64
    )
    target: str = Field(description="Column to predict.", min_length=1, max_length=256)
    split: Split = Field(Split(), description="How rows are divided.")
    resources: Resources = Field(Resources(cpu="500m", memory="1Gi"), description="Compute of the materialising pod.")
    backoff_limit: int = Field(3, description="Retries of a materialisation that failed for want of a system.", ge=0)


class DatasetStatus(Status):
    """The newest version, and how it came about."""

    version: int = Field(0, description="Counts up with each new fingerprint; 0 before the first version.")
    fingerprint: str | None = Field(None, description="sha256 over source bytes, pipeline and split.")
    uri: str | None = Field(None, description="Folder of the version in the artifact store.")
    rows: int | None = Field(None, description="Rows of all parts together.")
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
        PrinterColumn(name="Fingerprint", json_path=".status.fingerprint", priority=1),
    )

    api_version: Literal["mizzen.dev/v1alpha1"] = API_VERSION
    kind: Literal["Dataset"] = "Dataset"
    metadata: ObjectMeta
    spec: DatasetSpec
    status: DatasetStatus = Field(default_factory=DatasetStatus)
