"""What of a trainer's settings does not go together. For a TrainingJob the API server says so, by the CRD's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mizzen_api.trainingjob_trainer import Ramp, Trainer


def conflict(trainer: Trainer) -> str | None:
    """The first, as a message; None where all is well."""
    return next((message for wrong, message in _rules(trainer) if wrong), None)


def _rules(trainer: Trainer) -> list[tuple[bool, str]]:
    parts, strategy = trainer.progressive, trainer.strategy
    ramps = [parts.batch_size, parts.image_size, parts.sequence_length, parts.depth] if parts else []
    is_seesaw = parts is not None and parts.schedule == "seesaw"
    compresses = trainer.compression is not None and trainer.compression.method != "none"
    hidden = trainer.distillation is not None and trainer.distillation.hidden_states > 0
    return [
        (trainer.entrypoint is not None, "entrypoint is a TrainingJob's; here, call your training function yourself"),
        (strategy == "fsdp" and compresses, "compression goes with strategy ddp or parameter-server, not with fsdp"),
        (
            trainer.precision == "fp16" and compresses,
            "precision fp16 scales its gradients, which what compression owes does not follow: use bf16 or fp32",
        ),
        (strategy != "fsdp" and trainer.fsdp is not None, "fsdp goes with strategy fsdp"),
        (
            strategy != "parameter-server" and trainer.parameter_server is not None,
            "parameter_server goes with strategy parameter-server",
        ),
        (parts is not None and not any(ramps), "progressive: name one of batchSize, imageSize, sequenceLength, depth"),
        (any(map(_falls, ramps)), "progressive: from must not be above to: sizes grow during a run"),
        (is_seesaw and not (parts and parts.batch_size), "progressive.schedule seesaw needs progressive.batchSize"),
        (
            is_seesaw and trainer.learning_rate_schedule == "constant",
            "progressive.schedule seesaw follows a falling rate: set learning_rate_schedule to cosine or linear",
        ),
        (
            hidden and parts is not None and parts.depth is not None,
            "distillation.hiddenStates compares blocks, which progressive.depth adds: leave one of them out",
        ),
    ]


def _falls(ramp: Ramp | None) -> bool:
    return ramp is not None and ramp.from_ > ramp.to
