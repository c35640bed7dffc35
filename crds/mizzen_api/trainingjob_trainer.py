"""The `trainer` block of a TrainingJob: how gradients are made, sent and used, and what grows while a run goes on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mizzen_api.meta import ENTRYPOINT, MAX_INT32, ApiModel, rules

MAX_RATE = 1000.0  # far beyond what trains anything; far below what arithmetic cannot hold
MAX_SIZE = 1048576  # of a batch, an image, a sequence
# models:/NAME/VERSION or models:/NAME@ALIAS; names are those that the model registry takes.
MODEL_URI = r"^models:/[^/:@'.\s][^/:@']*(/[0-9]+|@[A-Za-z0-9_-]+)$"


class Ramp(ApiModel):
    """From a small size at the start to the whole one."""

    model_config = rules(("self.from <= self.to", "from must not be above to: sizes grow during a run"))

    from_: int = Field(alias="from", description="Size at the start.", ge=1, le=MAX_SIZE)
    to: int = Field(description="Size once it is whole.", ge=1, le=MAX_SIZE)


class Progressive(ApiModel):
    """What grows during a run: small steps, images, texts and models first, for they are cheap."""

    model_config = rules(
        (
            "has(self.batchSize) || has(self.imageSize) || has(self.sequenceLength) || has(self.depth)",
            "name at least one of batchSize, imageSize, sequenceLength and depth",
        ),
        (
            "self.schedule != 'seesaw' || has(self.batchSize)",
            "schedule seesaw is about the batch size: set progressive.batchSize, or use schedule linear",
        ),
    )

    batch_size: Ramp | None = Field(None, description="Rows of one optimizer step; it takes trainer.batchSize's place.")
    image_size: Ramp | None = Field(None, description="Pixels of an image's sides (progressive resizing).")
    sequence_length: Ramp | None = Field(None, description="Tokens of a text that are read.")
    depth: Ramp | None = Field(None, description="Blocks of the model; a new one begins as a copy of its neighbour.")
    schedule: Literal["linear", "seesaw"] = Field(
        "linear",
        description="How the batch grows: linear in rows, or seesaw (doubled where the learning rate would halve, "
        "the rate divided by the square root of two).",
    )
    until: float = Field(
        0.5, description="Part of all rows by which the sizes are whole; seesaw's are its own.", gt=0, le=0.9
    )


class Compression(ApiModel):
    """How gradients are made smaller on their way between workers; what is lost is added to the next ones."""

    method: Literal["none", "int8", "int4", "topk", "powersgd", "auto"] = Field(
        "none", description="auto takes the one that the measured bandwidth asks for."
    )
    group_size: int = Field(128, description="int8, int4: values that share one scale.", ge=8, le=65536)
    density: float = Field(0.01, description="topk: part of the values that are sent.", gt=0, le=1)
    rank: int = Field(2, description="powersgd: rank of the approximation.", ge=1, le=128)
    when: Literal["auto", "always"] = Field(
        "auto", description="auto: only where the measured bandwidth says that it pays."
    )


class Fsdp(ApiModel):
    """Fully sharded data parallel."""

    cpu_offload: bool = Field(False, description="Keep parameters and optimizer state in the memory of the host.")


class ParameterServer(ApiModel):
    """Workers send gradients to servers that hold the weights, and fetch these anew."""

    mode: Literal["sync", "async", "bounded"] = Field(
        "bounded", description="Wait for all workers, for none, or until nobody is further ahead than staleness."
    )
    staleness: int = Field(4, description="bounded: steps that a worker may be ahead of the slowest.", ge=0, le=10000)
    servers: int = Field(1, description="Shards of the weights, each in a process of its own.", ge=1, le=64)
    warmup_steps: int = Field(20, description="First steps, in which all wait for all.", ge=0, le=MAX_INT32)


class Distillation(ApiModel):
    """Learn from a trained teacher besides the labels."""

    teacher_uri: str = Field(
        description="The teacher: models:/NAME/VERSION or models:/NAME@ALIAS.", max_length=256, pattern=MODEL_URI
    )
    temperature: float = Field(2.0, description="Softens what the teacher says.", gt=0, le=100)
    weight: float = Field(0.5, description="The teacher's part of the loss; the labels have the rest.", ge=0, le=1)
    hidden_states: float = Field(
        0.0,
        description="Weight of the squared error between the blocks' outputs; 0 leaves them out.",
        ge=0,
        le=MAX_RATE,
    )


class Trainer(ApiModel):
    """How gradients are made and used."""

    model_config = rules(
        (
            "self.strategy != 'fsdp' || !has(self.compression) || self.compression.method == 'none'",
            "compression goes with strategy ddp or parameter-server: under fsdp set compression.method to none",
        ),
        (
            "self.precision != 'fp16' || !has(self.compression) || self.compression.method == 'none'",
            "precision fp16 scales its gradients, which what compression owes does not follow: use bf16 or fp32",
        ),
        (
            "!has(self.fsdp) || self.strategy == 'fsdp'",
            "fsdp goes with strategy fsdp: set trainer.strategy to fsdp, or leave the block out",
        ),
        (
            "!has(self.parameterServer) || self.strategy == 'parameter-server'",
            "parameterServer goes with strategy parameter-server: set trainer.strategy to it, or leave the block out",
        ),
        (
            "self.strategy != 'parameter-server' || !has(self.compression) || self.compression.method != 'powersgd'",
            "powersgd needs means over all workers, which a parameter server does not make: set compression.method to "
            "int8, int4 or topk, or strategy to ddp",
        ),
        (
            "self.strategy != 'parameter-server' || !has(self.progressive) || !has(self.progressive.depth)",
            "progressive.depth adds blocks, which a parameter server cannot: leave it out, or set strategy to ddp",
        ),
        (
            "!has(self.entrypoint) || self.strategy == 'ddp'",
            "a training function of one's own (entrypoint) runs with strategy ddp: it wraps its model itself",
        ),
        (
            "!has(self.entrypoint) || !(has(self.progressive) || has(self.distillation) || has(self.compression) || "
            "self.autotune || self.compile || self.activationCheckpointing || self.channelsLast)",
            "entrypoint takes the loop's place: leave progressive, distillation, compression, autotune, compile, "
            "activationCheckpointing and channelsLast out",
        ),
        (
            "self.learningRateSchedule != 'constant' || !has(self.progressive) || "
            "self.progressive.schedule != 'seesaw'",
            "progressive.schedule seesaw follows a falling rate: set learningRateSchedule to cosine or linear",
        ),
        (
            "!has(self.distillation) || self.distillation.hiddenStates == 0.0 || !has(self.progressive) || "
            "!has(self.progressive.depth)",
            "distillation.hiddenStates compares blocks, which progressive.depth adds: set hiddenStates to 0, or leave "
            "progressive.depth out",
        ),
    )

    strategy: Literal["ddp", "fsdp", "parameter-server"] = Field(
        "ddp", description="Distributed data parallel, fully sharded (FSDP2), or a parameter server."
    )
    entrypoint: str | None = Field(
        None,
        description="A training function of one's own in place of the loop, as package.module:function.",
        max_length=256,
        pattern=ENTRYPOINT,
    )
    precision: Literal["fp32", "fp16", "bf16", "fp8"] = Field(
        "fp32", description="Arithmetic of forward and backward; fp16 scales the loss, fp8 is for devices that have it."
    )
    epochs: int = Field(3, description="Passes over the train split.", ge=1, le=100000)
    batch_size: int = Field(256, description="Rows of one optimizer step, over all workers.", ge=1, le=MAX_SIZE)
    gradient_accumulation_steps: int = Field(1, description="Micro-batches in one optimizer step.", ge=1, le=4096)
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="AdamW, or SGD with Nesterov's momentum.")
    momentum: float = Field(0.9, description="Momentum of sgd.", ge=0, lt=1)
    learning_rate: float | None = Field(
        None, description="Peak learning rate; wins over the model's lr.", gt=0, le=MAX_RATE
    )
    learning_rate_schedule: Literal["cosine", "constant", "linear"] = Field(
        "cosine", description="How the rate falls after the warm-up."
    )
    warmup_fraction: float = Field(
        0.1, description="Part of all rows over which the rate rises to its peak.", ge=0, lt=1
    )
    weight_decay: float = Field(0.01, description="Weight decay; AdamW's is decoupled.", ge=0, le=MAX_RATE)
    max_gradient_norm: float = Field(
        1.0, description="Gradients are scaled down to this norm; 0 leaves them as they are.", ge=0, le=MAX_RATE
    )
    compile: bool = Field(False, description="torch.compile; where it fails, the run goes on without and says so.")
    activation_checkpointing: bool = Field(False, description="Compute activations again in place of keeping them.")
    channels_last: bool = Field(False, description="Memory format of images that convolutions like best.")
    autotune: bool = Field(
        False, description="Measure micro-batch, compilation, precision and threads first, and take the best."
    )
    fsdp: Fsdp | None = Field(None, description="Settings of strategy fsdp.")
    parameter_server: ParameterServer | None = Field(None, description="Settings of strategy parameter-server.")
    compression: Compression | None = Field(None, description="How gradients are made smaller; left out: not at all.")
    progressive: Progressive | None = Field(None, description="What grows during the run.")
    distillation: Distillation | None = Field(None, description="A teacher to learn from.")
    on_non_finite: Literal["Stop", "Skip"] = Field(
        "Stop", description="When the loss is no number: end the run with the step, or leave the step out."
    )
    max_skipped_steps: int = Field(10, description="Skip: steps in a row after which the run ends.", ge=1, le=MAX_INT32)
    seed: int = Field(7, description="Seed of initial weights and of the order of rows.", ge=0, le=MAX_INT32)
