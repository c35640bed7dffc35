"""TrainingJob: elastic, fault-tolerant training of one model on one Dataset, ending in a registered version."""

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

MAX_RATE = 1000.0  # far beyond what trains anything; far below what arithmetic cannot hold


class ModelSource(ApiModel):
    """The model to train: the winner of a search, or one by name."""

    model_config = rules(
        ("has(self.searchJobRef) != has(self.name)", "set exactly one of searchJobRef and name"),
        ("!has(self.config) || has(self.name)", "config goes with name; a search brings its own"),
    )

    search_job_ref: LocalReference | None = Field(None, description="Train the optimal trial of this SearchJob.")
    name: str | None = Field(None, description="A model of Mizzen: text-transformer or text-bag.", max_length=64)
    config: FreeForm | None = Field(None, description="Settings of the named model, and lr.")


class Trainer(ApiModel):
    """How gradients are made and used."""

    strategy: Literal["ddp"] = Field("ddp", description="Distributed data parallel.")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="Arithmetic of forward and backward.")
    epochs: int = Field(3, description="Passes over the train split.", ge=1, le=100000)
    batch_size: int = Field(256, description="Rows of one optimizer step, over all workers.", ge=1, le=1048576)
    learning_rate: float | None = Field(
        None, description="Peak learning rate; wins over the model's lr.", gt=0, le=MAX_RATE
    )
    weight_decay: float = Field(0.01, description="Decoupled weight decay of AdamW.", ge=0, le=MAX_RATE)
    gradient_accumulation_steps: int = Field(1, description="Micro-batches in one optimizer step.", ge=1, le=4096)
    seed: int = Field(7, description="Seed of initial weights and of the order of rows.", ge=0, le=MAX_INT32)


class Scaling(ApiModel):
    """Between how many workers the training may run, and what each gets."""

    model_config = rules(("self.minWorkers <= self.maxWorkers", "minWorkers must not be above maxWorkers"))

    min_workers: int = Field(1, description="Training waits until so many workers are there.", ge=1, le=1000)
    max_workers: int = Field(1, description="Training takes up to so many workers.", ge=1, le=1000)
    resources_per_worker: Resources = Field(Resources(cpu="1", memory="2Gi"), description="Compute of each worker.")


class Checkpoint(ApiModel):
    """How much a lost head may cost."""

    every_steps: int = Field(100, description="Optimizer steps between durable checkpoints.", ge=1, le=MAX_INT32)
    keep: int = Field(2, description="Newest checkpoints to keep.", ge=1, le=100)


class Gate(ApiModel):
    """What a version must reach before it may carry the alias."""

    model_config = rules(("has(self.min) || has(self.max)", "set min, max or both"))

    metric: str = Field("accuracy", description="Metric on the test split.", min_length=1, max_length=64)
    min: float | None = Field(None, description="The least that passes.")
    max: float | None = Field(None, description="The most that passes.")


class Register(ApiModel):
    """Where the trained model goes."""

    # MLflow would say so only once the model is trained; `@` and `'` would break URIs and its search.
    model_config = rules(
        (
            r"""self.name.matches("^[^/:@'.\\s][^/:@']*$")""",
            "name must not contain / : @ or ', nor begin with a dot or a blank: the model registry refuses it",
        ),
        (
            '!has(self.alias) || self.alias.matches("^[A-Za-z0-9_-]+$")',
            "alias must be made of letters, digits, - and _",
        ),
        (
            '!has(self.alias) || !self.alias.matches("^([lL][aA][tT][eE][sS][tT]|[vV][0-9]+)$")',
            "alias must not be latest or v with a number: the model registry keeps these for itself",
        ),
    )

    name: str = Field(description="Registered model of MLflow.", min_length=1, max_length=128)
    alias: str | None = Field(None, description="Alias to move to the new version.", max_length=64)
    gates: list[Gate] = Field(default_factory=list, description="All must pass for the alias to move.", max_length=32)


class TrainingJobSpec(ApiModel):
    """The wanted training."""

    model_config = rules(
        ("self.datasetRef == oldSelf.datasetRef", "datasetRef is immutable: create another TrainingJob"),
        ("self.model == oldSelf.model", "model is immutable: create another TrainingJob"),
        ("self.register == oldSelf.register", "register is immutable: create another TrainingJob"),
    )

    dataset_ref: LocalReference = Field(description="The Dataset to train on.")
    model: ModelSource = Field(description="The model to train.")
    trainer: Trainer = Field(Trainer(), description="How to train.")
    scaling: Scaling = Field(Scaling(), description="How many workers.")
    checkpoint: Checkpoint = Field(Checkpoint(), description="Durable progress.")
    run_policy: RunPolicy = Field(RunPolicy(), description="How the job runs and ends.")
    register_: Register = Field(alias="register", description="Where the trained model goes.")


class TrainerStatus(ApiModel):
    """How far the training is."""

    progress_percentage: int = Field(0, description="Part of all steps that are done.", ge=0, le=100)
    step: int = Field(0, description="Optimizer steps done.")
    epoch: int = Field(0, description="Passes over the train split done.")
    workers: int = Field(0, description="Workers that train now.")
    restarts: int = Field(0, description="Times that the group of workers was started again.")
    resumed_from_step: int | None = Field(None, description="Step of the checkpoint that the present attempt began at.")
    samples_per_second: Measured | None = Field(None, description="Rows a second over all workers.")
    metrics: dict[str, Measured] = Field(default_factory=dict, description="Newest metrics; test_* once trained.")


class ModelVersion(ApiModel):
    """A version in the registry."""

    name: str = Field(description="Registered model.")
    version: int = Field(description="Version of the registered model.")
    uri: str = Field(description="models:/NAME/VERSION.")
    run_id: str = Field("", description="The MLflow run that made it.")
    alias: str | None = Field(None, description="The alias that was moved to it.")


class TrainingJobStatus(Status):
    """How far the training is, and what came of it."""

    trainer_status: TrainerStatus | None = Field(None, description="How far the training is.")
    model_version: ModelVersion | None = Field(None, description="The registered version.")
    dataset_fingerprint: str | None = Field(None, description="The version of the Dataset that the job trains on.")
    start_time: str | None = Field(None, description="When the first pod was asked for.")
    completion_time: str | None = Field(None, description="When the job ended.")


class TrainingJob(ApiModel):
    """Elastic, fault-tolerant training that ends in a registered model version."""

    KIND: ClassVar[Literal["TrainingJob"]] = "TrainingJob"
    PLURAL: ClassVar[str] = "trainingjobs"
    SHORT_NAMES: ClassVar[list[str]] = ["mtj"]
    COLUMNS: ClassVar[Sequence[PrinterColumn]] = ready_columns(
        PrinterColumn(name="Progress", type="integer", json_path=".status.trainerStatus.progressPercentage"),
        PrinterColumn(name="Workers", type="integer", json_path=".status.trainerStatus.workers"),
        PrinterColumn(name="Accuracy", json_path=".status.trainerStatus.metrics.test_accuracy"),
        PrinterColumn(name="Model", json_path=".status.modelVersion.uri"),
        condition="Succeeded",
    )

    api_version: Literal["mizzen.dev/v1alpha1"] = API_VERSION
    kind: Literal["TrainingJob"] = "TrainingJob"
    metadata: ObjectMeta
    spec: TrainingJobSpec
    status: TrainingJobStatus = Field(default_factory=TrainingJobStatus)
