"""One MLflow client with patience: what cannot be reached is tried again with back-off, then it is a system error."""

from __future__ import annotations

import logging
import os
import random
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from mizzen.errors import RegistryUnreachable, UserError
from mizzen_api.conditions import Reason

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 240.0
FIRST_DELAY = 0.5
LONGEST_DELAY = 15.0

_ASKED_WRONGLY = frozenset({"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"})

T = TypeVar("T")


def connect(uri: str) -> MlflowClient:
    """A client of the tracking server at `uri`. MLflow's own retries are cut short: `patiently` does them."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


def patiently(call: Callable[[], T], what: str, patience: float = PATIENCE_SECONDS) -> T:
    """The result of `call`, which must be safe to repeat. Errors that another try may cure are tried again.

    UserError InvalidParameters where MLflow does not like a value or does not have what is asked for;
    RegistryUnreachable at the end of all patience.
    """
    deadline = time.monotonic() + patience
    delay = FIRST_DELAY
    while True:
        try:
            return call()
        except Exception as error:
            if getattr(error, "error_code", None) in _ASKED_WRONGLY:
                raise UserError(Reason.INVALID_PARAMETERS, f"MLflow refused ({what}): {_first_line(error)}") from error
            if not _worth_another_try(error):
                raise RegistryUnreachable(f"MLflow refused ({what}): {_first_line(error)}") from error
            if time.monotonic() + delay > deadline:
                raise RegistryUnreachable(
                    f"MLflow did not answer for {patience:.0f} s ({what}): {_first_line(error)}"
                ) from error
            log.warning("MLflow: %s failed, trying again in %.1f s: %s", what, delay, _first_line(error))
        time.sleep(delay * random.uniform(0.7, 1.3))  # noqa: S311 (jitter)
        delay = min(delay * 2, LONGEST_DELAY)


def _worth_another_try(error: Exception) -> bool:
    """Connections that fail, and answers that say so; not requests that the server refuses."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        said = re.search(r"error code (\d{3})", error.message)  # MLflow tells plain HTTP errors in words only
        code = int(said[1]) if said else error.get_http_status_code()
        return code in (408, 429, 502, 503, 504) or (said is None and "API request to" in error.message)
    return isinstance(error, (ConnectionError, TimeoutError)) or type(error).__module__.startswith(
        ("requests.", "urllib3.")
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
