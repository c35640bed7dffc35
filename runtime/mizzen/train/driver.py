"""`mizzen train`: the head pod. Starts Ray, trains elastically on the workers that come, registers what came of it."""

from __future__ import annotations

import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

from mizzen import entrypoints
from mizzen.data.store import DatasetVersion, local_folder
from mizzen.errors import SystemError_, UserError
from mizzen.models.shapes import DataShape
from mizzen.train.model import recipe_of
from mizzen.train.plan import TrainPlan, plan_of
from mizzen.train.worker import FINAL, OUTCOME_FILE
from mizzen.workload import config as configuration
from mizzen.workload.progress import ProgressBoard, Report
from mizzen.workload.ray_head import ray_head, wait_for_workers
from mizzen.workload.worker import threads
from mizzen_api import contract
from mizzen_api.conditions import Reason
from mizzen_api.trainingjob import TrainerStatus
from mizzen_api.workload import TrainingReport, WorkloadConfig

log = logging.getLogger(__name__)


def run(config: WorkloadConfig, board: ProgressBoard) -> str:
    """Train, measure, register. Every step finds what an earlier attempt left, so it may be run again at any point."""
    assert config.training_spec is not None
    assert config.dataset is not None
    assert config.model is not None
    assert config.ray is not None
    spec = config.training_spec
    cpus = threads(spec.scaling.resources_per_worker.cpu)
    plan = plan_of(spec, config.dataset, config.model, cpus, config.accelerator)
    dataset = DatasetVersion(plan.dataset_uri)
    check(plan, dataset)
    run_folder = local_folder(config.run_uri)
    run_folder.mkdir(parents=True, exist_ok=True)
    telemetry = Telemetry(board, run_folder)
    board.on_report = telemetry.take
    # MLflow takes seconds to import: meanwhile Ray starts.
    warm_up = threading.Thread(target=lambda: __import__("mlflow"), name="import-mlflow", daemon=True)
    warm_up.start()
    outcome = _outcome(run_folder)
    if outcome is None:
        with ray_head(configuration.pod_ip(), board):
            wait_for_workers(config.ray.workers, spec.scaling.min_workers)
            _fit(config, plan, run_folder)
        outcome = _outcome(run_folder)
    if outcome is None:
        raise SystemError_("the training ended without an outcome: see the workers' logs")
    if "reason" in outcome:
        raise UserError(Reason(outcome["reason"]), outcome["message"])
    telemetry.finished(outcome)
    return _register(config, plan, run_folder, telemetry, outcome["metrics"])


def check(plan: TrainPlan, dataset: DatasetVersion) -> None:
    """Fail on settings that the model does not have, and on code that cannot be imported, before any pod waits.

    Nothing is built here: a model may need more memory than the head has.
    """
    data = DataShape.of(dataset.pipeline)
    if not plan.model_uri:  # a registered version brings its own settings
        recipe_of(plan, data)
    if plan.entrypoint:
        entrypoints.load(plan.entrypoint, "model.entrypoint")


