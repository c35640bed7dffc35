"""`mizzen search`: the head pod. Starts Ray, runs trials on the workers that come, keeps the best in the Progress."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from typing import TYPE_CHECKING

from mizzen.data.store import local_folder
from mizzen.errors import UserError
from mizzen.models import catalog
from mizzen.search import space
from mizzen.search.record import SearchRecord
from mizzen.search.telemetry import Telemetry, too_many_failed
from mizzen.train.plan import DEFAULT_LEARNING_RATE, TrainPlan
from mizzen.workload import config as configuration
from mizzen.workload.progress import ProgressBoard
from mizzen.workload.ray_head import ray_head, wait_for_workers
from mizzen.workload.worker import threads
from mizzen_api.conditions import Reason
from mizzen_api.searchjob import SearchJobSpec
from mizzen_api.workload import WorkloadConfig

if TYPE_CHECKING:
    from mizzen.search.childruns import ChildRuns

log = logging.getLogger(__name__)

RECORD_FILE = "trials.jsonl"
LOST_ACTOR_RETRIES = 5


def run(config: WorkloadConfig, board: ProgressBoard) -> str:
    """Run what is left of the search. Finished trials of an earlier head count, with their results."""
    spec, model = config.search_spec, None
    assert spec is not None
    assert config.dataset is not None
    assert config.ray is not None
    model = config.model.name if config.model else catalog.TASKS[spec.task]
    space.check(spec, model)
    run_folder = local_folder(config.run_uri)
    run_folder.mkdir(parents=True, exist_ok=True)
    record = SearchRecord(run_folder / RECORD_FILE, spec.objective)
    telemetry = Telemetry(board, record, spec, model)
    telemetry.publish()
    if telemetry.left > 0 and not record.goal_reached:
        with ray_head(configuration.pod_ip(), board):
            # Ray waits for workers; meanwhile the libraries load.
            warm_up = threading.Thread(target=lambda: __import__("ray.tune"), name="import-tune", daemon=True)
            warm_up.start()
            wait_for_workers(min(config.ray.workers, spec.parallel_trial_count), 1)
            warm_up.join()
            from mizzen.search.childruns import ChildRuns

            runs = ChildRuns(config, _hash(spec))
            started = time.monotonic()
            _tune(config, spec, model, telemetry, runs)
            log.info("%d trials in %.1f s", len(record.trials), time.monotonic() - started)
            runs.close(record.best)
    return _conclude(record, spec)


def _tune(config: WorkloadConfig, spec: SearchJobSpec, model: str, telemetry: Telemetry, runs: ChildRuns) -> None:
    import tempfile

    from ray import tune

    from mizzen.search.searcher import AskTellSearcher
    from mizzen.search.trial import TrialTrainable
    from mizzen.search.tunecallback import RecordCallback, StopWhenOver

    assert config.dataset is not None
    plan = TrainPlan(
        model=model,
        settings={},
        dataset_uri=config.dataset.uri,
        dataset_fingerprint=config.dataset.fingerprint,
        learning_rate=DEFAULT_LEARNING_RATE,
        epochs=spec.epochs,
        seed=spec.algorithm.seed,
        train_fraction=spec.train_fraction,
        threads=threads(spec.resources_per_trial.cpu),
    )
    # It looks for result files after the search; we write none.
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
    first = len(telemetry.record.trials)
    callback = RecordCallback(telemetry, runs, config.name, first)
    scheduler = None
    if spec.early_stopping is not None:
        scheduler = tune.schedulers.ASHAScheduler(
            time_attr="epoch",
            max_t=spec.epochs,
            grace_period=min(spec.early_stopping.grace_period, spec.epochs),
            reduction_factor=spec.early_stopping.reduction_factor,
        )
    with tempfile.TemporaryDirectory() as scratch:  # Ray Tune's own state: pickled, so it never leaves this pod
        # Not tune.Tuner: that pickles its callbacks to disk, which ours are not made for.
        tune.run(
            tune.with_parameters(TrialTrainable, plan=plan.to_dict()),
            name="search",
            metric=spec.objective.metric,
            mode="max" if spec.objective.type == "maximize" else "min",
            stop=StopWhenOver(telemetry),
            resources_per_trial={"cpu": 1},
            num_samples=telemetry.left,
            storage_path=scratch,
            search_alg=AskTellSearcher(
                space.distributions(spec.parameters), spec.objective, spec.algorithm, telemetry.record.trials
            ),
            scheduler=scheduler,
            verbose=0,
            max_failures=LOST_ACTOR_RETRIES,
            raise_on_failed_trial=False,
            reuse_actors=True,
            max_concurrent_trials=spec.parallel_trial_count,
            callbacks=[callback],
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        )


def _conclude(record: SearchRecord, spec: SearchJobSpec) -> str:
    failed, best = record.failed, record.best
    if too_many_failed(record, spec) or best is None:
        raise UserError(
            Reason.TRIALS_FAILED,
            f"{len(failed)} of {len(record.trials)} trials failed; the last one: "
            f"{failed[-1].error if failed else 'no trial was measured'}",
        )
    metric = spec.objective.metric
    reached = f" (the goal of {spec.objective.goal:g} is reached)" if record.goal_reached else ""
    return f"best of {len(record.trials)} trials: {best.name} with {metric} {best.metrics[metric]:.4f}{reached}"


def _hash(spec: SearchJobSpec) -> str:
    return hashlib.sha256(json.dumps(spec.to_wire(), sort_keys=True).encode()).hexdigest()
