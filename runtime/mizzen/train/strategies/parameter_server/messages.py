"""What workers and the coordinator say to each other. Arrays are numpy's: Ray hands those on without a copy."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from mizzen.train.strategies.parameter_server.chunks import Shapes
from mizzen.train.strategies.parameter_server.ledger import Piece

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]


class Kind(StrEnum):
    TRAIN = "train"
    EVALUATE = "evaluate"  # the validation split, after an epoch
    CONCLUDE = "conclude"  # the test split, and the model's folder
    END = "end"


@dataclass(frozen=True)
class Work:
    """For one worker. `step` is how many batches the weights have behind them."""

    kind: Kind
    step: int = 0
    epoch: int = 0
    piece: Piece | None = None
    learning_rate: float = 0.0
    gather: bool = False  # the piece's gradient waits for the others of its batch
    keep: bool = False  # send the residuals along: a checkpoint is near


@dataclass(frozen=True)
class Done:
    """What a worker has to say of its last work."""

    work: Work
    pushed: bool = False
    loss: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    buffers: Arrays = field(default_factory=dict)  # running means of norms
    residual: Array | None = None
    counters: dict[str, float | str] = field(default_factory=dict)  # of this worker, in all
    note: str = ""


@dataclass(frozen=True)
class Model:
    """What a worker that joins brings: the shapes of its model, and how many rows it trains on."""

    shapes: Shapes
    rows: int


@dataclass(frozen=True)
class Welcome:
    """`servers` are actors, in the order of the chunks. `begin` asks for the weights of a run that has none yet."""

    servers: list[Any]
    begin: bool = False
    buffers: Arrays = field(default_factory=dict)
    residual: Array | None = None


@dataclass(frozen=True)
class Progress:
    """For the driver. `losses` and `rows` are those since the last time."""

    step: int
    total_steps: int
    epoch: int
    losses: list[float]
    rows: int
    metrics: dict[str, float]
    counters: dict[str, float | str]
    notes: tuple[str, ...]
    snapshot: int = -1
    checkpoint: int = -1
    trouble: str = ""
    started_from: tuple[int, str] | None = None  # step and source, once the run has begun
    concluded: bool = False
    seconds: float = 1.0  # since the last time
