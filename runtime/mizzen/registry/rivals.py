"""The versions that gates compare with: found by alias or number, with what their runs measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mizzen.registry.client import patiently
from mizzen.registry.gates import Rival
from mizzen_api import contract
from mizzen_api.trainingjob import Register

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow's answers for a number, and for an alias, that is not there.
_ABSENT = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"})


def rivals(client: MlflowClient, target: Register) -> dict[str, Rival | None]:
    """By the names of gates' notWorseThan; None for one that is not there."""
    names = {gate.not_worse_than for gate in target.gates if gate.not_worse_than}
    return {name: _rival(client, target.name, name) for name in sorted(names)}


def _rival(client: MlflowClient, model: str, name: str) -> Rival | None:
    def look() -> Rival | None:
        from mlflow.exceptions import MlflowException

        try:
            found = (client.get_model_version if name.isdigit() else client.get_model_version_by_alias)(model, name)
        except MlflowException as error:
            if error.error_code in _ABSENT:
                return None
            raise
        metrics = client.get_run(found.run_id).data.metrics if found.run_id else {}
        return Rival(f"models:/{model}/{found.version}", metrics, found.tags.get(contract.TAG_DATASET_FINGERPRINT, ""))

    return patiently(look, f"find {name} of {model}")
