"""`mizzen train`: the head pod. Starts Ray, trains elastically on the workers that come, registers what came of it."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from mizzen import entrypoints
from mizzen.data.store import DatasetVersion, local_folder
from mizzen.models.shapes import DataShape
from mizzen.train import accelerators
from mizzen.train.fitting import fit, left
from mizzen.train.group.work import FINAL
from mizzen.train.model import recipe_of
from mizzen.train.origin import parameters_of
from mizzen.train.plan import TrainPlan, plan_of
from mizzen.train.telemetry import Telemetry
from mizzen.workload import config as configuration
from mizzen.workload.progress import ProgressBoard
from mizzen.workload.ray_head import ray_head
from mizzen.workload.worker import threads
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
    check(plan, dataset, spec.trainer.entrypoint or "")
    run_folder = local_folder(config.run_uri)
    run_folder.mkdir(parents=True, exist_ok=True)
    telemetry = Telemetry(board, run_folder)
    # MLflow takes seconds to import: meanwhile Ray starts.
    warm_up = threading.Thread(target=lambda: __import__("mlflow"), name="import-mlflow", daemon=True)
    warm_up.start()
    outcome = left(run_folder)
    if outcome is None:
        with ray_head(configuration.pod_ip(), board):
            outcome = fit(config, _tuned(config, plan, run_folder), run_folder, telemetry, board)
    telemetry.finished(outcome)
    return _register(config, plan, run_folder, telemetry, outcome.metrics)


def check(plan: TrainPlan, dataset: DatasetVersion, function: str = "") -> None:
    """Fail on settings that the model does not have, and on code that cannot be imported, before any pod waits.

    Nothing is built here: a model may need more memory than the head has.
    """
    data = DataShape.of(dataset.pipeline)
    if not plan.model_uri:  # a registered version brings its own settings
        recipe_of(plan, data)
    if plan.entrypoint:
        entrypoints.load(plan.entrypoint, "model.entrypoint")
    if function:
        entrypoints.load(function, "trainer.entrypoint")


def _tuned(config: WorkloadConfig, plan: TrainPlan, run_folder: Path) -> TrainPlan:
    """What trainer.autotune finds on the first worker that comes."""
    if not plan.autotune:
        return plan
    import ray

    from mizzen.train.autotune import tuned

    row, devices = accelerators.granted(config)
    device = accelerators.ray_options(row, min(devices, 1))  # Ray hides devices from a task that asks for none
    task = ray.remote(tuned).options(num_cpus=1, max_retries=3, **device)
    found: TrainPlan = ray.get(task.remote(plan, run_folder))
    return found


def _register(
    config: WorkloadConfig, plan: TrainPlan, run_folder: Path, telemetry: Telemetry, metrics: dict[str, float]
) -> str:
    from mizzen.registry.client import connect
    from mizzen.registry.runs import RunLog, ensure_experiment, ensure_run, run_tags
    from mizzen.registry.signature import profile_of
    from mizzen.registry.versions import GateError, register

    assert config.training_spec is not None
    started = time.monotonic()
    client = connect(config.mlflow_uri)
    tags = run_tags(config, plan.config_hash)
    run_id = ensure_run(client, ensure_experiment(client, f"{config.namespace}/{config.name}"), config.name, tags)
    runlog = RunLog(client, run_id)
    runlog.parameters(parameters_of(plan, plan.model))
    assert config.dataset is not None
    runlog.dataset(config.dataset, DatasetVersion(config.dataset.uri).manifest)
    for step, values in telemetry.curves.points:
        runlog.metrics(values, step)
    runlog.metrics(metrics, telemetry.status.step)
    runlog.flush()
    profile = profile_of(DatasetVersion(config.dataset.uri))
    try:
        version = register(client, config.training_spec.register_, run_folder / FINAL, run_id, tags, metrics, profile)
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
