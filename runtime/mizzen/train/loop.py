"""The training loop itself, one rank's Trainee: knows of ranks and steps, and nothing of Ray. Search shares it."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from mizzen.data.store import DatasetVersion
from mizzen.errors import UserError
from mizzen.models.building import Recipe, has_unused_parameters
from mizzen.train import accelerators, graph, measuring, optimizers, stacking, strategies
from mizzen.train.batches import Order, Rows
from mizzen.train.float8 import to_float8
from mizzen.train.model import distilled, model_of
from mizzen.train.plan import TrainPlan
from mizzen.train.schedule import Schedule
from mizzen.train.seams import Place, StepResult, TrainState
from mizzen.train.step import MICRO_BATCH, SEEDS, SKIPPED, Crew, Stepper, diverged
from mizzen.train.tasks import task_of
from mizzen.train.tasks.objectives import Regression
from mizzen_api import contract
from mizzen_api.conditions import Reason

if TYPE_CHECKING:
    from mizzen.train.seams import Tensors
    from mizzen.train.tasks.base import RowsAtRest, Task

log = logging.getLogger(__name__)

WIDTH_STEP = 8  # of texts, where each width may be another graph
DEPTH = "depth"  # of extras: blocks that the weights of now are trained with


class Loop:
    """One rank's training. `world` ranks together give, up to rounding, what one rank alone would.

    It takes its place at its first use, or where `join` puts it. `notes` is what a person should hear of the run.
    """

    def __init__(
        self,
        plan: TrainPlan,
        rank: int = 0,
        world: int = 1,
        dataset: RowsAtRest | None = None,
        *,
        task: Task | None = None,
        built: tuple[Recipe, nn.Module] | None = None,
    ) -> None:
        """`task` and `built` stand for what the plan's dataset and model would be."""
        torch.set_num_threads(plan.threads)
        self.plan, self.place, self.notes = plan, Place(rank, world), list[str]()
        row = accelerators.select(plan.accelerator)
        accelerators.check_precision(row, plan.precision)
        self.device = accelerators.device(row)
        self.dataset = dataset if dataset is not None or task is not None else DatasetVersion(plan.dataset_uri)
        self.task = task or task_of(self.rows_at_rest, str(self.device))
        self.train_part = self.task.examples(contract.SPLITS[0]).head(plan.train_fraction)
        self.state = TrainState(config_hash=plan.config_hash)
        self.schedule = self._schedule()
        self.total_steps = self.schedule.total_steps()
        self.recipe, self.module = built or self._build()
        self.root = self._prepare()
        self.stepper = Stepper(plan, self.task, self.train_part, self._say)
        self._crew: Crew | None = None
        self._counted: dict[str, float | str] = {}  # by strategies of former generations
        self._order: tuple[int, Rows] | None = None  # of one epoch

    @property
    def rank(self) -> int:
        return self.place.rank

    @property
    def world(self) -> int:
        return self.place.world

    @property
    def crew(self) -> Crew:
        if self._crew is None:
            self.join(self.place)
        assert self._crew is not None
        return self._crew

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        return self.crew.optimizer

    @property
    def rows_at_rest(self) -> RowsAtRest:
        if self.dataset is None:
            raise UserError(
                Reason.INVALID_PARAMETERS,
                "images that came as arrays have no pipeline that a server could read them by: train on a Dataset",
            )
        return self.dataset

    def join(self, place: Place) -> None:
        """See seams.Trainee. Shards of a lost group are worth nothing: `load` fills what is built anew here."""
        former, self._crew = self._crew, None
        self.place = place
        strategy = strategies.create(self.plan, place, self.device)
        if former is not None:
            self._counted = _summed(self._counted, former.strategy.counters())
            former.strategy.close()
            if strategy.sharded or former.strategy.sharded:
                self.recipe, self.module = self._build()
                self.root, former = self._prepare(), None
        self._wrap(strategy, former.optimizer if former is not None else None)
        self._count_steps()
        self.stepper.agree(self.crew)

    def steps(self, until_epoch: int | None = None) -> Iterator[StepResult]:
        """See seams.Trainee. UserError TrainingDiverged on all ranks alike, when the loss is no longer a number."""
        last = min(self.plan.epochs, until_epoch or self.plan.epochs)
        while self.state.epoch < last:
            state, crew, shape = self.state, self.crew, self.schedule.at(self.state)
            if shape.depth is not None and shape.depth != state.extras.get(DEPTH, shape.depth):
                crew = self._grow(shape.depth)
            batch = self.rows()[state.row : state.row + shape.batch_size]
            loss = self.stepper.step(crew, state, batch, shape)
            if shape.depth is not None:
                state.extras[DEPTH] = shape.depth
            epoch, ends = state.epoch, state.row + len(batch) >= len(self.train_part)
            state.step += 1
            state.samples += len(batch)
            state.row = 0 if ends else state.row + len(batch)
            state.epoch += ends
            yield StepResult(state.step, epoch, len(batch), loss, ends)

    def run(self, until_epoch: int | None = None) -> Iterator[StepResult]:
        """`steps`, to the end of an epoch."""
        return self.steps(until_epoch)

    def evaluate(self, split: str) -> dict[str, float]:
        """Metrics on a split; ranks share the work. A classification's are accuracy, loss and majority_rate.

        UserError TrainingDiverged on all ranks alike, when the loss is no number: a step's own loss is that of the
        weights before it, so that the last step's harm shows only here.
        """
        examples = self.task.examples(split)
        if not len(examples):
            return {}
        tally = measuring.tally(self.task, self.crew, self.module, examples, self.plan, self.stepper.limit)
        if not math.isfinite(tally[0]):
            raise diverged(self.plan, f"the loss on the {split} split is {tally[0]}", self.state.step)
        return self.task.objective.metrics(tally, examples.targets)

    def check_weights(self) -> None:
        """UserError TrainingDiverged when a weight is no number. Ranks have the same weights, so all of them raise."""
        for name, parameter in self.module.named_parameters():
            if not bool(parameter.isfinite().all()):
                raise diverged(self.plan, f"weights of {name} are not finite", self.state.step)

    def tensors(self) -> Tensors:
        return self.crew.strategy.tensors(self.root, self.crew.optimizer)

    def local_tensors(self) -> Tensors:
        return self.crew.strategy.local_tensors()

    def load(self, tensors: Mapping[str, Tensor], local: Sequence[Mapping[str, Tensor]], state: TrainState) -> None:
        """See seams.Trainee."""
        crew = self.crew
        crew.strategy.load(self.root, crew.optimizer, tensors)
        crew.strategy.load_local(local)
        self.state = replace(state, metrics=dict(state.metrics), extras=dict(state.extras))
        limits = [limit for limit in (int(state.extras.get(MICRO_BATCH, 0)), self.stepper.limit) if limit]
        self.stepper.limit = min(limits, default=0)
        if DEPTH in state.extras:
            self._set_depth(int(state.extras[DEPTH]))
            self._wrap(crew.strategy, crew.optimizer)
        self._count_steps()

    @property
    def sharded(self) -> bool:
        """This rank's tensors are parts of the whole ones."""
        return self.crew.strategy.sharded

    def counters(self) -> dict[str, float | str]:
        """For the status: what the strategies of all generations count, skipped steps and the size of micro-batches."""
        known = {key: self.state.extras[key] for key in (SKIPPED, MICRO_BATCH) if key in self.state.extras}
        return {**_summed(self._counted, self.crew.strategy.counters()), **known}

    def save(self, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
        """Write the model's folder. `weights` are whole tensors where this rank's module holds shards."""
        from mizzen.models import artifact

        state = self.module.state_dict() if weights is None else weights
        artifact.write(folder, self.recipe, state, self.rows_at_rest.pipeline)

    def _schedule(self) -> Schedule:
        return Schedule.from_plan(self.plan, len(self.train_part), self.plan.batch_factor(self.place.world))

    def _count_steps(self) -> None:
        """With the batch, the number of steps changes."""
        self.schedule = self._schedule()
        if self.schedule.batch_factor == 1.0:
            self.total_steps = self.schedule.total_steps()
        else:
            self.total_steps = self.state.step + sum(1 for _ in self.schedule.walk(self.state))

    def _build(self) -> tuple[Recipe, nn.Module]:
        torch.manual_seed(self.plan.seed % SEEDS)
        recipe, module = model_of(self.plan, self.dataset, self.task.data)
        objective = self.task.objective
        if isinstance(objective, Regression):
            recipe = replace(recipe, target_mean=objective.mean, target_deviation=objective.deviation)
        return recipe, module

    def _prepare(self) -> nn.Module:
        """What is trained: the module, or it and what a teacher's hidden states need."""
        plan = self.plan
        if plan.progressive is not None and plan.progressive.depth is not None:
            stacking.stackable(self.module, plan.progressive.depth.end)
            self._set_depth(self.schedule.at(self.state).depth or plan.progressive.depth.end)
        if plan.precision == "fp8":
            self._to_float8()
        if plan.activation_checkpointing:
            graph.checkpoint_activations(self.module, self._say)
        unused = not self.recipe.model and has_unused_parameters(self.module, self.task.data)
        root = (
            distilled(self.module, plan.distillation, self.task.data, self.dataset)
            if plan.distillation
            else self.module
        )
        root.unused_parameters = unused  # type: ignore[assignment]  # for DDP, which must know
        root.to(self.device)  # a teacher goes with it
        if plan.channels_last:
            self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if plan.compile:
            self.task.width_step = WIDTH_STEP
            graph.compile_in_place(self.module, sharded=plan.strategy == "fsdp")
        return root

    def _to_float8(self) -> None:
        if not to_float8(self.module):
            self._say("precision fp8: no linear layer has sizes that are multiples of 16, so the model runs in bf16")
        elif not self.plan.compile:
            self._say("precision fp8 without compile: casts take longer than the products save; set compile")

    def _wrap(self, strategy: strategies.base.Strategy, optimizer: torch.optim.Optimizer | None) -> None:
        self._crew = None
        gc.collect()  # a wrapper that still lives would go on sending gradients
        for parameter in self.root.parameters():
            parameter.grad = None
        model = strategy.wrap(self.root)
        optimizer = optimizer or optimizers.optimizer_of(self.plan, self.root, sharded=strategy.sharded)
        self._crew = Crew(strategy, self.place, model, self.root, optimizer)
        if strategy.note:
            self._say(strategy.note)

    def _set_depth(self, depth: int) -> None:
        stacking.set_depth(cast("stacking.Stackable", self.module), depth)

    def _grow(self, depth: int) -> Crew:
        crew = self.crew
        stacking.grow(cast("stacking.Stackable", self.module), crew.optimizer, depth)
        self._say(f"the model grows to {depth} blocks at step {self.state.step}")
        self._wrap(crew.strategy, crew.optimizer)
        return self.crew

    def rows(self) -> Rows:
        """The present epoch's order."""
        epoch = self.state.epoch
        if self._order is None or self._order[0] != epoch:
            ramp = self.plan.progressive.batch_size if self.plan.progressive else None
            sizes = (ramp.start, ramp.end) if ramp else (self.plan.batch_size, self.plan.batch_size)
            part = self.train_part
            self._order = epoch, Order(*sizes).rows(len(part), part.lengths, self.plan.seed, epoch)
        return self._order[1]

    def _say(self, text: str) -> None:
        """Once, in the log and for the report."""
        if text not in self.notes:
            self.notes.append(text)
            log.warning("%s", text)


def _summed(before: dict[str, float | str], now: dict[str, float | str]) -> dict[str, float | str]:
    """Numbers add up, words are the newest."""
    added = {key: value + now.get(key, 0) for key, value in before.items() if not isinstance(value, str)}  # type: ignore[operator]
    return {**before, **now, **added}
