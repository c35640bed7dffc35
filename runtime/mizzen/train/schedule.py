"""What a step is made of: learning rate, batch size, image size, sequence length and depth, by how far the run is.

The loop asks before every step. All of it is a function of the rows used so far, not of the number of steps: ramps of
the batch size and changes of the group leave the curves where they are, and a resumed run goes on on them.

Batch ramps: "Don't Decay the Learning Rate, Increase the Batch Size" (Smith et al., 2018).
Seesaw: "Accelerating Training by Balancing Learning Rate and Batch Size Scheduling" (Meterez et al., 2025).
Image size: "EfficientNetV2: Smaller Models and Faster Training" (Tan and Le, 2021).
Sequence length: "The Stability-Efficiency Dilemma" (Li et al., 2022).
Depth: "Efficient Training of BERT by Progressively Stacking" (Gong et al., 2019).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from mizzen.train.seams import TrainState

FINAL_LR = 0.02  # of the peak, where the schedule decays
MAX_STAGES = 8  # of sizes: each is another shape to compile
SIZE_STEP = {"image_size": 4, "sequence_length": 8, "depth": 1}  # sizes between the ends are multiples of these


@dataclass(frozen=True)
class Ramp:
    """From a small size at the start to the whole one."""

    start: int
    end: int


@dataclass(frozen=True)
class Progressive:
    """What grows during a run. `until` is the part of all rows by which sizes other than Seesaw's are whole.

    The learning rate is that of the whole batch, and less with a smaller one; Seesaw's is that of the first batch.
    """

    batch_size: Ramp | None = None
    image_size: Ramp | None = None
    sequence_length: Ramp | None = None
    depth: Ramp | None = None
    schedule: Literal["linear", "seesaw"] = "linear"
    until: float = 0.5

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Progressive:
        """The inverse of dataclasses.asdict, which JSON carries to the workers."""
        parts: dict[str, Any] = {k: Ramp(**v) if isinstance(v, dict) else v for k, v in values.items()}
        return cls(**parts)


@dataclass(frozen=True)
class StepShape:
    """One optimizer step. None: the data's or the model's own whole size."""

    lr: float
    batch_size: int
    image_size: int | None = None
    sequence_length: int | None = None
    depth: int | None = None


class SchedulePlan(Protocol):
    """What of a TrainPlan a schedule needs."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def learning_rate_schedule(self) -> str: ...
    @property
    def warmup_fraction(self) -> float: ...
    @property
    def optimizer(self) -> str: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def epochs(self) -> int: ...
    @property
    def progressive(self) -> Progressive | None: ...


