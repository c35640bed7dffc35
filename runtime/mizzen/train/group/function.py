"""A training function of the user's own, `def train(context)`, in place of the loop; and its context.

The function is called again, from the state that it last saved, whenever the group changes. It wraps its model itself:

    def train(context):
        model, rows = context.model(), context.shard("train")
        optimizer = torch.optim.SGD(model.parameters(), lr=context.config["learning_rate"])
        ddp = DistributedDataParallel(model) if context.world > 1 else model
        for step in range(context.restore(model=model, optimizer=optimizer), 100):
            ...
            context.report({"loss": loss}, step=step + 1)
            context.save(step=step + 1, model=model, optimizer=optimizer)
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mizzen import entrypoints
from mizzen.errors import UserError
from mizzen.train.group import process_group
from mizzen.train.group.job import Job
from mizzen.train.group.station import Regroup, Report, Station
from mizzen.train.group.work import REPORT_SECONDS, LoopWork
from mizzen.train.seams import Place, StepResult, TrainState
from mizzen_api.conditions import Reason

if TYPE_CHECKING:
    from pathlib import Path

    from mizzen.models.building import Recipe
    from mizzen.train.plan import TrainPlan
    from mizzen.train.seams import Tensors
    from mizzen.train.tasks.base import Examples, Task

_FIELD = "trainer.entrypoint"
_LEAVES = "saved"  # of TrainState.extras: what is no tensor


class Stateful(Protocol):
    """A module, an optimizer, a scheduler, ..."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


@dataclass(frozen=True)
class Shard:
    """This rank's rows of a split: the same for the same world, and each row on one rank."""

    task: Task
    examples: Examples
    rows: np.ndarray[Any, np.dtype[np.int64]]

    def __len__(self) -> int:
        return len(self.rows)

    def batches(
        self, size: int, *, epoch: int = 0, shuffle: bool = True
    ) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        """(inputs, targets) of `size` rows each, in an order that the epoch gives; inputs are the model's arguments."""
        rows = np.random.default_rng(epoch).permutation(self.rows) if shuffle else self.rows
        for start in range(0, len(rows), size):
            yield self.task.batch(self.examples, rows[start : start + size], training=shuffle)


