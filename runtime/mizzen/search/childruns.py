"""Finished trials as child runs in MLflow, written by a thread of their own so that the search never waits."""

from __future__ import annotations

import hashlib
import json
import logging
import queue
import threading
from typing import Any

from mizzen.errors import MizzenError
from mizzen.registry.client import connect
from mizzen.registry.runs import TAG_PARENT, RunLog, ensure_experiment, ensure_run, run_tags
from mizzen.search.record import FinishedTrial
from mizzen_api import contract
from mizzen_api.workload import WorkloadConfig

log = logging.getLogger(__name__)

TAG_STATE = "mizzen.trial_state"


class ChildRuns:
    """Takes trials as they finish; `close` waits until all are written. Losing MLflow costs the log, not the search."""

    def __init__(self, config: WorkloadConfig, config_hash: str) -> None:
        self._config, self._config_hash = config, config_hash
        self._queue: queue.Queue[FinishedTrial | None] = queue.Queue()
        self._best: FinishedTrial | None = None
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def add(self, trial: FinishedTrial) -> None:
        self._queue.put(trial)

    def close(self, best: FinishedTrial | None, timeout: float = 60.0) -> None:
        self._best = best
        self._queue.put(None)
        self._thread.join(timeout)

    def _work(self) -> None:
        try:
            self._log_all()
        except MizzenError as error:
            log.warning("the trials are not in MLflow: %s", error.message)
        except Exception:
            log.exception("the trials are not in MLflow")

    def _log_all(self) -> None:
        config = self._config
        client = connect(config.mlflow_uri)
        experiment = ensure_experiment(client, f"{config.namespace}/{config.name}")
        tags = run_tags(config, self._config_hash)
        parent = ensure_run(client, experiment, config.name, tags)
        while (trial := self._queue.get()) is not None:
            own = {
                **tags,
                contract.TAG_CONFIG_HASH: _hash(trial),
                TAG_PARENT: parent,
                "mizzen.trial_state": trial.state,
            }
            run = RunLog(client, ensure_run(client, experiment, trial.name, own))
            run.parameters(trial.parameters)
            for epoch, metrics in enumerate(trial.history, start=1):
                run.metrics(metrics, epoch)
            run.end("FAILED" if trial.state == "failed" else "FINISHED")
        run = RunLog(client, parent)
        if self._best is not None:
            run.parameters({f"best_{name}": value for name, value in self._best.parameters.items()})
            run.metrics({f"best_{name}": value for name, value in self._best.metrics.items()}, 0)
        run.end()


def _hash(trial: FinishedTrial) -> str:
    content: dict[str, Any] = {"name": trial.name, "parameters": trial.parameters}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
