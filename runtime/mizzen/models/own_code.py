"""The Python files of a model of one's own: copied beside the weights, and imported from there when it is loaded."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

_SWAPPING = threading.RLock()  # modules are the whole process's


def copy_code(entrypoint: str, folder: Path) -> None:
    """Its module, or all Python files of its package. Installed packages (in site-packages) are left where they are."""
    source = _source(_top(entrypoint))
    if source is None or "site-packages" in source.parts:
        return
    folder.mkdir(exist_ok=True)
    for relative in _files(source):
        target = folder / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.parent / relative, target)


@contextmanager
def importable(entrypoint: str, folder: Path) -> Iterator[None]:
    """Within it the entrypoint's module is the one that came with the model; nothing is done where none did.

    Where none is on PYTHONPATH, the folder stays on it. Where another one of the same name is, for example that of an
    older version, both go on to exist: this one is imported apart, and the other has the name again afterwards.
    """
    if not entrypoint or not folder.is_dir():
        yield
        return
    top = _top(entrypoint)
    with _SWAPPING:
        there = _source(top)
        if there is not None and _is_same(there, folder):
            yield
        elif there is None:
            sys.path.append(str(folder))
            importlib.invalidate_caches()
            yield
        else:
            with _in_place_of(top, folder):
                yield


@contextmanager
def _in_place_of(top: str, folder: Path) -> Iterator[None]:
    others = _imported(top)
    for name in others:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in _imported(top):
            del sys.modules[name]
        sys.modules.update(others)


def _imported(top: str) -> dict[str, ModuleType]:
    return {name: module for name, module in sys.modules.items() if name == top or name.startswith(f"{top}.")}


def _top(entrypoint: str) -> str:
    return entrypoint.partition(":")[0].partition(".")[0]


def _source(top: str) -> Path | None:
    """The module's file, or the package's folder; None where there is none."""
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        return None
    origin = Path(spec.origin)
    return origin.parent if spec.submodule_search_locations else origin


def _files(source: Path) -> list[Path]:
    """Python files, relative to the folder that the module or package lies in."""
    if source.is_file():
        return [Path(source.name)]
    return sorted(path.relative_to(source.parent) for path in source.rglob("*.py"))


def _is_same(there: Path, folder: Path) -> bool:
    copied = [path.relative_to(folder) for path in sorted(folder.rglob("*.py"))]
    return _files(there) == copied and all(
        (there.parent / path).read_bytes() == (folder / path).read_bytes() for path in copied
    )
