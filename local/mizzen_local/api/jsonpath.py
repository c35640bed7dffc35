"""Kubernetes' JSONPath, as far as printer columns use it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

_STEP = re.compile(
    r"""\.(?P<name>(?:\\.|[^.\[\]\\])+)
      | \[\?\(\s*@\.(?P<field>[^=!<>\s]+)\s*(?P<op>==|!=)\s*(?P<quote>["'])(?P<text>.*?)(?P=quote)\s*\)\]
      | \[(?P<index>-?\d+)\]
      | \[['"](?P<key>[^'"]+)['"]\]
      | (?P<all>\[\*\])""",
    re.VERBOSE,
)


@lru_cache(maxsize=512)
def find(path: str) -> Callable[[Any], list[Any]]:
    """Kubernetes' JSONPath as far as printer columns use it: fields, indexes, `[*]` and equality filters."""
    steps: list[re.Match[str]] = []
    text = path if path.startswith((".", "[")) else f".{path}"
    position = 0
    while position < len(text):
        match = _STEP.match(text, position)
        if match is None:
            return lambda _: []
        steps.append(match)
        position = match.end()

    def values_of(obj: Any) -> list[Any]:
        values = [obj]
        for step in steps:
            values = [after for value in values for after in _step(step, value)]
        return values

    return values_of


def _step(step: re.Match[str], value: Any) -> list[Any]:
    name = step["name"] or step["key"]
    if name is not None:
        name = name.replace("\\", "")
        found = value.get(name) if isinstance(value, dict) else None
        return [] if found is None else [found]
    if step["field"] is not None:
        return [
            item for item in (value if isinstance(value, list) else [])
            if isinstance(item, dict) and (str(_field(item, step["field"])) == step["text"]) is (step["op"] == "==")
        ]  # fmt: skip
    if step["all"] is not None:
        return list(value.values()) if isinstance(value, dict) else list(value) if isinstance(value, list) else []
    index = int(step["index"])
    return [value[index]] if isinstance(value, list) and -len(value) <= index < len(value) else []


def _field(value: Any, path: str) -> str:
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return "" if value is None else str(value)
