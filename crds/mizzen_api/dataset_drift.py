"""Drift of a dataset version against what came before: what is compared, how, and what follows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mizzen_api.meta import ApiModel, LocalReference, rules

Method = Literal["auto", "psi", "js", "wasserstein", "ks", "chi2"]


class ColumnDrift(ApiModel):
    """What holds for one column instead of the defaults."""

    name: str = Field(description="Column, as the source names it.", min_length=1, max_length=256)
    method: Method = Field("auto", description="Test that decides for this column; auto chooses by its type.")
    threshold: float | None = Field(
        None, description="Effect from which on this column counts as drifted; unset, the dataset's threshold.", gt=0
    )


class Drift(ApiModel):
    """How a version is compared with a reference. A difference counts by its size, never by a p-value alone."""

    model_config = rules(
        (
            "self.reference != 'dataset' || has(self.datasetRef)",
            "reference: dataset needs datasetRef, for example {name: tweets}",
        ),
        (
            "self.reference != 'modelservice' || has(self.modelServiceRef)",
            "reference: modelservice needs modelServiceRef, for example {name: tweets}",
        ),
    )

    reference: Literal["previous", "dataset", "modelservice"] = Field(
        "previous", description="What to compare with: the previous version, a Dataset, or a ModelService's traffic."
    )
    dataset_ref: LocalReference | None = Field(None, description="The Dataset whose newest version is the reference.")
    model_service_ref: LocalReference | None = Field(
        None, description="The ModelService whose recent requests are the reference."
    )
    method: Method = Field(
        "auto",
        description="Test that decides for each column. auto: PSI and Wasserstein distance for numbers, Jensen-Shannon "
        "distance for categories and booleans, and for texts that of their lengths and of hashed values.",
    )
    threshold: float = Field(
        0.1,
        description="Effect from which on a column counts as drifted: PSI, Jensen-Shannon distance (base 2), "
        "Wasserstein distance in standard deviations of the reference, Kolmogorov-Smirnov distance, or Cramér's V. "
        "With few rows it is raised to what chance alone would give once in 10,000 comparisons.",
        gt=0,
    )
    drift_share: float = Field(
        0.5, description="Part of the columns that must have drifted for the dataset to count as drifted.", gt=0, le=1
    )
    multivariate: bool = Field(
        True, description="Also ask whether a classifier can tell rows of the two apart, which sees broken relations."
    )
    multivariate_threshold: float = Field(
        0.6,
        description="Area under the ROC curve of that classifier from which on the dataset is drifted.",
        gt=0.5,
        le=1,
    )
    min_rows: int = Field(
        100, description="Rows that both sides must have; with fewer there is no verdict.", ge=30, le=2**31 - 1
    )
    exclude: list[str] = Field(default_factory=list, description="Columns that are not compared.", max_length=1024)
    columns: list[ColumnDrift] = Field(
        default_factory=list,
        description="What holds for single columns.",
        max_length=1024,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    on_drift: Literal["Warn", "Fail"] = Field(
        "Warn", description="Warn publishes the version and says so in the status; Fail does not publish it."
    )
