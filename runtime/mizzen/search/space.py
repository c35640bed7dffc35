"""The space of a search: from the manifest's parameters to Optuna's distributions, checked before any trial runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mizzen.errors import UserError
from mizzen.models import catalog
from mizzen_api.conditions import Reason
from mizzen_api.searchjob import Parameter, SearchJobSpec

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

METRICS = ("accuracy", "loss")  # what a trial measures on the validation split


def check(spec: SearchJobSpec, model: str) -> None:
    """UserError InvalidParameters, which names the parameter and what there is."""
    known = (*catalog.settings(model), *catalog.TRAINER_SETTINGS)
    seen = set()
    for parameter in spec.parameters:
        if parameter.name not in known:
            raise _invalid(f"model {model} has no setting {parameter.name!r}; it has {', '.join(known)}")
        if parameter.name in seen:
            raise _invalid(f"parameter {parameter.name!r} appears twice")
        seen.add(parameter.name)
        distribution(parameter)
    if spec.objective.metric not in METRICS:
        raise _invalid(f"objective.metric {spec.objective.metric!r}: trials measure {', '.join(METRICS)}")


def distributions(parameters: Sequence[Parameter]) -> dict[str, BaseDistribution]:
    return {parameter.name: distribution(parameter) for parameter in parameters}


def distribution(parameter: Parameter) -> BaseDistribution:
    """values → categorical; min, max → float or integer, on a linear or a logarithmic scale."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    name, low, high = parameter.name, parameter.min, parameter.max
    log = parameter.scale == "log"
    if parameter.values:
        return CategoricalDistribution([_plain(value) for value in parameter.values])
    if low is None or high is None:
        raise _invalid(f"parameter {name!r}: set either values, or both min and max")
    try:
        if parameter.integer:
            return IntDistribution(int(low), int(high), log=log)
        return FloatDistribution(low, high, log=log)
    except ValueError as error:
        raise _invalid(f"parameter {name!r}: {error}") from error


def _plain(value: Any) -> Any:
    """YAML's 3.0 for a whole number is 3."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _invalid(message: str) -> UserError:
    return UserError(Reason.INVALID_PARAMETERS, message)
