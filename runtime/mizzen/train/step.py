"""One optimizer step: micro-batches, their gradients, what to do where memory or numbers run out, and the update."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mizzen.errors import SystemError_, UserError
from mizzen.train import graph, precision
from mizzen.train.batches import Rows, micro_batches, share
from mizzen.train.distill import DistilledOutput, distillation_loss
from mizzen.train.tasks.base import Sizes
from mizzen_api.conditions import Reason

if TYPE_CHECKING:
    from mizzen.train.plan import TrainPlan
    from mizzen.train.schedule import StepShape
    from mizzen.train.seams import Place, TrainState
    from mizzen.train.strategies.base import Strategy
    from mizzen.train.tasks.base import Examples, Task

log = logging.getLogger(__name__)

SEEDS = 2**63  # torch takes no more
MICRO_BATCH, SKIPPED, IN_A_ROW, OVERFLOWS = "micro_batch_size", "skipped_steps", "skipped_in_a_row", "fp16_overflows"


@dataclass
class Crew:
    """What a step works with; made anew for each generation of the group."""

    strategy: Strategy
    place: Place
    model: nn.Module  # what forward is called on
    module: nn.Module  # whose parameters these are
    optimizer: torch.optim.Optimizer

    def __post_init__(self) -> None:
        self.parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]

    @property
    def alone(self) -> bool:
        return self.place.world == 1


class Stepper:
    """Takes steps. `limit` is the most rows that a rank takes at once, 0 as many as the plan says."""

    def __init__(self, plan: TrainPlan, task: Task, examples: Examples, say: Callable[[str], None]) -> None:
        self.plan, self.task, self.examples, self.say = plan, task, examples, say
        self.limit = plan.micro_rows
        self.scale = precision.LossScale(enabled=plan.precision == "fp16")
        self._proven = 0  # the largest micro-batch, in tokens or rows, that fitted into memory

    def agree(self, crew: Crew) -> None:
        """All ranks take the smallest limit that one of them found."""
        if crew.alone:
            return
        smallest = torch.tensor([-float(self.limit or 2**31)], dtype=torch.float64)
        crew.strategy.most(smallest := smallest.to(self.task.device))
        found = int(-smallest.item())
        self.limit = found if found < 2**31 else 0

    def step(self, crew: Crew, state: TrainState, batch: Rows, shape: StepShape) -> float:
        """The mean loss over the rows of all ranks; `state` is that before the step, but for its extras."""
        if not crew.module.training:
            crew.module.train()
        for group in crew.optimizer.param_groups:
            group["lr"] = shape.lr
        sizes = Sizes(shape.image_size, shape.sequence_length)
        mine = batch if crew.alone else share(batch, crew.place.rank, crew.place.world)
        before = self.limit
        # A step that is left out must not live on in the running means of norms.
        may_be_left_out = self.plan.on_non_finite == "Skip" or self.scale.enabled
        buffers = _copied(crew.module) if may_be_left_out else []
        if not crew.alone and not crew.strategy.lockstep:
            self._probe(crew, state, mine, sizes)
        total = self._gradients(crew, state, mine, batch, sizes)
        if not crew.alone:
            total = torch.stack([total, total.new_tensor(float(self.limit != before))])
            crew.strategy.sum(total)
            total, halved = total
            if halved > 0:
                self.agree(crew)
        if self.limit != before:
            state.extras[MICRO_BATCH] = self.limit
        return self._update(crew, state, total, len(batch), buffers)

    def _update(self, crew: Crew, state: TrainState, total: Tensor, rows: int, buffers: list[Tensor]) -> float:
        """Clip and update, unless a number is none; ranks see the same loss and norm, so they decide alike."""
        plan = self.plan
        self.scale.unscale(crew.parameters, state)
        norm = total
        if plan.max_gradient_norm or self.scale.enabled or plan.on_non_finite == "Skip":
            norm = crew.strategy.clip(crew.parameters, plan.max_gradient_norm or math.inf)
        loss, size = _numbers(total, norm)
        loss /= rows
        if math.isfinite(loss) and math.isfinite(size):
            crew.strategy.update(crew.optimizer)
            self.scale.after(state, finite=True)
            state.extras.pop(IN_A_ROW, None)
            return loss
        if math.isfinite(loss) and self.scale.of(state) > 1.0:
            self.scale.after(state, finite=False)
            state.extras[OVERFLOWS] = state.extras.get(OVERFLOWS, 0) + 1
        else:
            what = "the loss" if not math.isfinite(loss) else "the norm of the gradients"
            self._not_finite(state, f"{what} is {loss if not math.isfinite(loss) else size}")
        _put_back(crew.module, buffers)
        return loss

    def _not_finite(self, state: TrainState, what: str) -> None:
        """Stop, or leave the step out as long as there are not too many of them in a row."""
        if self.plan.on_non_finite == "Stop":
            raise diverged(self.plan, what, state.step + 1)
        in_a_row = state.extras.get(IN_A_ROW, 0) + 1
        state.extras[IN_A_ROW] = in_a_row
        state.extras[SKIPPED] = state.extras.get(SKIPPED, 0) + 1
        most = self.plan.max_skipped_steps
        if in_a_row > most:
            raise diverged(self.plan, f"{what}, after {most} skipped steps in a row,", state.step + 1)
        log.warning("step %d is skipped: %s", state.step + 1, what)

    def _gradients(self, crew: Crew, state: TrainState, mine: Rows, batch: Rows, sizes: Sizes) -> Tensor:
        """Put the batch's gradients into the parameters; the sum of this rank's losses."""
        while True:
            crew.optimizer.zero_grad()
            self._seed(crew, state)
            parts = self._parts(crew, mine, batch)
            try:
                return self._accumulate(crew, state, parts, batch, sizes)
            except Exception as error:
                self._cure(crew, error, parts)
            # Out here, for the error holds on to the tensors of its frames.
            self._free()

    def _cure(self, crew: Crew, error: Exception, parts: list[Rows]) -> None:
        """Make the next try another one, or raise."""
        if graph.is_of_compiler(error) and graph.is_compiled(crew.module):
            graph.uncompile(crew.module)
            reason = str(error).strip().splitlines()[0]
            self.say(f"torch.compile failed ({type(error).__name__}: {reason[:300]}): training goes on without it")
            return
        if not graph.is_out_of_memory(error):
            raise error
        self._halve(max(map(len, parts)), error)
        if not crew.alone:
            raise SystemError_(
                f"out of memory in the middle of an exchange with other workers: the group forms anew with "
                f"micro-batches of {self.limit} rows"
            ) from error

    def _accumulate(self, crew: Crew, state: TrainState, parts: list[Rows], batch: Rows, sizes: Sizes) -> Tensor:
        losses = []
        for rows in parts[:-1]:
            with crew.strategy.no_sync(crew.model):
                losses.append(self._backward(crew, state, rows, batch, sizes))
        losses.append(self._backward(crew, state, parts[-1], batch, sizes))
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _backward(self, crew: Crew, state: TrainState, rows: Rows, batch: Rows, sizes: Sizes) -> Tensor:
        """Add what `rows` make of the gradient of the batch's mean loss; the sum of their losses."""
        # A rank without rows still takes part: the others wait for its gradients.
        inputs, targets = self.task.batch(self.examples, rows if len(rows) else batch[:1], sizes, training=True)
        if self.plan.channels_last and inputs[0].dim() == 4:
            inputs = tuple(part.contiguous(memory_format=torch.channels_last) for part in inputs)
        with precision.autocast(self.plan.precision, self.task.device):
            output = crew.model(*inputs)
        loss = self._loss(output, targets)
        weight = self.scale.of(state) / len(batch) if len(rows) else 0.0
        (loss * (weight * crew.place.world)).backward()  # type: ignore[no-untyped-call]  # ranks take the mean
        return loss.detach() if len(rows) else torch.zeros_like(loss)

    def _loss(self, output: Tensor | DistilledOutput, targets: Tensor) -> Tensor:
        objective = self.task.objective
        if isinstance(output, DistilledOutput):
            assert self.plan.distillation is not None
            return distillation_loss(self.plan.distillation, output, lambda outputs: objective.loss(outputs, targets))
        return objective.loss(output, targets)

    def _parts(self, crew: Crew, mine: Rows, batch: Rows) -> list[Rows]:
        lockstep = crew.strategy.lockstep
        most = math.ceil(len(batch) / crew.place.world) if lockstep else len(mine)
        count = max(self.plan.accumulation, math.ceil(most / self.limit) if self.limit else 1)
        if count == 1:
            return [mine]
        parts = micro_batches(mine, count)
        return parts if lockstep else [part for part in parts if len(part)] or [mine]

    def _probe(self, crew: Crew, state: TrainState, mine: Rows, sizes: Sizes) -> None:
        """Try a micro-batch that is larger than any before, while no other rank depends on how it ends."""
        while True:
            largest = max(self._parts(crew, mine, mine), key=len)
            cost = self._cost(largest, sizes)
            if cost <= self._proven:
                return
            buffers = _copied(crew.module)
            try:
                with crew.strategy.no_sync(crew.model):
                    self._backward(crew, state, largest, mine, sizes)
                self._proven = cost
            except Exception as error:
                if not graph.is_out_of_memory(error):
                    if not graph.is_of_compiler(error):
                        raise
                    self._cure(crew, error, [largest])
                else:
                    self._halve(len(largest), error)
            crew.optimizer.zero_grad()
            _put_back(crew.module, buffers)
            self._free()

    def _cost(self, rows: Rows, sizes: Sizes) -> int:
        """Grows with the memory that a micro-batch takes."""
        lengths = self.examples.lengths
        width = int(lengths[rows].max()) if lengths is not None and len(rows) else 1
        return (
            len(rows) * min(width, sizes.sequence_length or width) * (sizes.image_size or self.task.data.image[1] or 1)
        )

    def _halve(self, rows: int, error: BaseException) -> None:
        if rows <= 1:
            raise UserError(
                Reason.INVALID_PARAMETERS,
                "out of memory with a single row: use a smaller model, shorter texts or smaller images, "
                "activationCheckpointing, or more memory for each worker",
            ) from error
        self.limit = rows // 2
        self.say(f"out of memory with {rows} rows at once: going on with {self.limit}; a step has as many as before")

    def _free(self) -> None:
        if self.task.device.type == "cuda":
            torch.cuda.empty_cache()

    def _seed(self, crew: Crew, state: TrainState) -> None:
        """Random numbers are a function of (seed, step, rank): a resumed run draws what the lost one drew."""
        seed = ((self.plan.seed * 1_000_003 + state.step) * 4096 + crew.place.rank) % SEEDS
        # Not torch.manual_seed: it keeps a traceback for each kind of device, which takes longer than a small step.
        torch.default_generator.manual_seed(seed)
        if self.task.device.type != "cpu":
            torch.get_device_module(self.task.device).manual_seed(seed)


def _numbers(loss: Tensor, norm: Tensor) -> tuple[float, float]:
    """From a device both in one go: each transfer waits for all that is under way there."""
    if loss.device.type == "cpu":
        return loss.item(), norm.item()
    found = torch.stack([loss, norm.to(loss)]).tolist()
    return found[0], found[1]


def _copied(module: nn.Module) -> list[Tensor]:
    return [buffer.clone() for buffer in module.buffers()]


@torch.no_grad()
def _put_back(module: nn.Module, buffers: list[Tensor]) -> None:
    for buffer, value in zip(module.buffers(), buffers, strict=True):
        buffer.copy_(value)


def diverged(plan: TrainPlan, what: str, step: int) -> UserError:
    return UserError(
        Reason.TRAINING_DIVERGED, f"{what} at step {step}: use a smaller learning rate than {plan.learning_rate:g}"
    )