@dataclass(frozen=True)
class Schedule:
    """Pure: equal states give equal steps. `rows` are those of the train split."""

    peak: float
    rows: int
    epochs: int
    batch_size: int
    curve: str = "cosine"  # cosine | linear | constant
    warmup: float = 0.1
    lr_power: float = 0.5  # the rate grows with the batch to this power: a square root for Adam, linear for SGD
    progressive: Progressive = Progressive()
    batch_factor: float = 1.0  # workers of now over those that batchSize is meant for, where it is scaled with them

    @classmethod
    def from_plan(cls, plan: SchedulePlan, rows: int, batch_factor: float = 1.0) -> Schedule:
        """`batch_factor` other than 1 where a resized group scales its batch (Goyal et al., 2017, for SGD)."""
        return cls(
            peak=plan.learning_rate,
            rows=rows,
            epochs=plan.epochs,
            batch_size=plan.batch_size,
            curve=plan.learning_rate_schedule,
            warmup=plan.warmup_fraction,
            lr_power=1.0 if plan.optimizer == "sgd" else 0.5,
            progressive=plan.progressive or Progressive(),
            batch_factor=batch_factor,
        )

    def at(self, state: TrainState) -> StepShape:
        """The next step of a run in this state."""
        done = min(1.0, self.used(state) / max(1, self.rows * self.epochs))
        batch, rate = self._batch_and_rate(done)
        parts = self.progressive
        return StepShape(
            lr=rate * self.batch_factor**self.lr_power,
            batch_size=max(1, min(self.rows, round(batch * self.batch_factor))),
            image_size=_size("image_size", parts.image_size, done / parts.until),
            sequence_length=_size("sequence_length", parts.sequence_length, done / parts.until),
            depth=_depth(parts.depth, done / parts.until),
        )

    def used(self, state: TrainState) -> int:
        """Rows that the run has used, by its position."""
        return state.epoch * self.rows + state.row

    def total_steps(self) -> int:
        """Steps of the whole run: an epoch's last batch may be smaller."""
        if self.progressive.batch_size is None:
            return self.epochs * math.ceil(self.rows / self.at(TrainState()).batch_size)
        return sum(1 for _ in self.walk(TrainState()))

    def walk(self, state: TrainState) -> Iterator[TrainState]:
        """States after each step from `state` to the end; nothing but the position is filled in."""
        place = TrainState(state.step, state.epoch, state.row)
        while place.epoch < self.epochs:
            row = min(self.rows, place.row + self.at(place).batch_size)
            ends = row == self.rows
            place = replace(place, step=place.step + 1, epoch=place.epoch + ends, row=0 if ends else row)
            yield place

    def _batch_and_rate(self, done: float) -> tuple[int, float]:
        ramp = self.progressive.batch_size
        warm = min(1.0, (done * self.rows * self.epochs + self.batch_size) / max(1.0, self._warm_rows()))
        decay = self._decay(done)
        if ramp is None:
            return self.batch_size, self.peak * warm * decay
        if self.progressive.schedule == "seesaw":
            batch, share = seesaw(ramp, decay)
            return batch, self.peak * warm * share
        batch = _ramped(ramp, done / self.progressive.until)
        return batch, self.peak * warm * decay * (batch / ramp.end) ** self.lr_power

    def _warm_rows(self) -> float:
        return self.warmup * self.rows * self.epochs

    def _decay(self, done: float) -> float:
        """Part of the peak after the warm-up."""
        if self.curve == "constant":
            return 1.0
        after = max(0.0, done - self.warmup) / max(1e-9, 1 - self.warmup)
        falling = (1 + math.cos(math.pi * after)) / 2 if self.curve == "cosine" else 1 - after
        return FINAL_LR + (1 - FINAL_LR) * falling


def seesaw(ramp: Ramp, decay: float) -> tuple[int, float]:
    """Batch size and part of the peak rate where a plain schedule would be at `decay` of its peak.

    Each time that the plain rate would have halved, the batch doubles and the rate is divided by the square root of
    two; between these points both stand still. With the whole batch, the rate falls on as the plain one does.
    """
    most = int(math.log2(ramp.end / ramp.start)) if ramp.end > ramp.start else 0
    halvings = min(most, int(math.log2(1 / decay) + 1e-9))
    share: float = 2.0 ** (-halvings / 2)
    if halvings == most:
        share *= min(1.0, decay * 2.0**most)
    return (ramp.end if halvings == most and most else ramp.start * 2**halvings), share


def _ramped(ramp: Ramp, part: float) -> int:
    """From start to end in multiples of the start: what was one batch at first becomes two, three, ..."""
    if part >= 1:
        return ramp.end
    return min(ramp.end, ramp.start * (1 + int(part * (ramp.end / ramp.start - 1) + 1e-9)))


def _size(name: str, ramp: Ramp | None, part: float) -> int | None:
    """From start to end in at most MAX_STAGES sizes of equal duration."""
    if ramp is None:
        return None
    step = SIZE_STEP[name]
    stages = max(1, min(MAX_STAGES, (ramp.end - ramp.start) // step))
    if part >= 1:
        return ramp.end
    stage = int(part * stages + 1e-9)
    size = round((ramp.start + (ramp.end - ramp.start) * stage / stages) / step) * step
    return max(ramp.start, min(ramp.end, size)) if stage else ramp.start


def _depth(ramp: Ramp | None, part: float) -> int | None:
    """Doubling, in stages of equal duration: each new block begins as a copy of one that is trained."""
    if ramp is None:
        return None
    doublings = math.ceil(math.log2(ramp.end / ramp.start)) if ramp.end > ramp.start else 0
    if part >= 1 or not doublings:
        return ramp.end
    size: int = ramp.start * 2 ** int(part * doublings + 1e-9)
    return min(ramp.end, size)
