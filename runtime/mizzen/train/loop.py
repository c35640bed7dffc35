"""The training loop itself: knows of ranks and steps, and nothing of Ray. Training and search share it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from mizzen.data.store import DatasetVersion, Part
from mizzen.errors import UserError
from mizzen.models import catalog
from mizzen.train.batches import Rows, epoch_batches, micro_batches, share, steps_per_epoch
from mizzen.train.checkpoint import TrainState
from mizzen.train.plan import TrainPlan
from mizzen_api import contract
from mizzen_api.conditions import Reason

WARM_UP = 0.1  # part of all steps
FINAL_LR = 0.02  # of the peak
EVALUATION_BATCH = 512
MAX_GRADIENT_NORM = 1.0
SEEDS = 2**63  # torch takes no more


@dataclass(frozen=True)
class StepResult:
    """One optimizer step: the mean loss over all rows of all ranks."""

    step: int
    epoch: int
    rows: int
    loss: float
    ends_epoch: bool


class Loop:
    """One rank's view of a training. `world` ranks together give, up to rounding, what one rank alone would."""

    def __init__(self, plan: TrainPlan, rank: int = 0, world: int = 1, dataset: DatasetVersion | None = None) -> None:
        torch.set_num_threads(plan.threads)
        self.plan, self.rank, self.world = plan, rank, world
        self.dataset = dataset or DatasetVersion(plan.dataset_uri)
        pipeline = self.dataset.pipeline
        self.config = catalog.config_of(
            plan.model,
            plan.settings,
            vocab_size=pipeline.vocab_size,
            num_classes=len(pipeline.classes),
            max_length=pipeline.max_length,
        )
        torch.manual_seed(plan.seed % SEEDS)
        self.module = catalog.build(plan.model, self.config)
        self.optimizer = torch.optim.AdamW(
            _decayed(self.module, plan.weight_decay), lr=plan.learning_rate, betas=(0.9, 0.98)
        )
        self.train_part = self.dataset.part(contract.SPLITS[0]).head(plan.train_fraction)
        self.steps_per_epoch = steps_per_epoch(len(self.train_part), plan.batch_size)
        self.total_steps = self.steps_per_epoch * plan.epochs
        self.state = TrainState(config_hash=plan.config_hash)
        self._tensors = self.train_part.tensors()

    def run(self, until_epoch: int | None = None) -> Iterator[StepResult]:
        """Train from the present state; yields after every optimizer step, with `state` up to date.

        UserError TrainingDiverged on all ranks alike, when the loss is no longer a number.
        """
        model = self._distributed()
        last = min(self.plan.epochs, until_epoch or self.plan.epochs)
        while self.state.epoch < last:
            epoch = self.state.epoch
            batches = epoch_batches(self.train_part.lengths, self.plan.batch_size, self.plan.seed, epoch)
            for position in range(self.state.step - epoch * self.steps_per_epoch, len(batches)):
                loss = self._step(model, batches[position])
                self.state.step += 1
                ends = position + 1 == len(batches)
                self.state.epoch += ends
                yield StepResult(self.state.step, epoch, len(batches[position]), loss, ends)

    def evaluate(self, split: str) -> dict[str, float]:
        """Loss and accuracy on a split, and the rate of its most frequent class; ranks share the work.

        UserError TrainingDiverged on all ranks alike, when the loss is no number: a step's own loss is that of the
        weights before it, so that the last step's harm shows only here.
        """
        part = self.dataset.part(split)
        if not len(part):
            return {}
        counts = torch.zeros(2, dtype=torch.float64)  # right, sum of losses
        self.module.eval()
        rows = share(part.lengths.argsort(), self.rank, self.world)
        with torch.inference_mode():
            for start in range(0, len(rows), EVALUATION_BATCH):
                logits_BC, labels_B = self._forward(self.module, part.tensors(), rows[start : start + EVALUATION_BATCH])
                counts[0] += (logits_BC.argmax(dim=-1) == labels_B).sum()
                counts[1] += cross_entropy(logits_BC.float(), labels_B, reduction="sum")
        self._sum(counts)
        right, loss = counts.tolist()
        if not math.isfinite(loss):
            raise self._diverged(f"the loss on the {split} split is {loss}")
        return {"accuracy": right / len(part), "loss": loss / len(part), "majority_rate": _majority(part)}

    def check_weights(self) -> None:
        """UserError TrainingDiverged when a weight is no number. Ranks have the same weights, so all of them raise."""
        for name, parameter in self.module.named_parameters():
            if not bool(parameter.isfinite().all()):
                raise self._diverged(f"weights of {name} are not finite")

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then a cosine down to FINAL_LR of the peak."""
        warm = max(1, int(WARM_UP * self.total_steps))
        if step < warm:
            return self.plan.learning_rate * (step + 1) / warm
        done = (step - warm) / max(1, self.total_steps - warm)
        return self.plan.learning_rate * (FINAL_LR + (1 - FINAL_LR) * (1 + math.cos(math.pi * done)) / 2)

    def _step(self, model: nn.Module, batch: Rows) -> float:
        self.module.train()
        step = self.state.step
        # Random numbers are a function of (seed, step, rank): a resumed run draws what the lost one drew.
        torch.manual_seed(((self.plan.seed * 1_000_003 + step) * 4096 + self.rank) % SEEDS)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        mine = share(batch, self.rank, self.world)
        total = torch.zeros(1, dtype=torch.float64)
        parts = micro_batches(mine, self.plan.accumulation)
        for number, rows in enumerate(parts):
            last = number + 1 == len(parts)
            if isinstance(model, DistributedDataParallel) and not last:
                with model.no_sync():
                    total += self._backward(model, rows, batch)
            else:
                total += self._backward(model, rows, batch)
        nn.utils.clip_grad_norm_(self.module.parameters(), MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._sum(total)
        loss = float(total)
        if not math.isfinite(loss):
            raise self._diverged(f"the loss is {loss}", step + 1)
        return loss

    def _diverged(self, what: str, step: int | None = None) -> UserError:
        mend = f"use a smaller learning rate than {self.plan.learning_rate:g}"
        return UserError(Reason.TRAINING_DIVERGED, f"{what} at step {step or self.state.step}: {mend}")

    def _backward(self, model: nn.Module, rows: Rows, batch: Rows) -> Tensor:
        """Add the gradient of `rows` and return their part of the batch's mean loss."""
        weight = 1.0 if len(rows) else 0.0
        # A rank without rows still takes part: the others wait for its gradients.
        logits_BC, labels_B = self._forward(model, self._tensors, rows if len(rows) else batch[:1])
        loss = cross_entropy(logits_BC.float(), labels_B, reduction="sum") * (weight / len(batch))
        (loss * self.world).backward()  # type: ignore[no-untyped-call]  # DDP takes the mean over ranks
        return loss.detach().double()

    def _forward(self, model: nn.Module, tensors: tuple[Tensor, Tensor, Tensor], rows: Rows) -> tuple[Tensor, Tensor]:
        ids, lengths, labels = tensors
        picked = torch.from_numpy(rows)
        lengths_B = lengths[picked]
        ids_BT = ids[picked, : int(lengths_B.max())].long()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.plan.precision == "bf16"):
            return model(ids_BT, lengths_B), labels[picked]

    def _distributed(self) -> nn.Module:
        return DistributedDataParallel(self.module) if dist.is_initialized() else self.module

    def _sum(self, tensor: Tensor) -> None:
        if dist.is_initialized():
            dist.all_reduce(tensor)


def _decayed(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; biases and norms do not."""
    matrices = [p for p in module.parameters() if p.dim() >= 2]
    vectors = [p for p in module.parameters() if p.dim() < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def _majority(part: Part) -> float:
    import numpy as np

    return float(np.bincount(part.labels).max() / len(part))
