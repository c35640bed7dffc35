"""Structural validation with the real server's wording: every wrong field is named, all of them at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from mizzen_local.api.schema import Node
from mizzen_local.api.status import Cause, duplicate, invalid_value, required, shown, unsupported

_JSON_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}


def validate(node: Node, value: Any, path: str, causes: list[Cause]) -> None:
    """Check a custom resource's value against its structural schema."""
    if value is None:
        if not node.nullable and node.type:
            causes.append(_type_invalid(path, "null", node.type))
        return
    if not _type_matches(node, value):
        wanted = "integer,string" if node.int_or_string else node.type
        causes.append(_type_invalid(path, value, wanted))
        if node.enum is not None and not isinstance(value, dict | list):
            causes.append(unsupported(path, value, node.enum))
        return
    if node.enum is not None and value not in node.enum:
        causes.append(unsupported(path, value, node.enum))
    if isinstance(value, dict):
        _validate_object(node, value, path, causes)
    elif isinstance(value, list):
        _validate_list(node, value, path, causes)
    elif isinstance(value, str):
        _validate_string(node, value, path, causes)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        _validate_number(node, value, path, causes)
    _validate_combined(node, value, path, causes)


def _type_matches(node: Node, value: Any) -> bool:
    if node.int_or_string:
        return isinstance(value, int | str) and not isinstance(value, bool)
    if node.type in ("integer", "number") and isinstance(value, bool):
        return False
    if node.type == "integer" and isinstance(value, float):
        return value.is_integer()
    return not node.type or isinstance(value, _JSON_TYPES.get(node.type, object))


def _type_invalid(path: str, value: Any, wanted: str) -> Cause:
    text = '"null"' if value == "null" else shown(_type_name(value))
    detail = f"{path} in body must be of type {wanted}: {text}"
    return Cause(path, "FieldValueTypeInvalid", f"Invalid value: {text}: {detail}")


def _type_name(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    return {dict: "object", list: "array", str: "string", float: "number"}[type(value)]


def _validate_object(node: Node, value: dict[str, Any], path: str, causes: list[Cause]) -> None:
    for name in node.required:
        if name not in value:
            causes.append(required(f"{path}.{name}" if path else name))
    if node.type != "object":
        return
    raw = node.raw
    if "maxProperties" in raw and len(value) > raw["maxProperties"]:
        causes.append(
            Cause(path, "FieldValueTooMany", f"Too many: {len(value)}: must have at most {raw['maxProperties']} items")
        )
    if "minProperties" in raw and len(value) < raw["minProperties"]:
        causes.append(
            invalid_value(path, len(value), f"{path} in body should have at least {raw['minProperties']} properties")
        )
    for name, item in value.items():
        below = node.props.get(name)
        if below is None and node.is_map:
            below = node.values
        if below is not None and not below.builtin:
            validate(below, item, f"{path}.{name}" if path else name, causes)


def _validate_list(node: Node, value: list[Any], path: str, causes: list[Cause]) -> None:
    raw = node.raw
    if "maxItems" in raw and len(value) > raw["maxItems"]:
        causes.append(
            Cause(path, "FieldValueTooMany", f"Too many: {len(value)}: must have at most {raw['maxItems']} items")
        )
    if "minItems" in raw and len(value) < raw["minItems"]:
        causes.append(invalid_value(path, len(value), f"{path} in body should have at least {raw['minItems']} items"))
    if "items" in raw:
        for index, item in enumerate(value):
            validate(node.items, item, f"{path}[{index}]", causes)
    if node.list_type in ("set", "map") or raw.get("uniqueItems"):
        seen: list[Any] = []
        for index, item in enumerate(value):
            key = item
            if node.list_type == "map" and isinstance(item, dict):
                key = {name: item[name] for name in node.map_keys if name in item}
            if key in seen:
                causes.append(duplicate(f"{path}[{index}]", key))
            seen.append(key)


def _validate_string(node: Node, value: str, path: str, causes: list[Cause]) -> None:
    raw = node.raw
    if "maxLength" in raw and len(value) > raw["maxLength"]:
        causes.append(Cause(path, "FieldValueTooLong", f"Too long: may not be more than {raw['maxLength']} bytes"))
    elif "minLength" in raw and len(value) < raw["minLength"]:
        causes.append(invalid_value(path, value, f"{path} in body should be at least {raw['minLength']} chars long"))
    elif node.pattern is not None and not node.pattern.search(value):
        causes.append(invalid_value(path, value, f"{path} in body should match '{raw['pattern']}'"))
    if node.format in _FORMATS and not _FORMATS[node.format](value):
        text = f"Invalid value: {shown(value)}: {path} in body must be of type {node.format}: {shown(value)}"
        causes.append(Cause(path, "FieldValueTypeInvalid", text))


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).tzinfo is not None
    except ValueError:
        return False


