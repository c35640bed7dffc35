"""Whether an applied configuration fits its schema, in the words of structured-merge-diff: it forgives nothing."""

from __future__ import annotations

from typing import Any

import orjson

from mizzen_local.api import fieldset, status
from mizzen_local.api.golang import go_text
from mizzen_local.api.schema import Node
from mizzen_local.client import ApiError, Object

_SCALARS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}
_GO_TYPES = {dict: "map[string]interface {}", list: "[]interface {}", bool: "bool", int: "int64", float: "float64"}
_WORDS = {"integer": "numeric (int or float)", "number": "numeric (int or float)"}


def check(node: Node, config: Object, api_version: str, kind: str) -> None:
    """Raise what the real server does (a bare 500) unless every field is declared and every list key unique."""
    problems: list[str] = []
    _look(node, config, "", problems)
    if problems:
        raise failure(config, api_version, kind, problems)


def failure(config: Object, api_version: str, kind: str, problems: list[str]) -> ApiError:
    meta = config.get("metadata")
    meta = meta if isinstance(meta, dict) else {}
    said = problems[0] if len(problems) == 1 else "\n".join(["errors:", *(f"  {text}" for text in problems)])
    group, _, version = api_version.rpartition("/")
    what = f"{meta.get('namespace') or ''}/{meta.get('name') or ''}; {group}/{version}, Kind={kind}"
    return status.internal(f"failed to create typed patch object ({what}): {said}")


def _look(node: Node, value: Any, path: str, problems: list[str]) -> None:
    if value is None or node.int_or_string:
        return
    if node.type == "array":
        _look_list(node, value, path, problems)
    elif node.type == "object" or node.props or node.is_map:
        if not isinstance(value, dict):
            problems.append(f"{path}: expected map, got {_shown(value)}")
            return
        for name, item in value.items():
            below = node.field(name)
            if below is not None:
                _look(below, item, f"{path}.{name}", problems)
            elif not (path == "" and name in ("apiVersion", "kind", "metadata")):
                problems.append(f"{path}.{name}: field not declared in schema")
    elif node.type in _SCALARS and (
        not isinstance(value, _SCALARS[node.type]) or (isinstance(value, bool) and node.type != "boolean")
    ):
        got = _GO_TYPES.get(type(value), "string") if node.type in _WORDS else _shown(value)
        problems.append(f"{path}: expected {_WORDS.get(node.type, node.type)}, got {got}")


def _look_list(node: Node, value: Any, path: str, problems: list[str]) -> None:
    if not isinstance(value, list):
        problems.append(f"{path}: expected list, got {_shown(value)}")
        return
    seen: set[str] = set()
    for index, item in enumerate(value):
        place = f"{path}[{index}]"
        if node.list_type == "map" and not any(_has_key(node, item, key) for key in node.map_keys):
            keys = " ".join(f'"{key}"' for key in node.map_keys)
            problems.append(
                f"{path}: element {index}: associative list with keys has an element that omits all key fields"
                f" [{keys}] (and doesn't have default values for any key fields)"
            )
            continue
        if node.list_type in ("map", "set"):
            key = fieldset.item_key(node, item)
            place = f"{path}[{_key_text(key)}]"
            if key in seen:
                problems.append(f"{path}: duplicate entries for key [{_key_text(key)}]")
            seen.add(key)
        _look(node.items, item, place, problems)


def _has_key(node: Node, item: Any, key: str) -> bool:
    if not isinstance(item, dict) or item.get(key) is not None:
        return isinstance(item, dict)
    below = node.items.props.get(key)
    return node.builtin or (below is not None and below.has_default)  # Go's own types have their zero values


def _key_text(key: str) -> str:
    if key.startswith("v:"):
        return f"={key[2:]}"
    return ",".join(f"{name}={orjson.dumps(value).decode()}" for name, value in orjson.loads(key[2:]).items())


def _shown(value: Any) -> str:
    return f"&value.valueUnstructured{{Value:{status.shown(value) if isinstance(value, str) else go_text(value)}}}"
