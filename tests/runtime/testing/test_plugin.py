"""A user's pytest with the plugin, and what it costs those who do not use it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mizzen.testing

USERS = """
from mizzen.testing import check_forward, check_invariances

ROWS = [{"text": "This product is excellent", "length": 3}, {"text": "awful"}]

def test_forward_pass(mizzen_model):
    assert check_forward(mizzen_model, ROWS).shape == (2, 2)

def test_invariances(mizzen_model):
    check_invariances(mizzen_model, ROWS)
"""
ONE = "def test_it(mizzen_model): ..."


def users_pytest(folder: Path, *arguments: str, tests: str = USERS) -> subprocess.CompletedProcess[str]:
    """In a process of its own, as the entry point loads it."""
    (folder / "test_model.py").write_text(tests)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "mizzen.testing.plugin",
        "-p",
        "no:cacheprovider",
        *arguments,
    ]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.slow
def test_a_model_is_named_on_the_command_line_or_in_the_configuration(shelf: Path, tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nmizzen_model = v7\n")
    done = users_pytest(tmp_path, "--mizzen-model", str(shelf / "v1.0"))
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout
    done = users_pytest(tmp_path, tests=ONE)
    assert done.returncode == 1 and "there is no model 'v7'" in done.stdout, done.stdout


@pytest.mark.slow
def test_without_a_model_the_fixture_says_how_to_name_one(tmp_path: Path) -> None:
    done = users_pytest(tmp_path, tests=ONE)
    assert done.returncode == 1 and "the fixture mizzen_model needs --mizzen-model MODEL" in done.stdout, done.stdout


def test_the_plugin_is_light() -> None:
    heavy = {"torch", "numpy", "polars", "aiohttp", "pydantic", "mizzen.models", "mizzen.data"}
    code = f"import mizzen.testing.plugin, sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_names_are_there() -> None:
    for name in mizzen.testing.__all__:
        assert callable(getattr(mizzen.testing, name))
    assert set(mizzen.testing._HOMES) == set(mizzen.testing.__all__)
    with pytest.raises(AttributeError, match="no attribute 'check_everything'"):
        _ = mizzen.testing.check_everything
