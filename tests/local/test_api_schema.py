"""Structural schemas and CEL rules: what is wrong with a custom resource, in the real server's words."""

from __future__ import annotations

from typing import Any

import pytest

from mizzen_local.api import cel, schema, validation
from mizzen_local.api.status import Cause
from mizzen_local.client import Object


def problems(raw: Object, value: Any, old: Any = None) -> list[str]:
    node = schema.crd_root({"type": "object", "properties": {"spec": raw}})
    causes: list[Cause] = []
    validation.validate(node, {"spec": value}, "", causes)
    if not causes:
        cel.check(node, {"spec": value}, {"spec": old} if old is not None else None, "", causes)
    return [str(cause) for cause in causes]


def an_object(**properties: Any) -> Object:
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    ("raw", "value", "message"),
    [
        ({"type": "integer"}, "x", 'spec: Invalid value: "string": spec in body must be of type integer: "string"'),
        ({"type": "integer"}, True, 'spec: Invalid value: "boolean": spec in body must be of type integer: "boolean"'),
        ({"type": "string"}, None, 'spec: Invalid value: "null": spec in body must be of type string: "null"'),
        (
            {"type": "integer", "minimum": 1},
            0,
            "spec: Invalid value: 0: spec in body should be greater than or equal to 1",
        ),
        (
            {"type": "number", "maximum": 1, "exclusiveMaximum": True},
            1,
            "spec: Invalid value: 1: spec in body should be less than 1",
        ),
        ({"type": "string", "enum": ["a", "b"]}, "c", 'spec: Unsupported value: "c": supported values: "a", "b"'),
        ({"type": "string", "pattern": "^a+$"}, "b", "spec: Invalid value: \"b\": spec in body should match '^a+$'"),
        (
            {"type": "string", "minLength": 1},
            "",
            'spec: Invalid value: "": spec in body should be at least 1 chars long',
        ),
        ({"type": "string", "maxLength": 1}, "ab", "spec: Too long: may not be more than 1 bytes"),
        (
            {"type": "array", "items": {"type": "string"}, "maxItems": 1},
            ["a", "b"],
            "spec: Too many: 2: must have at most 1 items",
        ),
        (
            {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
            ["a", "a"],
            'spec[1]: Duplicate value: "a"',
        ),
        ({**an_object(a={"type": "string"}), "required": ["a"]}, {}, "spec.a: Required value"),
        (
            {"type": "string", "format": "date-time"},
            "now",
            'spec: Invalid value: "now": spec in body must be of type date-time: "now"',
        ),
    ],
)
def test_each_constraint_has_its_message(raw: Object, value: Any, message: str) -> None:
    assert problems(raw, value) == [message]


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ({"type": "integer"}, 3),
        ({"type": "number"}, 3),
        ({"type": "string", "nullable": True}, None),
        ({"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}, "25%"),
        ({"type": "object", "x-kubernetes-preserve-unknown-fields": True}, {"a": [1]}),
    ],
)
def test_what_is_right_has_no_message(raw: Object, value: Any) -> None:
    assert problems(raw, value) == []


def test_a_rule_names_the_field_and_its_message() -> None:
    raw = an_object(low={"type": "number"}, high={"type": "number"})
    raw["x-kubernetes-validations"] = [
        {"rule": "self.low <= self.high", "message": "low must not exceed high", "fieldPath": ".low"}
    ]
    assert problems(raw, {"low": 1, "high": 2}) == []
    assert problems(raw, {"low": 3, "high": 2.5}) == ["spec.low: Invalid value: low must not exceed high"]


def test_a_transition_rule_holds_on_updates_only() -> None:
    raw = {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "field is immutable"}]}
    assert problems(raw, "b") == []
    assert problems(raw, "b", old="a") == ['spec: Invalid value: "b": field is immutable']


@pytest.mark.parametrize(
    ("rule", "value", "holds"),
    [
        ("has(self.a) && self.a > 1", {"a": 2}, True),
        ("!has(self.a) || self.a > 1", {}, True),
        ("self.items.all(x, x.size() < 3)", {"items": ["ab", "abc"]}, False),
        ("self.items.exists(x, x.matches('^a'))", {"items": ["ba", "ab"]}, True),
        ("size(self.items) == 2", {"items": ["a", "b"]}, True),
        ("self.a in ['x', 'y']", {"a": "z"}, False),
        ("self.ratio + self.a * 1.0 <= 1.0", {"ratio": 0.5, "a": 0.5}, True),
    ],
)
def test_the_language_covers_what_schemas_use(rule: str, value: Object, holds: bool) -> None:
    items = {"type": "array", "items": {"type": "string"}}
    raw = {**an_object(items=items, ratio={"type": "number"}), "x-kubernetes-validations": [{"rule": rule}]}
    raw["properties"]["a"] = {"x-kubernetes-preserve-unknown-fields": True}
    assert (problems(raw, value) == []) is holds


def test_a_rule_without_message_shows_itself() -> None:
    raw = {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 1"}]}
    assert problems(raw, 1) == ["spec: Invalid value: 1: failed rule: self > 1"]


def test_cleaning_drops_and_reports_unknown_fields() -> None:
    node = schema.crd_root(
        an_object(
            spec=an_object(a={"type": "string"}, free={"type": "object", "x-kubernetes-preserve-unknown-fields": True})
        )
    )
    unknown: list[str] = []
    cleaned = schema.clean(
        node, {"spec": {"a": "x", "b": 1, "free": {"c": 2}}, "metadata": {"name": "n", "nam": 1}}, "", unknown
    )
    assert cleaned == {"spec": {"a": "x", "free": {"c": 2}}, "metadata": {"name": "n"}}
    assert sorted(unknown) == ["metadata.nam", "spec.b"]


def test_defaults_fill_nested_objects_that_are_there() -> None:
    inner = an_object(depth={"type": "integer", "default": 2})
    node = schema.crd_root(an_object(spec=an_object(always={**inner, "default": {}}, given=inner)))
    value: Object = {"spec": {}}
    schema.default(node, value)
    assert value == {"spec": {"always": {"depth": 2}}}
    value = {"spec": {"given": {}}}
    schema.default(node, value)
    assert value["spec"]["given"] == {"depth": 2}
