"""What the parts of a training agree on: the state of a run, a rank's place in its group, and the `Trainee` between.

The group (group/) drives a Trainee, the checkpoints (checkpoints/) read and fill it, the loop (loop.py) is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    Tensors = dict[str, Tensor]


@dataclass
class TrainState:
    """Where a run is. The order of rows, learning rates and random numbers are functions of the seed and of this."""

    step: int = 0  # optimizer steps done
    epoch: int = 0  # complete passes over the train split
    row: int = 0  # rows of this epoch's order that are used: the data position, whatever the batch size was
    samples: int = 0  # rows used in all
    config_hash: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    extras: dict[str, Any] = field(default_factory=dict)  # JSON: loss scale, skipped steps, micro-batch size, ...


@dataclass(frozen=True)
class Place:
    """A rank's place in the group that stands now. Each change of the group is a new generation."""

    rank: int = 0
    world: int = 1
    generation: int = 0


@dataclass(frozen=True)
class StepResult:
    """One optimizer step: the mean loss over all rows of all ranks."""

    step: int
    epoch: int
    rows: int
    loss: float
    ends_epoch: bool


class Trainee(Protocol):
    """One rank's training, whatever its strategy. All ranks call these in the same order."""

    state: TrainState
    total_steps: int

    def join(self, place: Place) -> None:
        """Take a place in the process group that stands now, keeping weights. At the start and after each change."""

    def steps(self) -> Iterator[StepResult]:
        """Train from the present state to the end; `state` and tensors are consistent at every yield.

        A lost peer raises before weights change, so that ranks differ by at most one whole step.
        """

    def evaluate(self, split: str) -> dict[str, float]:
        """Metrics on a split; ranks share the work."""

    def tensors(self) -> Tensors:
        """What all ranks have alike, as views: `model/NAME`, `optimizer/NAME|SLOT`, `ema/NAME`. Shards under FSDP."""

    def local_tensors(self) -> Tensors:
        """What this rank alone has: residuals of compression. Empty for most."""

    def load(self, tensors: Mapping[str, Tensor], local: Sequence[Mapping[str, Tensor]], state: TrainState) -> None:
        """Go on from there. `local` is of all ranks of then; their number may differ from the ranks of now."""
