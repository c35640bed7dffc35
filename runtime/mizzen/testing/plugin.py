"""The pytest plugin: the same tests for any version of a model.

    pytest tests/model --mizzen-model models:/tweets@candidate

It imports nothing heavy: pytest loads it at each start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mizzen.models import Model

OPTION = "--mizzen-model"
INI = "mizzen_model"


def pytest_addoption(parser: pytest.Parser) -> None:
    told = "model of the fixture mizzen_model: a folder, a name below $MIZZEN_MODELS, or models:/NAME/VERSION"
    parser.getgroup("mizzen").addoption(OPTION, metavar="MODEL", help=told)
    parser.addini(INI, f"what {OPTION} is unless given")


@pytest.fixture(scope="session")
def mizzen_model(pytestconfig: pytest.Config) -> Model:
    """The model that --mizzen-model names, or mizzen_model in the configuration of pytest."""
    from mizzen.models import load

    named = pytestconfig.getoption(OPTION) or pytestconfig.getini(INI)
    if not named:
        pytest.fail(f"the fixture mizzen_model needs {OPTION} MODEL, or {INI} in pytest's configuration", pytrace=False)
    return load(named)