class Telemetry:
    """Turns the reports of rank 0 into the Progress, the metrics of Prometheus and the curves of MLflow."""

    def __init__(self, board: ProgressBoard, run_folder: Path) -> None:
        self.board = board
        self.curves: list[tuple[int, dict[str, float]]] = []
        self.status = TrainerStatus()
        self._samples = 0
        self._failures = 0  # of the workers, under this head
        self._failed_at = -1  # the step up to which the last failure is news
        self._attempts = run_folder / "attempts"
        self._lock = threading.Lock()

    def take(self, report: Report) -> None:
        """Called by the progress server, in its thread."""
        with self._lock:
            if report["event"] == "failed":
                self._worker_failed(report)
                return
            changes: dict[str, Any] = {
                key: report[key] for key in ("step", "epoch", "workers", "samples_per_second") if key in report
            }
            if report["event"] == "started":
                attempt = int(self._attempts.read_text()) if self._attempts.exists() else 0
                self._attempts.write_text(str(attempt + 1))
                changes |= {"restarts": attempt, "resumed_from_step": report["resumed_from_step"]}
                log.info("training on %(workers)d workers from step %(step)d of %(total_steps)d", report)
            metrics = report.get("metrics", {})
            if metrics:
                self.curves.append((report["step"], metrics))
            if any(key.startswith("validation_") for key in metrics):
                numbers = ", ".join(f"{key} {value:.4f}" for key, value in metrics.items())
                log.info("epoch %d, step %d: %s", report["epoch"], report["step"], numbers)
            changes["metrics"] = {**self.status.metrics, **metrics}
            changes["progress_percentage"] = min(99, 100 * report["step"] // max(1, report["total_steps"]))
            self._samples += report.get("rows", 0)
            if report["step"] > self._failed_at:
                self.board.update(message="")
            self._publish(changes)

    def _worker_failed(self, report: Report) -> None:
        """What the operator shows until the training is past the step that it failed at."""
        self._failures += 1
        self._failed_at = max(self._failed_at, self.status.step)
        log.warning("worker %(rank)d failed: %(error)s", report)
        count = f"{self._failures} times" if self._failures > 1 else "once"
        self.board.update(
            message=f"Workers failed {count} and start again; the last time at step {self.status.step}, "
            f"worker {report['rank']}: {report['error']}"
        )

    def finished(self, outcome: dict[str, Any]) -> None:
        with self._lock:
            metrics = {**self.status.metrics, **outcome["metrics"]}
            self._publish({"metrics": metrics, "step": outcome["step"], "progress_percentage": 100, "workers": 0})

    def _publish(self, changes: dict[str, Any]) -> None:
        self.status = self.status.model_copy(update=changes)
        self.board.update(training=TrainingReport(trainer_status=self.status))
        self.board.gauge(contract.METRIC_TRAINING_WORKERS, self.status.workers)
        self.board.gauge(contract.METRIC_TRAINING_PROGRESS, self.status.progress_percentage / 100)
        self.board.gauge(contract.METRIC_TRAINING_SAMPLES, self._samples)
        if "loss" in self.status.metrics:
            self.board.gauge(contract.METRIC_TRAINING_LOSS, self.status.metrics["loss"])


def _fit(config: WorkloadConfig, plan: TrainPlan, run_folder: Path) -> None:
    import ray.train

    from mizzen.train.elastic import MAX_FAILURES, trainer_of

    assert config.training_spec is not None
    spec = config.training_spec
    driver_url = f"http://{configuration.pod_ip()}:{contract.PORT_PROGRESS}"
    trainer = trainer_of(plan, spec.scaling, spec.checkpoint, config.uid, driver_url, run_folder)
    started = time.monotonic()
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise SystemError_(f"the training failed {MAX_FAILURES} times: {str(error).splitlines()[-1][:500]}") from error
    log.info("trained in %.1f s", time.monotonic() - started)


def _register(
    config: WorkloadConfig, plan: TrainPlan, run_folder: Path, telemetry: Telemetry, metrics: dict[str, float]
) -> str:
    from mizzen.registry.client import connect
    from mizzen.registry.runs import RunLog, ensure_experiment, ensure_run, run_tags
    from mizzen.registry.versions import GateError, register

    assert config.training_spec is not None
    started = time.monotonic()
    client = connect(config.mlflow_uri)
    tags = run_tags(config, plan.config_hash)
    run_id = ensure_run(client, ensure_experiment(client, f"{config.namespace}/{config.name}"), config.name, tags)
    runlog = RunLog(client, run_id)
    runlog.parameters({"model": plan.model, **plan.settings, **_trainer_parameters(plan)})
    assert config.dataset is not None
    runlog.dataset(config.dataset, DatasetVersion(config.dataset.uri).manifest)
    for step, values in telemetry.curves:
        runlog.metrics(values, step)
    runlog.metrics(metrics, telemetry.status.step)
    runlog.flush()
    try:
        version = register(client, config.training_spec.register_, run_folder / FINAL, run_id, tags, metrics)
    except GateError as error:
        report = TrainingReport(trainer_status=telemetry.status, model_version=error.version)
        telemetry.board.update(training=report)
        runlog.end()
        raise
    runlog.end()
    telemetry.board.update(training=TrainingReport(trainer_status=telemetry.status, model_version=version))
    log.info("registered %s in %.1f s", version.uri, time.monotonic() - started)
    accuracy = metrics.get("test_accuracy")
    measured = f" with a test accuracy of {accuracy:.4f}" if accuracy is not None else ""
    return f"registered {version.uri}{measured}"


def _trainer_parameters(plan: TrainPlan) -> dict[str, Any]:
    names = ("learning_rate", "epochs", "batch_size", "weight_decay", "precision", "seed")
    return {name: getattr(plan, name) for name in names}


def _outcome(run_folder: Path) -> dict[str, Any] | None:
    """What the trained workers left; None while the training is not over."""
    path = run_folder / OUTCOME_FILE
    return json.loads(path.read_bytes()) if path.exists() else None
