"""The published schemas of the built-in kinds, from the `kubernetes-validate` package: no copy of them lives here."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Any

import orjson

from mizzen_local.client import Object

VERSION = "v1.37.0"
OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"


def load() -> dict[str, Object]:
    """Every definition with its descriptions, as in the real server's OpenAPI. Large: callers drop it after use."""
    path = files("kubernetes_validate") / "kubernetes-json-schema" / f"{VERSION}-local" / "_definitions.json"
    return {name: _plain(schema) for name, schema in orjson.loads(path.read_bytes())["$defs"].items()} | {
        _INT_OR_STRING: {"type": "string", "format": "int-or-string"},
        _QUANTITY: {"type": "string", "format": "quantity"},
    }


@cache
def lean() -> dict[str, Object]:
    """The definitions without their descriptions, for validation."""
    return {name: _without_descriptions(schema) for name, schema in load().items()}


def name_of(group: str, version: str, kind: str) -> str:
    """The definition's name of a built-in kind, such as `io.k8s.api.apps.v1.Deployment`."""
    if group == "apiextensions.k8s.io":
        return f"io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{version}.{kind}"
    return f"io.k8s.api.{group.split('.', maxsplit=1)[0] or 'core'}.{version}.{kind}"


def _plain(schema: Any) -> Any:
    """Undo what the package adds for JSON Schema validators: nullable types and enums of the one possible kind."""
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: _plain(value) for key, value in schema.items()}
    kind = plain.get("type")
    if isinstance(kind, list) and all(isinstance(item, str) for item in kind):
        plain["type"] = next(item for item in kind if item != "null")
    if isinstance(plain.get("$ref"), str):
        plain["$ref"] = re.sub(r"^#/\$defs/", "", plain["$ref"])
    if "x-kubernetes-group-version-kind" in plain:
        for field in ("apiVersion", "kind"):
            if isinstance(plain.get("properties", {}).get(field), dict):
                plain["properties"][field].pop("enum", None)
    return plain


def _without_descriptions(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_descriptions(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _without_descriptions(value)
        for key, value in schema.items()
        if not (key == "description" and isinstance(value, str))
    }
