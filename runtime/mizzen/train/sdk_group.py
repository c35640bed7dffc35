"""`fit` with several workers: the elastic group on this machine, or on the Ray cluster that is connected."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from mizzen.errors import MizzenError, SystemError_, UserError
from mizzen.models import artifact
from mizzen.train.group.base import Listener
from mizzen.train.group.messages import Failure
from mizzen.train.group.run import run_group
from mizzen.train.group.station import Report
from mizzen.train.group.work import FINAL
from mizzen.train.sdk import TrainingResult, tuned
from mizzen_api import contract
from mizzen_api.conditions import Reason

if TYPE_CHECKING:
    from mizzen.train.sdk import DistributedTrainer
    from mizzen.train.sdk_data import Given

log = logging.getLogger(__name__)


def fit_on_group(trainer: DistributedTrainer, model: Any, data: Given, config: dict[str, Any]) -> TrainingResult:
    """UserError where the model has no name by which other processes could build it."""
    with tempfile.TemporaryDirectory(prefix="mizzen-fit-") as scratch:
        folder = Path(scratch)
        uri = data.uri or str(_at_rest(data, folder / "dataset"))
        plan = tuned(trainer.plan(named(model), config, data, uri), data)
        heard = _Heard()
        listener = Listener(on_report=heard.report, say=heard.say)
        outcome = run_group(plan, trainer.num_workers, folder / "run", listener=listener)
        if outcome.failure is not None:
            raise _error(outcome.failure)
        trained = artifact.load(folder / "run" / FINAL)
        return TrainingResult(
            model=trained.module,
            metrics=outcome.metrics,
            history=heard.history,
            steps=outcome.step,
            samples_per_second=heard.speed,
            notes=heard.notes,
            recipe=trained.recipe,
            pipeline=trained.pipeline,
            plan=plan,
        )


def named(model: Any) -> str:
    """The model as another process finds it."""
    if isinstance(model, str):
        return model
    module, name = getattr(model, "__module__", "__main__"), getattr(model, "__qualname__", "")
    if isinstance(model, nn.Module) or module == "__main__" or not name.isidentifier():
        raise UserError(
            Reason.INVALID_PARAMETERS,
            "num_workers: other processes must build the model too: give its name, an import path as "
            "package.module:build, or a function of a module that can be imported",
        )
    return f"{module}:{name}"


def _error(failure: Failure) -> MizzenError:
    return UserError(Reason(failure.reason), failure.text) if failure.reason else SystemError_(failure.text)


class _Heard:
    """What the group reports."""

    def __init__(self) -> None:
        self.history: list[dict[str, float]] = []
        self.notes: list[str] = []
        self.speed = 0.0

    def report(self, report: Report) -> None:
        self.speed = report.samples_per_second or self.speed
        self.notes += [note for note in report.notes if note not in self.notes]
        if any(key.startswith("validation_") for key in report.metrics):
            self.history.append(dict(report.metrics))
            numbers = ", ".join(f"{key} {value:.4f}" for key, value in report.metrics.items())
            log.info("epoch %d, step %d: %s", report.epoch, report.step, numbers)

    def say(self, text: str) -> None:
        """How the group stands just now; empty when all is well again."""
        if text:
            log.info("%s", text)


def _at_rest(data: Given, folder: Path) -> Path:
    """Rows in memory as a dataset version, which every worker reads."""
    if data.rows is None:
        raise UserError(Reason.INVALID_PARAMETERS, "num_workers: images as arrays are for one worker; give a Dataset")
    (folder / contract.DATASET_DATA).mkdir(parents=True)
    for split in contract.SPLITS:
        data.rows.frame(split).write_parquet(folder / contract.DATASET_DATA / f"{split}.parquet")
    (folder / contract.DATASET_PIPELINE).write_text(data.rows.pipeline.to_json())
    (folder / contract.DATASET_MANIFEST).write_text(json.dumps({"fingerprint": data.fingerprint}))
    return folder
