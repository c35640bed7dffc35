"""Register models, each in a process that halts at one point, to be killed there.

`python registering.py TRACKING FOLDER UID=POINT...` prints `halted PID` when a process is there. It is MLflow's client.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from mizzen.registry.runs import ensure_experiment, ensure_run
from mizzen.registry.versions import register
from mizzen_api import contract
from mizzen_api.trainingjob import Register

METRICS = {"test_accuracy": 0.9}


def tags_of(uid: str) -> dict[str, str]:
    return {contract.TAG_UID: uid, contract.TAG_CONFIG_HASH: "sha256:c", contract.TAG_DATASET_FINGERPRINT: "sha256:d"}


def run_of(client: MlflowClient, uid: str) -> str:
    return ensure_run(client, ensure_experiment(client, "team/job"), "job", tags_of(uid))


class StoppingClient(MlflowClient):
    """Halts for good when a method is about to be called ("before:NAME") or has been ("after:NAME")."""

    def __init__(self, tracking: str, point: str) -> None:
        super().__init__(tracking, tracking)
        self._moment, _, name = point.partition(":")
        self._inner = getattr(super(), name)
        setattr(self, name, self._halting)

    def _halting(self, *args: Any, **kwargs: Any) -> None:
        if self._moment == "after":
            self._inner(*args, **kwargs)
        print(f"halted {os.getpid()}", flush=True)
        threading.Event().wait()


def main(tracking: str, folder: Path, uid: str, point: str) -> None:
    run_id = run_of(MlflowClient(tracking, tracking), uid)
    target = Register(name=uid, alias="champion")
    register(StoppingClient(tracking, point), target, folder, run_id, tags_of(uid), METRICS)


if __name__ == "__main__":
    import mizzen.data.pipeline  # noqa: F401 (imported once, for all)

    children = []
    for asked in sys.argv[3:]:
        if (pid := os.fork()) == 0:
            try:
                main(sys.argv[1], Path(sys.argv[2]), *asked.split("="))
            except Exception:
                traceback.print_exc()
            os._exit(1)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
