"""The user's own functions by import path (`package.module:name`): found, called, and their errors told."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from mizzen.errors import MizzenError, UserError
from mizzen_api import contract
from mizzen_api.conditions import Reason


def load(path: str, field: str) -> Callable[..., Any]:
    """What `path` names, for example net:build; `field` is where the spec says it, for example model.entrypoint.

    UserError with the last line of the traceback and the line of the user's file that it came from.
    """
    module_name, _, attribute = path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except MizzenError:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) or _is_stop(error):
            raise
        raise UserError(
            Reason.INVALID_PARAMETERS, f"{field} {path}: {told(error)}{_hint(module_name, error)}"
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            names = ", ".join(sorted(name for name, value in vars(found).items() if _offered(name, value)))
            raise UserError(
                Reason.INVALID_PARAMETERS,
                f"{field} {path}: {module_name} has no {part!r}; it has {names or 'nothing that can be called'}",
            )
        found = getattr(found, part)
    if not callable(found):
        raise UserError(
            Reason.INVALID_PARAMETERS, f"{field} {path}: {type(found).__name__} {attribute} cannot be called"
        )
    return found  # type: ignore[no-any-return]


def call(function: Callable[..., Any], path: str, field: str, /, *args: Any, **kwargs: Any) -> Any:
    """Call the user's function; what it raises is the user's to mend, errors of ours pass as they are."""
    try:
        return function(*args, **kwargs)
    except MizzenError:
        raise
    except Exception as error:
        raise UserError(Reason.INVALID_PARAMETERS, f"{field} {path}: {told(error)}") from error


def told(error: BaseException) -> str:
    """The last line of the traceback, and where in the user's files it came from."""
    (*_, last) = traceback.format_exception_only(error)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_ours(frame.filename)]
    place = f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""  # noqa: PTH119
    return last.strip() + ("" if isinstance(error, SyntaxError) else place)


def _hint(module: str, error: BaseException) -> str:
    """A module that is not there at all: say where was looked for it."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return ""
    if module.partition(".")[0] != error.name.partition(".")[0]:
        return ""
    where = contract.CODE_DIR if contract.CODE_DIR in sys.path else "PYTHONPATH"
    mend = "name it as a key of spec.code's ConfigMap, or bring it in spec.image"
    return f"; it is neither in {where} nor installed: {mend}"


def _is_ours(filename: str) -> bool:
    """Frames of Python's import machinery, of installed packages and of this module tell the user nothing."""
    libraries = (f"{os.sep}importlib{os.sep}", f"{os.sep}site-packages{os.sep}")
    return filename.startswith("<frozen") or filename == __file__ or any(part in filename for part in libraries)


def _is_stop(error: BaseException) -> bool:
    """SIGTERM while a module is imported is raised as a BaseException of the workload's."""
    return not isinstance(error, Exception | SystemExit)


def _offered(name: str, value: Any) -> bool:
    return callable(value) and not name.startswith("_")
