"""docs/testing.md names all that mizzen.testing and mizzen.models export, and what it shows is Python."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import mizzen.models
import mizzen.testing

PAGE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
BASES = {"Model", "Output"}  # what the others are, and a type to annotate with


def test_each_name_is_explained() -> None:
    names = {*mizzen.testing.__all__, *mizzen.models.__all__} - BASES
    assert {name for name in names if not re.search(rf"\b{name}\b", PAGE)} == set()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.splitlines()[0])
def test_what_is_imported_is_there(example: str) -> None:
    for node in ast.walk(ast.parse(example)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("mizzen."):
            module = {"mizzen.models": mizzen.models, "mizzen.testing": mizzen.testing}[str(node.module)]
            assert {alias.name for alias in node.names} <= set(module.__all__)


def test_checks_that_are_shown_are_those_that_are_named() -> None:
    table = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.M))
    assert table == {name for name in mizzen.testing.__all__ if name.startswith(("check_", "overfits"))}
