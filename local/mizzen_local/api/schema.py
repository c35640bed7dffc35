"""Compiled schemas: one tree serves cleaning, defaulting, validation, patches and field ownership alike."""

from __future__ import annotations

import copy
import re
from functools import cache
from typing import Any

from mizzen_local.api import definitions
from mizzen_local.api.golang import Undecodable, go_type
from mizzen_local.client import Object
from mizzen_local.quantities import Quantity

_SIGNIFICANT = frozenset({"x-kubernetes-patch-strategy", "x-kubernetes-patch-merge-key", "default", "nullable"})
_GO_TYPES = {"integer": "int32", "number": "float64", "string": "string", "boolean": "bool"}
_BASE64 = re.compile(r"[A-Za-z0-9+/\r\n]*={0,2}[\r\n]*")


class Mistyped(Undecodable):
    """A value of the wrong type; each level that it passes adds its field, and the innermost struct its name."""

    def __init__(self, got: str, wanted: str) -> None:
        self.got, self.wanted, self.fields, self.struct = got, wanted, list[str](), ""

    def __str__(self) -> str:
        if not self.fields:
            return f"json: cannot unmarshal {self.got} into Go value of type {self.wanted}"
        place = ".".join([self.struct, *self.fields])
        return f"json: cannot unmarshal {self.got} into Go struct field {place} of type {self.wanted}"


class Node:
    """One place in a schema. Children are compiled when they are first looked at, so recursion costs nothing."""

    __slots__ = (
        "_defaults_below",
        "_items",
        "_pattern",
        "_props",
        "_rules_below",
        "_values",
        "additional",
        "builtin",
        "default",
        "definition",
        "embedded",
        "enum",
        "format",
        "has_default",
        "int_or_string",
        "list_type",
        "map_keys",
        "map_type",
        "merge_key",
        "nullable",
        "preserve",
        "raw",
        "required",
        "rules",
        "strategies",
        "type",
    )  # fmt: skip

    def __init__(self, raw: Object, builtin: bool) -> None:
        self.definition = ""
        while builtin and "$ref" in raw:
            self.definition = raw["$ref"]
            raw = {**definitions.lean()[raw["$ref"]], **{k: v for k, v in raw.items() if k != "$ref"}}
        self.raw, self.builtin = raw, builtin
        self._props: dict[str, Node] | None = None
        self._items: Node | None = None
        self._values: Node | None = None
        self._rules_below: bool | None = None
        self._defaults_below: bool | None = None
        self._pattern: re.Pattern[str] | None = None
        self.type: str = raw.get("type", "")
        self.format: str = raw.get("format", "")
        self.nullable: bool = raw.get("nullable", False)
        self.int_or_string: bool = raw.get("x-kubernetes-int-or-string", False) or self.format in (
            "int-or-string",
            "quantity",
        )
        self.additional: Any = raw.get("additionalProperties")
        self.enum: list[Any] | None = raw.get("enum")
        self.has_default = "default" in raw
        self.default = raw.get("default")
        self.embedded: bool = raw.get("x-kubernetes-embedded-resource", False)
        self.required: list[str] = raw.get("required", [])
        if self.embedded:
            self.required = [*self.required, *(name for name in ("apiVersion", "kind") if name not in self.required)]
        self.list_type: str = raw.get("x-kubernetes-list-type", "atomic")
        self.map_type: str = raw.get("x-kubernetes-map-type", "granular")
        self.map_keys: list[str] = raw.get("x-kubernetes-list-map-keys", [])
        self.merge_key: str = raw.get("x-kubernetes-patch-merge-key", "")
        self.strategies: frozenset[str] = frozenset(filter(None, raw.get("x-kubernetes-patch-strategy", "").split(",")))
        self.rules: list[Object] = [] if builtin else raw.get("x-kubernetes-validations", [])
        self.preserve: bool = raw.get("x-kubernetes-preserve-unknown-fields", False)
        if builtin:
            bare = "properties" not in raw and self.additional is None
            self.preserve = self.preserve or (bare and self.type in ("", "object") and not self.int_or_string)

    @property
    def props(self) -> dict[str, Node]:
        if self._props is None:
            self._props = {name: child(raw, self.builtin) for name, raw in self.raw.get("properties", {}).items()}
            if self.embedded:
                for name in ("apiVersion", "kind"):
                    self._props.setdefault(name, Node({"type": "string"}, False))
                self._props["metadata"] = object_meta()
        return self._props

    @property
    def items(self) -> Node:
        if self._items is None:
            self._items = child(self.raw.get("items") or {"x-kubernetes-preserve-unknown-fields": True}, self.builtin)
        return self._items

    @property
    def values(self) -> Node:
        """The schema of a map's values."""
        if self._values is None:
            raw = self.additional if isinstance(self.additional, dict) else {}
            self._values = child(raw or {"x-kubernetes-preserve-unknown-fields": True}, self.builtin)
        return self._values

    @property
    def untyped(self) -> bool:
        return not self.type and self.preserve

    @property
    def is_map(self) -> bool:
        return bool(self.additional) or self.additional == {}

    def field(self, name: str) -> Node | None:
        """The schema of a field or a map's key; None where the schema does not know it."""
        found = self.props.get(name)
        if found is None:
            if self.is_map:
                return self.values
            if self.preserve:
                return UNTYPED
        return found

    @property
    def pattern(self) -> re.Pattern[str] | None:
        if self._pattern is None and "pattern" in self.raw:
            self._pattern = re.compile(self.raw["pattern"])
        return self._pattern

    def _below(self) -> list[Node]:
        children = [*self.props.values()]
        if "items" in self.raw:
            children.append(self.items)
        if isinstance(self.additional, dict):
            children.append(self.values)
        return [node for node in children if not node.builtin]

    @property
    def rules_below(self) -> bool:
        """Whether a CEL rule stands here or further down, so that subtrees without any are skipped."""
        if self._rules_below is None:
            self._rules_below = bool(self.rules) or any(node.rules_below for node in self._below())
        return self._rules_below

    @property
    def defaults_below(self) -> bool:
        if self._defaults_below is None:
            self._defaults_below = self.has_default or any(node.defaults_below for node in self._below())
        return self._defaults_below


