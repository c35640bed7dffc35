"""CEL rules (`x-kubernetes-validations`) of custom resources, evaluated by the `common-expression-language` package."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import cel as engine
from cel.stdlib import add_stdlib_to_context

from mizzen_local.api import fieldset
from mizzen_local.api.schema import Node
from mizzen_local.api.status import Cause, invalid_value, shown
from mizzen_local.client import Object

_RESERVED = frozenset(
    [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ]
)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


@lru_cache(maxsize=4096)
def _program(rule: str) -> Any:
    return engine.compile(rule)


def compile_problem(rule: str) -> str:
    try:
        _program(rule)
    except Exception as error:  # the engine raises several types, all of them the author's mistake
        return str(error).splitlines()[0]
    return ""


def check(node: Node, value: Any, old: Any, path: str, causes: list[Cause]) -> None:
    """Evaluate every rule at and below a value; rules about `oldSelf` hold only where there is an old value."""
    if not node.rules_below or value is None:
        return
    if node.rules:
        now, before = _to_cel(node, value), _to_cel(node, old) if old is not None else None
        for rule in node.rules:
            cause = _evaluate(rule, now, before, value, path)
            if cause is not None:
                causes.append(cause)
    if isinstance(value, dict):
        for name, item in value.items():
            below = node.props.get(name) or (node.values if node.is_map else None)
            if below is not None and not below.builtin:
                earlier = old.get(name) if isinstance(old, dict) else None
                check(below, item, earlier, f"{path}.{name}" if path else name, causes)
    elif isinstance(value, list) and "items" in node.raw:
        # items of lists without keys cannot be told apart between versions
        keyed = node.list_type == "map"
        earlier_items = fieldset.index(node, old) if keyed and isinstance(old, list) else None
        for index, item in enumerate(value):
            earlier = earlier_items.get(fieldset.item_key(node, item)) if earlier_items else None
            check(node.items, item, earlier, f"{path}[{index}]", causes)


def _evaluate(rule: Object, now: Any, before: Any, value: Any, path: str) -> Cause | None:  # noqa: PLR0911
    expression = rule["rule"]
    transition = "oldSelf" in expression
    if transition and before is None and not rule.get("optionalOldSelf"):
        return None
    place = path + rule.get("fieldPath", "")
    place = place.removeprefix(".")
    try:
        variables = {"self": now, **({"oldSelf": before} if transition else {})}
        if _program(expression).execute(_context(variables)) is True:
            return None
    except Exception as error:
        detail = f"rule evaluation failed: {str(error).splitlines()[0]}: evaluating rule: {expression}"
        return invalid_value(place, _described(value), detail)
    message = _message(rule, now, before) or rule.get("message", "").strip() or f"failed rule: {expression.strip()}"
    reason = rule.get("reason", "FieldValueInvalid")
    if reason == "FieldValueForbidden":
        return Cause(place, reason, f"Forbidden: {message}")
    if reason == "FieldValueRequired":
        return Cause(place, reason, f"Required value: {message}")
    if reason == "FieldValueDuplicate":
        return Cause(place, reason, f"Duplicate value: {shown(_described(value))}")
    if isinstance(value, dict | list):
        return Cause(place, reason, f"Invalid value: {message}")
    return Cause(place, reason, f"Invalid value: {shown(value)}: {message}")


def _described(value: Any) -> Any:
    """What a rule's error shows: scalars as they are, the types of everything else."""
    return "object" if isinstance(value, dict) else "array" if isinstance(value, list) else value


def _message(rule: Object, now: Any, before: Any) -> str:
    expression = rule.get("messageExpression")
    if not expression:
        return ""
    try:
        found = _program(expression).execute(_context({"self": now, "oldSelf": before}))
    except Exception:
        return ""
    return found.strip() if isinstance(found, str) and "\n" not in found else ""


def _context(variables: dict[str, Any]) -> Any:
    context = engine.Context(variables=variables)
    add_stdlib_to_context(context)
    context.add_function("sum", sum)
    context.add_function("isSorted", lambda items: list(items) == sorted(items))
    context.add_function("isURL", lambda text: re.match(r"[A-Za-z][A-Za-z0-9+.-]*://\S+|/\S*$", text) is not None)
    context.add_function("find", lambda text, pattern: found[0] if (found := re.search(pattern, text)) else "")
    context.add_function("findAll", lambda text, pattern: [found[0] for found in re.finditer(pattern, text)])
    return context


def _to_cel(node: Node, value: Any) -> Any:
    """The value with the types that its schema gives it: numbers as doubles, times and durations as such."""
    if isinstance(value, dict):
        out = {}
        for name, item in value.items():
            below = node.props.get(name) or (node.values if node.is_map else None)
            if below is None and not node.preserve:
                out[name] = item
                continue
            out[name if node.is_map else escaped(name)] = _to_cel(below, item) if below is not None else item
        return out
    if isinstance(value, list):
        return [_to_cel(node.items, item) for item in value] if "items" in node.raw else value
    if node.type == "number" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        if node.format == "date-time":
            return datetime.fromisoformat(value.replace("Z", "+00:00"))
        if node.format == "duration":
            parts = _DURATION.findall(value)
            return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in parts))
    return value


def escaped(name: str) -> str:
    """Property names that CEL cannot read are escaped as in the real server."""
    if name in _RESERVED:
        return f"__{name}__"
    return (
        name.replace("__", "__underscores__").replace(".", "__dot__").replace("-", "__dash__").replace("/", "__slash__")
    )
