"""The frame around every workload: serve progress, run, write the outcome, exit with a code that the Job knows."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from mizzen.errors import MizzenError, UserError
from mizzen.workload import config as configuration
from mizzen.workload.progress import ProgressBoard, ProgressServer
from mizzen_api import contract
from mizzen_api.conditions import Reason
from mizzen_api.workload import Progress, WorkloadConfig

log = logging.getLogger("mizzen")

EXIT_DONE = 0
EXIT_SYSTEM_ERROR = 1
EXIT_STOPPED = contract.EXIT_STOPPED

Work = Callable[[WorkloadConfig, ProgressBoard], str]


class Stopped(BaseException):
    """SIGTERM: the pod is going away. Raised in the main thread so that `finally` blocks run."""


def run_workload(kind: str, work: Work) -> int:
    """Run `work`, which returns a closing message, and return the exit code.

    0 is done, contract.EXIT_USER_ERROR says that no retry helps, anything else that one may.
    """
    set_up_logging()
    started = time.monotonic()
    board = ProgressBoard()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _stop)
    try:
        config = configuration.load(kind)
        log.info("%s %s/%s (generation %d)", config.kind, config.namespace, config.name, config.generation)
        with ProgressServer(board, configuration.pod_ip()):
            message = work(config, board)
            board.update(state="Succeeded", reason=Reason.SUCCEEDED, message=message)
    except UserError as error:
        return _fail(board, error, contract.EXIT_USER_ERROR)
    except MizzenError as error:
        return _fail(board, error, EXIT_SYSTEM_ERROR)
    except Stopped:
        log.info("stopped by SIGTERM")
        return EXIT_STOPPED
    except Exception as error:
        if isinstance(error, PermissionError) or (isinstance(error, OSError) and error.errno == errno.EROFS):
            return _fail(board, forbidden(error), contract.EXIT_USER_ERROR)
        log.exception("failed")
        message = f"{type(error).__name__}: {error}"
        return _fail(board, MizzenError(Reason.INTERNAL_ERROR, message[:2000]), EXIT_SYSTEM_ERROR)
    write_outcome(board.progress)
    log.info("done in %.1f s: %s", time.monotonic() - started, message)
    return EXIT_DONE


def forbidden(error: OSError) -> UserError:
    """No retry brings a permission: somebody has to give it. Object stores raise it without a file name, and from a
    worker it comes with that worker's traceback, whose last line is what happened.
    """
    last = (str(error).strip().splitlines() or ["permission denied"])[-1]
    what = f"{error.strerror}: {error.filename}" if error.filename else last
    groups = ", ".join(str(group) for group in sorted(os.getgroups()))
    mend = f"let user {os.getuid()} (groups {groups}) write to the volume or the bucket of the artifacts"
    return UserError(Reason.ARTIFACTS_FORBIDDEN, f"{what}: {mend}")


def write_outcome(progress: Progress) -> None:
    """Leave the outcome where the kubelet picks it up as the container's termination message."""
    path = Path(os.environ.get("MIZZEN_TERMINATION_LOG", contract.TERMINATION_LOG))
    if not path.exists():  # outside of Kubernetes
        return
    try:
        path.write_text(progress.to_termination_message())
    except OSError as error:
        log.warning("cannot write %s: %s", path, error)


def set_up_logging() -> None:
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _fail(board: ProgressBoard, error: MizzenError, code: int) -> int:
    log.error("%s: %s", error.reason, error.message)
    board.update(state="Failed", reason=error.reason, message=error.message)
    write_outcome(board.progress)
    return code


def _stop(_number: int, _frame: object) -> None:
    raise Stopped
