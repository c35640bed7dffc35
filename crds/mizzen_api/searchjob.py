"""SearchJob: many trials over a space of architectures and training settings, and the best of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from mizzen_api.contract import API_VERSION
from mizzen_api.meta import (
    MAX_INT32,
    ApiModel,
    FreeForm,
    LocalReference,
    Measured,
    ObjectMeta,
    PrinterColumn,
    Resources,
    RunPolicy,
    Status,
    ready_columns,
    rules,
)

MAX_BOUND = 1e15  # whole numbers up to here are exact as floats


class Objective(ApiModel):
    """What makes one trial better than another."""

    type: Literal["maximize", "minimize"] = Field("maximize", description="Which direction is better.")
    metric: str = Field("accuracy", description="Metric on the validation split.", min_length=1, max_length=64)
    goal: float | None = Field(None, description="The search ends as soon as a trial reaches this.")


class Parameter(ApiModel):
    """One dimension of the space: a list of values, or a range."""

    model_config = rules(
        (
            "has(self.min) == has(self.max) && has(self.values) != has(self.min)",
            "set either values, or both min and max",
        ),
        ("!(has(self.min) && has(self.max)) || self.min <= self.max", "min must not be above max"),
        (
            "!has(self.scale) || self.scale != 'log' || !has(self.min) || self.min > 0.0",
            "a log scale needs a min above 0",
        ),
    )

    name: str = Field(description="A field of the model's configuration, or lr.", min_length=1, max_length=64)
    # CEL sees only what has a type, and no structural schema says "number or string".
    values: list[float] | None = Field(None, description="Numbers to choose from.", min_length=1, max_length=256)
    min: float | None = Field(None, description="Lower end of the range, included.", ge=-MAX_BOUND, le=MAX_BOUND)
    max: float | None = Field(None, description="Upper end of the range, included.", ge=-MAX_BOUND, le=MAX_BOUND)
    scale: Literal["linear", "log"] = Field("linear", description="How the range is sampled.")
    integer: bool = Field(False, description="Only whole numbers of the range.")


class Algorithm(ApiModel):
    """How the next trial is chosen."""

    name: Literal["random", "tpe"] = Field("tpe", description="random, or tpe (tree-structured Parzen estimator).")
    seed: int = Field(7, description="Seed of the choices.", ge=0, le=MAX_INT32)


class EarlyStopping(ApiModel):
    """When a trial that does badly makes room for another."""

    name: Literal["asha"] = Field("asha", description="Asynchronous successive halving.")
    grace_period: int = Field(1, description="Epochs that every trial gets.", ge=1, le=10000)
    reduction_factor: int = Field(3, description="One in so many trials goes on at each rung.", ge=2, le=1000)


class SearchJobSpec(ApiModel):
    """The wanted search."""

    model_config = rules(
        ("self.parallelTrialCount <= self.maxTrialCount", "parallelTrialCount must not be above maxTrialCount"),
        ("self.datasetRef == oldSelf.datasetRef", "datasetRef is immutable: create another SearchJob"),
        ("self.parameters == oldSelf.parameters", "parameters is immutable: create another SearchJob"),
    )

    dataset_ref: LocalReference = Field(description="The Dataset to search on.")
    task: Literal["text-classification"] = Field("text-classification", description="Picks the family of models.")
    objective: Objective = Field(Objective(), description="What to optimise.")
    parameters: list[Parameter] = Field(
        description="The space.",
        min_length=1,
        max_length=64,
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "self.all(p, self.exists_one(q, q.name == p.name))",
                    "message": "two parameters have the same name: give all their values to one",
                }
            ]
        },
    )
    algorithm: Algorithm = Field(Algorithm(), description="How trials are chosen.")
    early_stopping: EarlyStopping | None = Field(None, description="When bad trials end early; left out: never.")
    max_trial_count: int = Field(10, description="Trials in all.", ge=1, le=100000)
    parallel_trial_count: int = Field(1, description="Trials at the same time.", ge=1, le=1000)
    max_failed_trial_count: int = Field(3, description="Failed trials at which the search gives up.", ge=0, le=100000)
    epochs: int = Field(3, description="Epochs of a trial that is not stopped early.", ge=1, le=10000)
    train_fraction: float = Field(1.0, description="Part of the train split that trials see.", gt=0, le=1)
    resources_per_trial: Resources = Field(Resources(cpu="1", memory="2Gi"), description="Compute of each trial.")
    run_policy: RunPolicy = Field(RunPolicy(), description="How the job runs and ends.")


class TrialCounts(ApiModel):
    """Trials by state."""

    succeeded: int = Field(0, description="Ran to the end.")
    pruned: int = Field(0, description="Stopped early.")
    running: int = Field(0, description="Run now.")
    failed: int = Field(0, description="Ended with an error.")


class Trial(ApiModel):
    """One point of the space and what it reached."""

    name: str = Field("", description="Name of the trial, as in MLflow.")
    parameters: FreeForm = Field(default_factory=dict, description="The trial's point of the space.")
    metrics: dict[str, Measured] = Field(default_factory=dict, description="Its best metrics on the validation split.")


class SearchJobStatus(Status):
    """How far the search is, and its best trial so far."""

    trials: TrialCounts = Field(TrialCounts(), description="Trials by state.")
    current_optimal_trial: Trial | None = Field(None, description="The best trial so far.")
    dataset_fingerprint: str | None = Field(None, description="The version of the Dataset that the search runs on.")
    model: str | None = Field(None, description="The family of models that the search runs on.")
    start_time: str | None = Field(None, description="When the first pod was asked for.")
    completion_time: str | None = Field(None, description="When the job ended.")
    progress_percentage: int | None = Field(None, description="Part of the trials that are done.", ge=0, le=100)


class SearchJob(ApiModel):
    """A search for the best architecture and training settings on a Dataset."""

    KIND: ClassVar[Literal["SearchJob"]] = "SearchJob"
    PLURAL: ClassVar[str] = "searchjobs"
    SHORT_NAMES: ClassVar[list[str]] = ["msj"]
    COLUMNS: ClassVar[Sequence[PrinterColumn]] = ready_columns(
        PrinterColumn(name="Done", type="integer", json_path=".status.trials.succeeded"),
        PrinterColumn(name="Pruned", type="integer", json_path=".status.trials.pruned"),
        PrinterColumn(name="Best", json_path=".status.currentOptimalTrial.metrics.accuracy"),
        condition="Succeeded",
    )

    api_version: Literal["mizzen.dev/v1alpha1"] = API_VERSION
    kind: Literal["SearchJob"] = "SearchJob"
    metadata: ObjectMeta
    spec: SearchJobSpec
    status: SearchJobStatus = Field(default_factory=SearchJobStatus)
