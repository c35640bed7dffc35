"""The CustomResourceDefinition of each kind, made from its model."""

from __future__ import annotations

from typing import Any

from mizzen_api import KINDS
from mizzen_api.contract import GROUP, VERSION
from mizzen_api.meta import MAX_NAME, SERVICE_NAME, ApiModel
from mizzen_api.structural import Schema, structural_schema

Kind = type[ApiModel]


def manifest(kind: Any) -> dict[str, Any]:
    """One CRD: structural schema with defaults and CEL rules, status subresource, printer columns, names."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.KIND,
                "listKind": f"{kind.KIND}List",
                "plural": kind.PLURAL,
                "singular": kind.KIND.lower(),
                "shortNames": kind.SHORT_NAMES,
                "categories": ["mizzen"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(column) for column in kind.COLUMNS],
                    "schema": {"openAPIV3Schema": _schema(kind)},
                }
            ],
        },
    }


def manifests() -> dict[str, dict[str, Any]]:
    """All four, by file name."""
    return {f"{GROUP}_{kind.PLURAL}.yaml": manifest(kind) for kind in KINDS}


def _schema(kind: Any) -> Schema:
    fields = kind.model_fields
    return {
        "type": "object",
        "description": kind.__doc__,
        "required": ["spec"],
        # Children carry the name with a suffix, and some are Services: these begin with a letter, have no dots and end
        # at 63 characters.
        "x-kubernetes-validations": [
            {
                "rule": f"size(self.metadata.name) <= {MAX_NAME}",
                "message": f"metadata.name must not be longer than {MAX_NAME} characters: "
                "children's names are made from it",
            },
            {
                "rule": f"self.metadata.name.matches('{SERVICE_NAME}')",
                "message": "metadata.name must begin with a lower-case letter, end with a letter or a digit and have "
                "only these and - between: Services are named after it",
            },
        ],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural_schema(fields["spec"].annotation),
            "status": structural_schema(fields["status"].default_factory),
        },
    }


def _column(column: Any) -> dict[str, Any]:
    wire: dict[str, Any] = column.to_wire()
    if wire.get("priority") == 0:
        del wire["priority"]
    return wire
