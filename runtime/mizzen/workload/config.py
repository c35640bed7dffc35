"""The first thing that a workload does: read what the operator mounted for it."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from mizzen.errors import SystemError_
from mizzen_api import contract
from mizzen_api.workload import WorkloadConfig


def load(kind: str | None = None) -> WorkloadConfig:
    """The configuration that $MIZZEN_CONFIG names; `kind` refuses one that is meant for another command."""
    path = Path(os.environ.get(contract.ENV_CONFIG, f"{contract.CONFIG_DIR}/{contract.CONFIG_FILE}"))
    try:
        config = WorkloadConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SystemError_(
            f"cannot read the configuration {path} ({error.strerror}): set {contract.ENV_CONFIG} to its path"
        ) from error
    except ValidationError as error:
        raise SystemError_(f"{path} is not a workload configuration: {error}") from error
    if kind is not None and config.kind != kind:
        raise SystemError_(f"{path} describes a {config.kind}; this command runs a {kind}")
    return config


def pod_ip() -> str:
    """The address to serve on: never a wildcard."""
    return os.environ.get(contract.ENV_POD_IP, "127.0.0.1")
