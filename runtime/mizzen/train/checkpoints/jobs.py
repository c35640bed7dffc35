"""What a training process and its writing process say to each other: a job and a report, each a line of JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Self

WRITTEN, WAITING, FAILED, DROPPED = "written", "waiting", "failed", "dropped"


@dataclass(frozen=True)
class Line:
    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Self:
        return cls(**json.loads(line))


@dataclass(frozen=True)
class Job(Line):
    """Write the snapshot of `step` that lies at `path` into `store`, and keep so many checkpoints there."""

    path: str
    step: int
    store: str
    keep: int


@dataclass(frozen=True)
class Report(Line):
    """How a job stands. Written and failed end it; waiting says why it is tried again."""

    kind: str
    step: int
    whole: bool = False  # the checkpoint is whole with this part
    nbytes: int = 0
    seconds: float = 0.0
    error: str = ""
    forbidden: bool = False  # the store refuses: a person must give permission
