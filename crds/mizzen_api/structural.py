"""From pydantic's JSON schema to the structural schema that a CustomResourceDefinition must carry."""

from __future__ import annotations

from typing import Any

from mizzen_api.meta import ApiModel

Schema = dict[str, Any]
_KEPT = (
    "description", "type", "format", "enum", "default", "minimum", "maximum", "minLength", "maxLength", "minItems",
    "maxItems", "pattern", "required",
)  # fmt: skip


def structural_schema(model: type[ApiModel]) -> Schema:
    """OpenAPI v3 schema of `model` without references, unions or titles, as apiextensions.k8s.io/v1 asks."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(schema, schema.get("$defs", {}))


def _convert(node: Schema, definitions: Schema) -> Schema:
    if "$ref" in node:
        target = definitions[node["$ref"].rpartition("/")[2]]
        return _convert({**target, **{k: v for k, v in node.items() if k != "$ref"}}, definitions)
    if "anyOf" in node:  # only Optional[X] is used: an absent field and a null one mean the same
        (variant,) = (v for v in node["anyOf"] if v.get("type") != "null")
        rest = {k: v for k, v in node.items() if k not in {"anyOf", "default"} or (k == "default" and v is not None)}
        return _convert({**variant, **rest}, definitions)
    out = {key: node[key] for key in _KEPT if key in node and not (key == "default" and node[key] is None)}
    out |= {key: value for key, value in node.items() if key.startswith("x-kubernetes-")}
    if isinstance(out.get("default"), dict):
        out["default"] = _said(out["default"])
    if "const" in node:
        out |= {"type": "string", "enum": [node["const"]]}
    if isinstance(node.get("exclusiveMinimum"), int | float):
        out |= {"minimum": node["exclusiveMinimum"], "exclusiveMinimum": True}
    if isinstance(node.get("exclusiveMaximum"), int | float):
        out |= {"maximum": node["exclusiveMaximum"], "exclusiveMaximum": True}
    if "properties" in node:
        out["properties"] = {name: _convert(child, definitions) for name, child in node["properties"].items()}
    elif node.get("type") == "object":
        values = node.get("additionalProperties")
        if isinstance(values, dict):
            out["additionalProperties"] = _convert(values, definitions)
        else:
            out["x-kubernetes-preserve-unknown-fields"] = True
    if node.get("type") == "array":
        out["items"] = _convert(node.get("items", {}), definitions)
    return out


def _said(default: Schema) -> Schema:
    """A default object without its nulls: the API server would store them."""
    return {k: _said(v) if isinstance(v, dict) else v for k, v in default.items() if v is not None}
