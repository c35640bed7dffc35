"""Nothing that the packages write or load is a pickle: their code cannot, and what they write is none."""

from __future__ import annotations

import ast
import json
import pickletools
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors import safe_open

ROOT = Path(__file__).parents[2]
PACKAGES = [
    "crds/mizzen_api",
    "operator/mizzen_operator",
    "runtime/mizzen",
    "kernels/mizzen_kernels",
    "local/mizzen_local",
]
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]

MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "ray.cloudpickle"}
# Calls that pickle, or unpickle, unless an argument says otherwise.
CALLS = {
    "torch.save", "torch.jit.save", "torch.jit.load", "np.save", "numpy.save", "pd.read_pickle", "pandas.read_pickle",
    "mlflow.pytorch.log_model", "mlflow.pytorch.load_model", "mlflow.sklearn.log_model", "mlflow.pyfunc.log_model",
}  # fmt: skip
UNLESS = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
}
METHODS = {"to_pickle", "dump_pickle"}


def name_of(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def offences(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (f"{node.lineno}: import {alias.name}" for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            names = {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
            if names & MODULES:
                yield f"{node.lineno}: from {node.module} import"
        elif isinstance(node, ast.Call):
            called = name_of(node.func)
            argument, wanted = UNLESS.get(called, ("", None))
            said = {key.arg: getattr(key.value, "value", None) for key in node.keywords}
            if called in CALLS or called.rpartition(".")[2] in METHODS:
                yield f"{node.lineno}: {called}()"
            elif argument and said.get(argument) is not wanted:
                yield f"{node.lineno}: {called}() without {argument}={wanted}"
        elif isinstance(node, ast.Attribute) and name_of(node) in MODULES:
            yield f"{node.lineno}: {name_of(node)}"


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from ray import cloudpickle",
        "from pickle import loads",
        "torch.save(x, p)",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "np.load(p, allow_pickle=True)",
        "frame.to_pickle(p)",
        "ray.cloudpickle.dumps(x)",
    ],
)
def test_the_search_finds_it(code: str) -> None:
    assert list(offences(ast.parse(code)))


def test_no_code_can_pickle() -> None:
    assert len(FILES) > 200
    found = [f"{path.relative_to(ROOT)}:{what}" for path in FILES for what in offences(ast.parse(path.read_text()))]
    assert found == []


def test_what_is_exported_is_none(shelf: Path) -> None:
    """Each file is what its name says, and no pickle can be read from any."""
    files = [path for path in shelf.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".safetensors", ".json", ".yaml", ".txt", ""}
    for path in files:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="np") as weights:
                assert list(weights.keys())
        elif path.suffix == ".json":
            json.loads(path.read_bytes())
        with pytest.raises(ValueError, match=r"."):
            list(pickletools.genops(path.read_bytes()))
