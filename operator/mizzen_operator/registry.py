"""Asks MLflow which version a model URI means; answers are kept for a while, so that planning often asks rarely."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import aiohttp

from mizzen_operator.observed import Found, Missing, ModelAnswer, Unreachable

FOUND_SECONDS = 30.0  # a moved alias is followed within this time
WAITING_SECONDS = 10.0
_TIMEOUT = aiohttp.ClientTimeout(total=5)
_API = "/api/2.0/mlflow"


class MlflowRegistry:
    """interfaces.Registry over MLflow's REST API."""

    def __init__(self, session: aiohttp.ClientSession, base: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._session, self._base, self._clock = session, base, clock
        self._answers: dict[str, tuple[float, ModelAnswer]] = {}

    async def resolve(self, uri: str) -> ModelAnswer:
        now = self._clock()
        kept = self._answers.get(uri)
        if kept is not None and now < kept[0]:
            return kept[1]
        answer = await self._ask(uri)
        self._answers = {key: value for key, value in self._answers.items() if now < value[0]}
        self._answers[uri] = (now + (FOUND_SECONDS if isinstance(answer, Found) else WAITING_SECONDS), answer)
        return answer

    async def _ask(self, uri: str) -> ModelAnswer:
        if not self._base:
            return Unreachable("the operator knows no MLflow: set mlflow in the chart's values")
        path, query = _request(uri)
        try:
            async with self._session.get(self._base + _API + path, params=query, timeout=_TIMEOUT) as response:
                body = await response.json(content_type=None)
                return _answer(uri, response.status, body if isinstance(body, dict) else {})
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            return Unreachable(f"MLflow at {self._base} does not answer ({error or type(error).__name__})")


def _request(uri: str) -> tuple[str, dict[str, str]]:
    """Path and query for models:/NAME@ALIAS or models:/NAME/VERSION."""
    name = uri.removeprefix("models:/")
    if "@" in name:
        name, _, alias = name.rpartition("@")
        return "/registered-models/alias", {"name": name, "alias": alias}
    name, _, version = name.rpartition("/")
    return "/model-versions/get", {"name": name, "version": version}


def _answer(uri: str, status: int, body: dict[str, Any]) -> ModelAnswer:
    version = body.get("model_version")
    if status == 200 and isinstance(version, dict):
        return Found(f"models:/{version['name']}/{version['version']}")
    # MLflow says 404 for a model that it does not know and 400 for an alias that the model does not have.
    if body.get("error_code") in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
        return Missing(f"{uri} is not in the registry (yet): register a version, or move the alias to one")
    return Unreachable(f"MLflow answered {status} for {uri}: {body.get('message') or 'no message'}")