@cache
def named(definition: str) -> Node:
    """The schema of a built-in definition."""
    return Node({"$ref": definition}, True)


def object_meta() -> Node:
    return named(definitions.OBJECT_META)


def child(raw: Object, builtin: bool) -> Node:
    # one node for all uses of a definition, unless the use itself says how lists are patched
    if builtin and "$ref" in raw and not _SIGNIFICANT & raw.keys():
        return named(raw["$ref"])
    return Node(raw, builtin)


def crd_root(raw: Object) -> Node:
    """The schema of a custom resource: what the author wrote, and the metadata that every object has."""
    node = Node({"type": "object", **raw}, False)
    for name in ("apiVersion", "kind"):
        node.props.setdefault(name, Node({"type": "string"}, False))
    node.props["metadata"] = object_meta()
    return node


UNTYPED = Node({"x-kubernetes-preserve-unknown-fields": True}, False)


def clean(node: Node, value: Any, path: str, unknown: list[str], whole: bool = False) -> Any:
    """Drop what the schema does not know and note where it was; built-in kinds also drop nulls and check types.

    Empty maps and lists of built-in kinds go, too, as Go leaves them out, unless the value is wanted as a `whole`.

    Returns new containers: the value that a client sent may be changed freely afterwards.
    """
    if isinstance(value, dict):
        return _clean_object(node, value, path, unknown, whole)
    if isinstance(value, list):
        if node.type != "array":
            if node.builtin and node.type:
                raise Mistyped("array", _go_name(node))
            return value
        items = node.items
        return [clean(items, item, f"{path}[{index}]", unknown, whole) for index, item in enumerate(value)]
    if node.builtin and node.type:
        return _scalar(node, value)
    if node.type == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _clean_object(node: Node, value: dict[str, Any], path: str, unknown: list[str], whole: bool) -> dict[str, Any]:
    if node.builtin and node.type not in ("object", ""):
        raise Mistyped("object", _go_name(node))
    props, is_map, preserve = node.props, node.is_map, node.preserve
    if not props and preserve and not node.embedded:
        return value
    out: dict[str, Any] = {}
    name = ""
    try:
        for name, item in value.items():
            below = props.get(name) or (node.values if is_map else None)
            if below is None:
                if preserve:
                    out[name] = item
                else:
                    unknown.append(f"{path}.{name}" if path else name)
            elif item is not None:
                if not item and not whole and name not in node.required and _left_out(below, item):
                    continue
                out[name] = clean(below, item, f"{path}.{name}" if path else name, unknown, whole)
            elif not below.builtin and (below.nullable or below.untyped):
                out[name] = None  # elsewhere nulls count as missing
            elif name not in props and below.type == "string":
                out[name] = ""  # Go's zero value
    except Mistyped as error:
        if name in props:
            error.fields.insert(0, name)
            error.struct = error.struct or node.definition.rpartition(".")[2]
        raise
    return out


