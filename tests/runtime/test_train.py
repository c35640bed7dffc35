"""What is around a training: threads, and what MLflow says."""

from __future__ import annotations

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from mizzen.errors import UserError
from mizzen.registry.client import patiently
from mizzen.workload.worker import threads
from mizzen_api.conditions import Reason


@pytest.mark.parametrize(
    ("quantity", "expected"), [(None, 1), ("2", 2), ("500m", 1), ("1500m", 2), ("3e0", 3), ("0.002k", 2), (".5", 1)]
)
def test_threads_for_a_quantity_of_cpu(quantity: str | None, expected: int) -> None:
    assert threads(quantity) == expected


def test_what_mlflow_does_not_like_is_the_users_to_mend() -> None:
    def refused() -> None:
        raise MlflowException("Invalid model name 'a/b'", error_code=INVALID_PARAMETER_VALUE)

    with pytest.raises(UserError, match=r"MLflow refused \(create\): Invalid model name 'a/b'") as error:
        patiently(refused, "create")
    assert error.value.reason == Reason.INVALID_PARAMETERS