class Context:
    """What a training function is given."""

    def __init__(self, place: Place, saved: Saved, station: Station) -> None:
        self.rank, self.world = place.rank, place.world
        self.config: dict[str, Any] = saved.config
        self.device: torch.device = saved.device
        self._saved, self._station = saved, station
        self._reported = 0.0

    def model(self) -> torch.nn.Module:
        """The job's model, freshly built; what the function leaves in it is registered at the end."""
        return self._saved.build()

    def shard(self, split: str = "train") -> Shard:
        """This rank's part of train, validation or test."""
        examples = self._saved.task.examples(split)
        return Shard(self._saved.task, examples, np.arange(len(examples), dtype=np.int64)[self.rank :: self.world])

    def report(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Say that `step` is done, or again, in something long, that it is: who reports nothing is taken to hang."""
        station, state = self._station, self._saved.state
        if station.is_aborted:
            raise Regroup
        if step > station.step:
            station.stepped(step)
        else:
            station.alive()
        state.metrics |= {key: float(value) for key, value in metrics.items()}
        if self.rank == 0 and time.monotonic() - self._reported >= REPORT_SECONDS:
            self._reported = time.monotonic()
            station.report(Report(step, self._saved.total_steps, 0, metrics=dict(state.metrics)))

    def save(self, *, step: int, **objects: Stateful | Mapping[str, Any]) -> None:
        """Keep modules, optimizers or dictionaries of tensors and JSON values, under the names that they are given by.

        All ranks call it at the same steps, with the same values but for rounding. Here the group may change: then the
        call does not return, and the function is called again.
        """
        self._saved.keep(step, objects)
        if step > self._station.step:
            self._station.stepped(step)
        self._saved.after(self._station)

    def restore(self, **objects: Stateful | dict[str, Any]) -> int:
        """Fill them with what was saved last, and return its step; 0 where nothing was saved."""
        return self._saved.give(objects)


class Saved:
    """The Trainee that stands for a function: its tensors are those that were saved last."""

    def __init__(self, job: Job) -> None:
        from mizzen.data.store import DatasetVersion
        from mizzen.train import accelerators
        from mizzen.train.plan import TrainPlan
        from mizzen.train.tasks import task_of

        self.plan: TrainPlan = TrainPlan.from_dict(job.plan)
        self.device = accelerators.device(accelerators.select(self.plan.accelerator))
        torch.set_num_threads(self.plan.threads)
        self.dataset = DatasetVersion(self.plan.dataset_uri)
        self.task = task_of(self.dataset, str(self.device))
        self.config = {**self.plan.to_dict(), **self.plan.settings, **(job.settings or {})}
        self.state = TrainState(config_hash=self.plan.config_hash)
        self.total_steps = int(self.config.get("steps", 0))
        self.after: Any = None
        self._tensors: Tensors = {}
        self._built: tuple[Recipe, torch.nn.Module] | None = None

    # As a Trainee.

    def join(self, place: Place) -> None:
        """The function makes its own place in the group."""

    def steps(self) -> Iterator[StepResult]:
        return iter(())

    def evaluate(self, split: str) -> dict[str, float]:
        """Of the model that the function leaves: for the gates. Each rank measures all rows."""
        from mizzen.train import measuring
        from mizzen.train.step import Crew
        from mizzen.train.strategies.single import Single

        examples = self.task.examples(split)
        if self._built is None or not len(examples):
            return {}
        module = self._built[1]
        crew = Crew(Single(), Place(), module, module, torch.optim.SGD([torch.zeros(1)]))
        tally = measuring.tally(self.task, crew, module, examples, self.plan, 0)
        return self.task.objective.metrics(tally, examples.targets)

    def tensors(self) -> Tensors:
        return self._tensors

    def local_tensors(self) -> Tensors:
        return {}

    def load(self, tensors: Mapping[str, Tensor], local: Sequence[Mapping[str, Tensor]], state: TrainState) -> None:  # noqa: ARG002
        self._tensors, self.state = {name: tensors[name] for name in tensors}, state

    # As the store of a function.

    def build(self) -> torch.nn.Module:
        from mizzen.train.model import model_of
        from mizzen.train.step import SEEDS

        torch.manual_seed(self.plan.seed % SEEDS)
        self._built = model_of(self.plan, self.dataset, self.task.data)
        return self._built[1].to(self.device)

    def save(self, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
        from mizzen.models import artifact

        if self._built is None:
            raise UserError(
                Reason.INVALID_PARAMETERS,
                f"{_FIELD} trained no model: take it from context.model(), and train that one",
            )
        recipe, module = self._built
        artifact.write(folder, recipe, module.state_dict() if weights is None else weights, self.dataset.pipeline)

    def keep(self, step: int, objects: Mapping[str, Stateful | Mapping[str, Any]]) -> None:
        tensors: Tensors = {}
        leaves: dict[str, Any] = {}
        for name, value in objects.items():
            state = value if isinstance(value, Mapping) else value.state_dict()
            leaves[name] = _flattened(name, state, tensors)
        self._tensors = tensors
        self.state.step = step
        self.state.extras[_LEAVES] = leaves

    def give(self, objects: Mapping[str, Stateful | dict[str, Any]]) -> int:
        leaves = self.state.extras.get(_LEAVES)
        if leaves is None:
            return 0
        for name, value in objects.items():
            if name not in leaves:
                known = ", ".join(leaves)
                raise UserError(Reason.INVALID_PARAMETERS, f"{_FIELD} restores {name}, and saved {known}")
            state = _whole(leaves[name], self._tensors)
            if isinstance(value, dict):
                value.clear()
                value.update(state)
            else:
                value.load_state_dict(state)
        return self.state.step


class FunctionWork(LoopWork):
    """Calls the function in each generation of the group."""

    trainee: Saved

    def __init__(self, job: Job, station: Station) -> None:
        super().__init__(job, station)

    def prepare(self) -> None:
        from mizzen.train.group.keeping import Keeper

        self._function = entrypoints.load(self.job.function, _FIELD)
        process_group.warm_up()
        self.trainee = Saved(self.job)
        self.trainee.after = self._after_save
        self.keeper = Keeper(self.job.keeping)

    def _run(self) -> None:
        context = Context(self.place, self.trainee, self.station)
        self._function(context)

    def _after_save(self, station: Station) -> None:
        self.keeper.after_step(self.trainee)
        station.keep(self.keeper.kept)
        station.boundary(self.trainee.state.step, self._save)


def _flattened(name: str, value: Any, tensors: Tensors) -> Any:
    """JSON, with `{"tensor": name}` where a tensor was. Copies: training goes on in the originals."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().clone()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"items": [[key, _flattened(f"{name}/{key}", item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {"list": [_flattened(f"{name}/{number}", item, tensors) for number, item in enumerate(value)]}
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise UserError(
        Reason.INVALID_PARAMETERS,
        f"{_FIELD} cannot save {name}, which is of type {type(value).__name__}: save tensors, numbers, texts, "
        "and lists and dictionaries of these",
    )


def _whole(value: Any, tensors: Tensors) -> Any:
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        if "items" in value:
            return {key: _whole(item, tensors) for key, item in value["items"]}
        return [_whole(item, tensors) for item in value["list"]]
    return value