def _left_out(node: Node, value: Any) -> bool:
    """Whether Go would not write an empty value."""
    return node.builtin and isinstance(value, list if node.type == "array" else dict if node.is_map else ())


def _scalar(node: Node, value: Any) -> Any:
    kind = node.type
    if kind == "string":
        if isinstance(value, str) or (node.int_or_string and isinstance(value, int | float) and value is not True):
            if isinstance(value, str) and node.format == "byte" and not _BASE64.fullmatch(value):
                bad = _BASE64.match(value)
                raise Undecodable(f"illegal base64 data at input byte {bad.end() if bad else 0}")
            # quantities are strings once stored, ports keep their type
            return _quantity(node, value) if node.format == "quantity" else value
    elif kind == "integer":
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, float) and value.is_integer():
            return int(value)
    elif kind == "boolean":
        if isinstance(value, bool):
            return value
    elif kind == "number" and isinstance(value, int | float) and not isinstance(value, bool):
        return value
    elif value is None:
        return None
    raise Mistyped(go_type(value), _go_name(node))


def _quantity(node: Node, value: Any) -> str:
    """Built-in kinds keep amounts in their shortest form."""
    if not node.builtin:
        return str(value)
    try:
        return str(Quantity.parse(value))
    except ValueError as error:
        raise Undecodable(str(error)) from error


def _go_name(node: Node) -> str:
    """The Go type of a place, as errors name it."""
    if node.definition and "properties" in node.raw:
        return ".".join(node.definition.split(".")[-2:])
    if node.type == "array":
        return f"[]{_go_name(node.items)}"
    if node.is_map:
        return f"map[string]{_go_name(node.values)}"
    return "int64" if node.format == "int64" else _GO_TYPES.get(node.type, "map[string]interface {}")


def default(node: Node, value: Any) -> None:
    """Fill in the schema's defaults, in place; nulls of fields with a default count as missing."""
    if not node.defaults_below:
        return
    if isinstance(value, dict):
        for name, below in node.props.items():
            if name not in value:
                if not below.has_default:
                    continue
                value[name] = copy.deepcopy(below.default)
            if not below.builtin and below.defaults_below:
                default(below, value[name])
        if isinstance(node.additional, dict) and node.values.defaults_below:
            for name, item in value.items():
                if item is None and node.values.has_default and not node.values.nullable:
                    value[name] = copy.deepcopy(node.values.default)
                default(node.values, value[name])
    elif isinstance(value, list) and "items" in node.raw:
        for item in value:
            default(node.items, item)