_FORMATS: dict[str, Callable[[str], bool]] = {
    "date-time": _is_time,
    "date": lambda text: re.fullmatch(r"\d{4}-\d{2}-\d{2}", text) is not None,
    "duration": lambda text: re.fullmatch(r"[-+]?(\d+(\.\d+)?(ns|us|µs|ms|s|m|h|d|w)\s*)+|0", text) is not None,
    "uri": lambda text: re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:\S+|/\S*", text) is not None,
    "ipv4": lambda text: re.fullmatch(r"(\d{1,3}\.){3}\d{1,3}", text) is not None,
    "uuid": lambda text: (
        re.fullmatch(r"(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", text) is not None
    ),
    "email": lambda text: re.fullmatch(r"[^@\s]+@[^@\s]+", text) is not None,
}


def _validate_number(node: Node, value: float, path: str, causes: list[Cause]) -> None:
    raw = node.raw
    if (low := raw.get("minimum")) is not None and (value < low or (raw.get("exclusiveMinimum") and value == low)):
        relation = "greater than" if raw.get("exclusiveMinimum") else "greater than or equal to"
        causes.append(invalid_value(path, value, f"{path} in body should be {relation} {shown(low)}"))
    if (high := raw.get("maximum")) is not None and (value > high or (raw.get("exclusiveMaximum") and value == high)):
        relation = "less than" if raw.get("exclusiveMaximum") else "less than or equal to"
        causes.append(invalid_value(path, value, f"{path} in body should be {relation} {shown(high)}"))
    if (step := raw.get("multipleOf")) is not None and abs(value / step - round(value / step)) > 1e-9:
        causes.append(invalid_value(path, value, f"{path} in body should be a multiple of {shown(step)}"))


def _validate_combined(node: Node, value: Any, path: str, causes: list[Cause]) -> None:
    raw = node.raw
    for word in ("allOf", "anyOf", "oneOf"):
        if word not in raw or (node.int_or_string and word == "anyOf"):
            continue
        outcomes: list[list[Cause]] = []
        for option in raw[word]:
            found: list[Cause] = []
            validate(Node(option, False), value, path, found)
            outcomes.append(found)
        good = sum(not found for found in outcomes)
        if word == "allOf":
            causes.extend(cause for found in outcomes for cause in found)
        elif word == "anyOf" and not good:
            causes.append(
                Cause(
                    path,
                    "FieldValueInvalid",
                    f"Invalid value: {shown(value)}: {path} in body must validate at least one schema (anyOf)",
                )
            )
            causes.extend(outcomes[0])
        elif word == "oneOf" and good != 1:
            causes.append(
                Cause(
                    path,
                    "FieldValueInvalid",
                    f"Invalid value: {shown(value)}: {path} in body must validate one and only one schema (oneOf)",
                )
            )
    if "not" in raw:
        found = []
        validate(Node(raw["not"], False), value, path, found)
        if not found:
            causes.append(
                Cause(
                    path,
                    "FieldValueInvalid",
                    f"Invalid value: {shown(value)}: {path} in body must not validate the schema (not)",
                )
            )


def missing(node: Node, value: Any, path: str, causes: list[Cause]) -> None:
    """Required fields of a built-in kind. Lists may be left out: the real server reads them as empty."""
    if isinstance(value, dict):
        props = node.props
        for name in node.required:
            if name not in value and props[name].type != "array":
                causes.append(required(f"{path}.{name}" if path else name))
        for name, item in value.items():
            if isinstance(item, dict | list):
                below = props.get(name) or (node.values if node.is_map else None)
                if below is not None:
                    missing(below, item, f"{path}.{name}" if path else name, causes)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, dict):
                missing(node.items, item, f"{path}[{index}]", causes)
