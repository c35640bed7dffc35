"""What the group tells, as the Progress that the operator reads, the metrics of Prometheus and the curves of MLflow."""

from __future__ import annotations

import json
import logging
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mizzen.files import write_whole
from mizzen.train.curves import Curves
from mizzen.train.group.base import Listener, Past
from mizzen.train.group.messages import Outcome, Recovered
from mizzen.train.group.station import Report
from mizzen.workload.progress import ProgressBoard
from mizzen_api import contract
from mizzen_api.trainingjob import TrainerStatus
from mizzen_api.workload import TrainingReport

log = logging.getLogger(__name__)

COUNTS_FILE = "group.json"  # in the run folder: what is counted over all heads of the run
NOTE_SECONDS = 5.0  # between notes of how far the run is
# Counters of strategies and loops that the status has as well.
_COUNTERS = (
    "skipped_steps",
    "dropped_gradients",
    "micro_batch_size",
    "compression",
    "bytes_sent",
    "bytes_uncompressed",
)


class Telemetry:
    """One run's, under one head. Written by the thread that runs the group."""

    def __init__(self, board: ProgressBoard, run_folder: Path) -> None:
        self.board = board
        self.curves = Curves(run_folder)
        self.status = TrainerStatus()
        self._samples = 0
        self._counts_file = run_folder / COUNTS_FILE
        self._lock = threading.Lock()
        self._checkpointed = time.monotonic()
        self._notes: tuple[str, ...] = ()
        self._noted = time.monotonic()
        self._said = self._trouble = ""
        self.past = self._read_past()

    def listener(self) -> Listener:
        return Listener(
            on_report=self.report,
            on_began=self.began,
            on_recovered=self.recovered,
            on_kept=self.kept,
            on_workers=lambda count: self._publish(workers=count),
            say=self.say,
        )

    def began(self, workers: int, step: int, source: str) -> None:
        log.info("training on %d workers from step %d%s", workers, step, f" ({source})" if source else "")
        self._publish(workers=workers, step=step, resumed_from_step=step if source else None)

    def report(self, report: Report) -> None:
        metrics = report.metrics
        if metrics:
            self.curves.add(report.step, metrics)
        if any(key.startswith("validation_") for key in metrics):
            numbers = ", ".join(f"{key} {value:.4f}" for key, value in metrics.items())
            log.info("epoch %d, step %d: %s", report.epoch, report.step, numbers)
        self._samples += report.rows
        self._notes = report.notes
        changes: dict[str, Any] = {key: report.counters[key] for key in _COUNTERS if key in report.counters}
        if report.rows:
            changes["samples_per_second"] = report.samples_per_second
        self._publish(
            step=report.step,
            epoch=report.epoch,
            metrics={**self.status.metrics, **metrics},
            progress_percentage=min(99, 100 * report.step // max(1, report.total_steps)),
            **changes,
        )
        self._tell()
        if time.monotonic() - self._noted > NOTE_SECONDS:
            self.past = replace(self.past, furthest=report.step)
            self._write_past()

    def recovered(self, news: Recovered) -> None:
        log.info("went on %.2f s after a failure", news.seconds)
        self.past = Past(news.restarts, news.lost_steps, self.status.step)
        self._write_past()
        self._publish(restarts=news.restarts, lost_steps=news.lost_steps, seconds_to_recover=news.seconds)

    def kept(self, snapshot: int, checkpoint: int, trouble: str) -> None:
        known = self.status
        if checkpoint > (known.checkpoint_step or -1):
            self._checkpointed = time.monotonic()
        self._trouble = trouble
        if snapshot > (known.snapshot_step or -1) or checkpoint > (known.checkpoint_step or -1):
            self._publish(
                snapshot_step=max(snapshot, known.snapshot_step or 0) if snapshot >= 0 else known.snapshot_step,
                checkpoint_step=max(checkpoint, known.checkpoint_step or 0)
                if checkpoint >= 0
                else known.checkpoint_step,
            )
        self._tell()

    def say(self, text: str) -> None:
        if text:
            log.warning("%s", text)
        self._said = text
        self._tell()

    def finished(self, outcome: Outcome) -> None:
        metrics = {**self.status.metrics, **outcome.metrics}
        self._publish(metrics=metrics, step=outcome.step, progress_percentage=100, workers=0)

    def _tell(self) -> None:
        """What is wrong first, then what a person should know of the run."""
        self.board.update(message="; ".join(filter(None, (self._said, self._trouble, *self._notes))))

    def _publish(self, **changes: Any) -> None:
        with self._lock:
            self.status = self.status.model_copy(update=changes)
            self.board.update(training=TrainingReport(trainer_status=self.status))
        status = self.status
        gauges = {
            contract.METRIC_TRAINING_WORKERS: status.workers,
            contract.METRIC_TRAINING_PROGRESS: status.progress_percentage / 100,
            contract.METRIC_TRAINING_SAMPLES: self._samples,
            contract.METRIC_TRAINING_RESTARTS: status.restarts,
            contract.METRIC_TRAINING_LOST_STEPS: status.lost_steps,
            contract.METRIC_TRAINING_LOSS: status.metrics.get("loss"),
            contract.METRIC_TRAINING_BYTES: status.bytes_sent,
            contract.METRIC_TRAINING_RECOVERY_SECONDS: status.seconds_to_recover,
            contract.METRIC_TRAINING_CHECKPOINT_AGE: (
                time.monotonic() - self._checkpointed if status.checkpoint_step is not None else None
            ),
        }
        for name, value in gauges.items():
            if value is not None:
                self.board.gauge(name, float(value))

    def _read_past(self) -> Past:
        """A head that finds what an earlier one counted is itself a restart."""
        if not self._counts_file.exists():
            self.past = Past()
        else:
            known = json.loads(self._counts_file.read_bytes())
            self.past = Past(known["restarts"] + 1, known["lost_steps"], known["furthest"])
            counts = {"restarts": self.past.restarts, "lost_steps": self.past.lost_steps}
            self.status = self.status.model_copy(update=counts)
        self._write_past()
        return self.past

    def _write_past(self) -> None:
        self._noted = time.monotonic()
        write_whole(self._counts_file, json.dumps(asdict(self.past)))
