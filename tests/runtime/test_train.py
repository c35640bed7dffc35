"""What is around a training: threads, gates, and what MLflow says."""

from __future__ import annotations

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from mizzen.errors import UserError
from mizzen.registry.client import patiently
from mizzen.registry.gates import failures
from mizzen.workload.worker import threads
from mizzen_api.conditions import Reason
from mizzen_api.trainingjob import Gate


@pytest.mark.parametrize(
    ("quantity", "expected"), [(None, 1), ("2", 2), ("500m", 1), ("1500m", 2), ("3e0", 3), ("0.002k", 2), (".5", 1)]
)
def test_threads_for_a_quantity_of_cpu(quantity: str | None, expected: int) -> None:
    assert threads(quantity) == expected


def test_a_gate_says_when_nothing_was_measured() -> None:
    gate = Gate(metric="accuracy", min=0.5)
    assert failures([gate], {}) == ["gate accuracy: there is no such metric; nothing was measured"]
    assert failures([gate], {"test_loss": 1.0}) == ["gate accuracy: there is no such metric; there are test_loss"]


def test_what_mlflow_does_not_like_is_the_users_to_mend() -> None:
    def refused() -> None:
        raise MlflowException("Invalid model name 'a/b'", error_code=INVALID_PARAMETER_VALUE)

    with pytest.raises(UserError, match=r"MLflow refused \(create\): Invalid model name 'a/b'") as error:
        patiently(refused, "create")
    assert error.value.reason == Reason.INVALID_PARAMETERS
