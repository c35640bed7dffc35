"""Import paths of users: found where they are, and each way to fail with the line to look at."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mizzen import entrypoints
from mizzen.errors import SystemError_, UserError

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def write(text: str, name: str = "usernet") -> None:
        (tmp_path / f"{name}.py").write_text(text)

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("usernet"):
            del sys.modules[name]


def failure(path: str = "usernet:build") -> str:
    with pytest.raises(UserError) as caught:
        entrypoints.load(path, "model.entrypoint")
    assert caught.value.message.startswith(f"model.entrypoint {path}: ")
    return caught.value.message


def test_a_function_and_a_method_are_found(write: Write) -> None:
    write("class Net:\n    @staticmethod\n    def small(width):\n        return width\n")
    assert entrypoints.load("usernet:Net.small", "model.entrypoint")(3) == 3


def test_a_module_that_is_not_there_says_where_it_was_looked_for() -> None:
    message = failure("usernet_absent:build")
    assert "ModuleNotFoundError: No module named 'usernet_absent'" in message
    assert "name it as a key of spec.code's ConfigMap" in message


def test_a_module_that_imports_what_is_not_there(write: Write) -> None:
    write("import os\nimport usernet_missing\n")
    message = failure()
    assert "No module named 'usernet_missing' (usernet.py, line 2)" in message
    assert "ConfigMap" not in message, "the module itself was found"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def build(:\n", "SyntaxError: invalid syntax"),
        ("x = 1\nraise ValueError('no licence')\n", "ValueError: no licence (usernet.py, line 2)"),
        ("raise SystemExit('go away')\n", "SystemExit: go away"),
        ("def other(): ...\n", "usernet has no 'build'; it has other"),
        ("_hidden = 1\n", "it has nothing that can be called"),
        ("build = 3\n", "int build cannot be called"),
    ],
)
def test_modules_that_do_not_do(write: Write, text: str, words: str) -> None:
    write(text)
    assert words in failure()


def test_what_a_function_raises_is_its_authors_to_mend(write: Write) -> None:
    write("def build(width):\n    return 1 / width\n")
    build = entrypoints.load("usernet:build", "model.entrypoint")
    with pytest.raises(UserError, match=r"ZeroDivisionError: division by zero \(usernet.py, line 2\)"):
        entrypoints.call(build, "usernet:build", "model.entrypoint", 0)
    with pytest.raises(UserError, match="missing 1 required positional argument: 'width'"):
        entrypoints.call(build, "usernet:build", "model.entrypoint")


def test_stops_and_our_own_errors_pass() -> None:
    class Stopped(BaseException):
        pass

    def stop() -> None:
        raise Stopped

    def ours() -> None:
        raise SystemError_("MLflow is away")

    with pytest.raises(Stopped):
        entrypoints.call(stop, "a:b", "f")
    with pytest.raises(SystemError_):
        entrypoints.call(ours, "a:b", "f")


def test_a_module_is_built_from_the_users_function(write: Write) -> None:
    from torch import nn

    from mizzen.models.building import from_entrypoint
    from mizzen.models.shapes import TABLE, DataShape

    write(
        "from torch import nn\n"
        "def build(config, data):\n    return nn.Linear(data.num_features, config['width'])\n"
        "def wrong(config, data):\n    return 'no module'\n"
    )
    data = DataShape(TABLE, num_features=3)
    module = from_entrypoint("usernet:build", {"width": 2}, data)
    assert isinstance(module, nn.Linear)
    assert (module.in_features, module.out_features) == (3, 2)
    with pytest.raises(UserError, match=r"model.entrypoint usernet:build: KeyError: 'width' \(usernet.py, line 3\)"):
        from_entrypoint("usernet:build", {}, data)
    with pytest.raises(UserError, match=r"gave a str and no torch.nn.Module"):
        from_entrypoint("usernet:wrong", {}, data)
