"""TrainingJob: elastic, fault-tolerant training of one model on one Dataset, ending in a registered version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from mizzen_api.contract import API_VERSION
from mizzen_api.meta import (
    ENTRYPOINT,
    MAX_INT32,
    ApiModel,
    ConfigMapReference,
    FreeForm,
    LocalReference,
    Measured,
    ObjectMeta,
    PrinterColumn,
    RunPolicy,
    Status,
    WorkerResources,
    ready_columns,
    rules,
)
from mizzen_api.trainingjob_trainer import MODEL_URI, Trainer


class ModelSource(ApiModel):
    """The model to train: the winner of a search, one by name, a registered version to go on from, or one's own."""

    model_config = rules(
        (
            "[has(self.searchJobRef), has(self.name), has(self.uri), has(self.entrypoint)].exists_one(x, x)",
            "set exactly one of searchJobRef, name, uri and entrypoint",
        ),
        (
            "!has(self.config) || has(self.name) || has(self.entrypoint)",
            "config goes with name or entrypoint; a search and a registered version bring their own",
        ),
    )

    search_job_ref: LocalReference | None = Field(None, description="Train the optimal trial of this SearchJob.")
    name: str | None = Field(
        None, description="A model of Mizzen: text-transformer, text-bag, mlp, cnn or resnet.", max_length=64
    )
    uri: str | None = Field(
        None,
        description="A registered version to go on from (fine-tuning): models:/NAME/VERSION or models:/NAME@ALIAS.",
        max_length=256,
        pattern=MODEL_URI,
    )
    entrypoint: str | None = Field(
        None,
        description="A function or class that builds a torch.nn.Module from config, as package.module:name.",
        max_length=256,
        pattern=ENTRYPOINT,
    )
    config: FreeForm | None = Field(None, description="Settings of the named model or of the entrypoint, and lr.")


class Code(ApiModel):
    """Python files of one's own, on PYTHONPATH of the head and of all workers."""

    config_map_ref: ConfigMapReference = Field(
        description="Each key is a file, for example net.py; a change of the ConfigMap starts the run anew from its "
        "newest checkpoint."
    )


class Scaling(ApiModel):
    """Between how many workers the training may run, and what each gets."""

    model_config = rules(("self.minWorkers <= self.maxWorkers", "minWorkers must not be above maxWorkers"))

    min_workers: int = Field(1, description="Training waits until so many workers are there.", ge=1, le=1000)
    max_workers: int = Field(1, description="Training takes up to so many workers.", ge=1, le=1000)
    resources_per_worker: WorkerResources = Field(
        WorkerResources(cpu="1", memory="2Gi"), description="Compute of each worker."
    )
    on_resize: Literal["KeepBatch", "ScaleBatch"] = Field(
        "KeepBatch",
        description="When workers change: keep the rows of a step, or scale them and the learning rate with the "
        "workers, batchSize being that of maxWorkers.",
    )


class Checkpoint(ApiModel):
    """How much a lost worker, and a lost head, may cost."""

    every_steps: int = Field(100, description="Optimizer steps between durable checkpoints.", ge=1, le=MAX_INT32)
    keep: int = Field(2, description="Newest checkpoints to keep.", ge=1, le=100)
    snapshot_every_steps: int = Field(
        10, description="Optimizer steps between snapshots in shared memory.", ge=1, le=MAX_INT32
    )


class Gate(ApiModel):
    """What a version must reach before it may carry the alias."""

    model_config = rules(
        ("has(self.min) || has(self.max) || has(self.notWorseThan)", "set min, max or notWorseThan"),
        ("!has(self.tolerance) || has(self.notWorseThan)", "tolerance goes with notWorseThan"),
    )

    metric: str = Field("accuracy", description="Metric on the test split.", min_length=1, max_length=64)
    min: float | None = Field(None, description="The least that passes.")
    max: float | None = Field(None, description="The most that passes.")
    not_worse_than: str | None = Field(
        None,
        description="Another version of the registered model, by alias or number: this one must be as good. An alias "
        "that no version carries yet lets all pass.",
        max_length=64,
        pattern="^[A-Za-z0-9_-]+$",
    )
    tolerance: float | None = Field(
        None, description="How much worse than notWorseThan still passes, in the metric's unit; 0 unless set.", ge=0
    )
    type: Literal["maximize", "minimize"] | None = Field(
        None, description="Which direction is better; unless set, minimize for losses and errors, maximize for others."
    )


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
        (
            "self.accelerator != 'cpu' || self.trainer.precision != 'fp8'",
            "trainer.precision fp8 needs an accelerator that has it: set accelerator to gpu, or precision to bf16",
        ),
        (
            "self.accelerator != 'cpu' || !has(self.scaling.resourcesPerWorker.accelerators)",
            "scaling.resourcesPerWorker.accelerators goes with accelerator gpu, tpu, npu or auto: leave it out on cpu",
        ),
    )

    dataset_ref: LocalReference = Field(description="The Dataset to train on.")
    model: ModelSource = Field(description="The model to train.")
    trainer: Trainer = Field(Trainer(), description="How to train.")
    accelerator: Literal["auto", "cpu", "gpu", "tpu", "npu"] = Field(
        "auto", description="What the workers compute on; auto takes what the cluster offers."
    )
    image: str | None = Field(
        None,
        description="Image of the head and the workers in place of the runtime image; it must bring Mizzen.",
        max_length=512,
        pattern=r"^\S+$",
    )
    code: Code | None = Field(None, description="Python files of one's own.")
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
    snapshot_step: int | None = Field(None, description="Step of the newest snapshot in shared memory.")
    checkpoint_step: int | None = Field(None, description="Step of the newest durable checkpoint.")
    lost_steps: int = Field(0, description="Steps that had to be done again, in all.")
    seconds_to_recover: Measured | None = Field(
        None, description="The last failure: seconds from its notice to the next optimizer step."
    )
    skipped_steps: int = Field(0, description="Steps left out because the loss was no number.")
    dropped_gradients: int = Field(0, description="Gradients that a parameter server dropped as too old.")
    micro_batch_size: int | None = Field(None, description="Rows that a worker takes at once.")
    compression: str | None = Field(None, description="The compression that is in use.")
    bytes_sent: int | None = Field(None, description="Bytes of gradients that a worker has sent.")
    bytes_uncompressed: int | None = Field(None, description="Bytes that these would have been as fp32.")
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
    metric: str | None = Field(
        None, description="The metric that tells most, for tables: that of the first gate, or else accuracy."
    )
    accelerator: str | None = Field(None, description="What the workers compute on, for example nvidia or cpu.")
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
        PrinterColumn(name="Step", type="integer", json_path=".status.trainerStatus.step"),
        PrinterColumn(name="Loss", json_path=".status.trainerStatus.metrics.loss", priority=1),
        PrinterColumn(name="Metric", json_path=".status.metric"),
        PrinterColumn(name="Restarts", type="integer", json_path=".status.trainerStatus.restarts", priority=1),
        PrinterColumn(name="Model", json_path=".status.modelVersion.uri"),
        condition="Succeeded",
    )

    api_version: Literal["mizzen.dev/v1alpha1"] = API_VERSION
    kind: Literal["TrainingJob"] = "TrainingJob"
    metadata: ObjectMeta
    spec: TrainingJobSpec
    status: TrainingJobStatus = Field(default_factory=TrainingJobStatus)
