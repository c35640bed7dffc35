"""Structural schemas as authors write them: what a definition is refused for, before any object could fail."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from mizzen_local.api import cel, schema, validation
from mizzen_local.api.status import Cause, forbidden_field, invalid_value, required

# `self.name` that is not a call; what a rule names has to be declared
_FIELD = re.compile(r"(?<![\w.\])])(?:self|oldSelf)\.([A-Za-z_]\w*)(?!\w*\()")
_ROOT_FIELDS = frozenset({"apiVersion", "kind", "metadata"})


def problems(raw: Any, path: str, root: bool = True) -> list[Cause]:
    """Everything wrong in a schema and below it."""
    causes = [*_shape(raw, path), *_list_type(raw, path), *_default(raw, path), *_rules(raw, path, root)]
    for name, below in (raw.get("properties") or {}).items():
        if not (root and name == "metadata"):
            causes += problems(below, f"{path}.properties[{name}]", False)
    if isinstance(raw.get("items"), dict):
        causes += problems(raw["items"], f"{path}.items", False)
    if isinstance(raw.get("additionalProperties"), dict) and raw["additionalProperties"]:
        causes += problems(raw["additionalProperties"], f"{path}.additionalProperties", False)
    return causes


def _shape(raw: Any, path: str) -> Iterator[Cause]:
    untyped = raw.get("x-kubernetes-int-or-string") or raw.get("x-kubernetes-preserve-unknown-fields")
    if not raw.get("type") and not untyped:
        yield required(f"{path}.type", "must not be empty for specified object fields")
    if "properties" in raw and raw.get("additionalProperties"):
        detail = "additionalProperties and properties are mutual exclusive"
        yield forbidden_field(f"{path}.additionalProperties", detail)
    if raw.get("type") == "array" and not raw.get("items"):
        yield required(f"{path}.items", "must be specified")
    if "pattern" in raw:
        try:
            re.compile(raw["pattern"])
        except re.error as error:
            detail = f"must be a valid regular expression, but isn't: error parsing regexp: {error}"
            yield invalid_value(f"{path}.pattern", raw["pattern"], detail)


def _list_type(raw: Any, path: str) -> Iterator[Cause]:
    if raw.get("x-kubernetes-list-type") != "map":
        return
    place, keys = f"{path}.x-kubernetes-list-map-keys", raw.get("x-kubernetes-list-map-keys") or []
    if not keys:
        yield required(place, "must not be empty if x-kubernetes-list-type is map")
    items = raw.get("items") or {}
    props = items.get("properties") or {}
    for key in keys:
        if key not in props:
            yield invalid_value(place, keys, "entries must all be names of item properties")
        elif "default" not in props[key] and key not in (items.get("required") or []):
            detail = (
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            )
            yield required(f"{path}.items.properties[{key}].default", detail)


def _default(raw: Any, path: str) -> Iterator[Cause]:
    if "default" not in raw:
        return
    place, node, unknown = f"{path}.default", schema.Node(raw, False), list[str]()
    cleaned = schema.clean(node, raw["default"], "", unknown)
    if unknown:
        yield invalid_value(place, raw["default"], "must not have unknown fields")
    found: list[Cause] = []
    schema.default(node, cleaned)
    validation.validate(node, cleaned, "", found)
    for cause in found:
        yield replace(cause, field=f"{place}.{cause.field}" if cause.field else place)


def _rules(raw: Any, path: str, root: bool) -> Iterator[Cause]:
    for index, rule in enumerate(raw.get("x-kubernetes-validations") or []):
        place = f"{path}.x-kubernetes-validations[{index}].rule"
        problem = cel.compile_problem(rule["rule"]) or _undeclared(raw, rule["rule"], root)
        if problem:
            yield invalid_value(place, rule["rule"], f"compilation failed: {problem}")


def _has_type(raw: Any) -> bool:
    """Whether CEL sees the field: what has no type, or holds such things, the real server's compiler does not know."""
    if raw.get("x-kubernetes-int-or-string"):
        return True
    if raw.get("type") == "array":
        return _has_type(raw.get("items") or {})
    if raw.get("type") == "object" and isinstance(raw.get("additionalProperties"), dict):
        return _has_type(raw["additionalProperties"])
    return bool(raw.get("type"))


def _undeclared(raw: Any, rule: str, root: bool) -> str:
    """The first field of `self` that an object's schema does not have; the real server's compiler knows all types."""
    if raw.get("type") != "object" or "properties" not in raw or raw.get("additionalProperties"):
        return ""
    known = {cel.escaped(name) for name, below in raw["properties"].items() if _has_type(below)} | (
        _ROOT_FIELDS if root else set()
    )
    if raw.get("x-kubernetes-embedded-resource"):
        known |= _ROOT_FIELDS
    bare = re.sub(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", "''", rule)
    return next((f"undefined field '{name}'" for name in _FIELD.findall(bare) if name not in known), "")
