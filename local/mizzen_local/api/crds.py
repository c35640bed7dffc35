"""CustomResourceDefinitions: what a definition must look like, its conditions, and its life with its objects."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mizzen_local.api.status import Cause, invalid, invalid_value, required
from mizzen_local.client import Object

if TYPE_CHECKING:
    from mizzen_local.api.machinery import Machinery

BUCKET = "apiextensions.k8s.io/customresourcedefinitions"
FINALIZER = "customresourcecleanup.apiextensions.k8s.io"


def prepare(_: Machinery, crd: Object, old: Object | None) -> None:
    """Check a definition and set its conditions: it is served as soon as it is stored."""
    spec, name = crd["spec"], crd["metadata"]["name"]
    causes = _problems(crd, old)
    if causes:
        raise invalid("CustomResourceDefinition", "apiextensions.k8s.io", name, causes)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    before = (old or {}).get("status") or {}
    stored = list(before.get("storedVersions") or [])
    storage = next(version["name"] for version in spec["versions"] if version.get("storage"))
    if storage not in stored:
        stored.append(storage)
    kept = {condition["type"]: condition for condition in before.get("conditions") or []}
    for kind, reason, message in (
        ("NamesAccepted", "NoConflicts", "no conflicts found"),
        ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
    ):
        fresh = {"type": kind, "status": "True", "lastTransitionTime": now, "reason": reason, "message": message}
        kept.setdefault(kind, fresh)
    crd["status"] = {"conditions": list(kept.values()), "acceptedNames": spec["names"], "storedVersions": stored}


def _problems(crd: Object, old: Object | None) -> list[Cause]:
    spec, name = crd["spec"], crd["metadata"]["name"]
    names, causes = spec.get("names", {}), []
    wanted = f"{names.get('plural')}.{spec.get('group')}"
    if name != wanted:
        causes.append(invalid_value("metadata.name", name, 'must be spec.names.plural+"."+spec.group'))
    if spec.get("scope") not in ("Namespaced", "Cluster"):
        causes.append(invalid_value("spec.scope", spec.get("scope", ""), "must be Namespaced or Cluster"))
    versions = spec.get("versions") or []
    if sum(bool(version.get("storage")) for version in versions) != 1:
        causes.append(
            invalid_value(
                "spec.versions",
                [v["name"] for v in versions],
                "must have exactly one version marked as storage version",
            )
        )
    for index, version in enumerate(versions):
        path = f"spec.versions[{index}].schema.openAPIV3Schema"
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is None:
            causes.append(required(path, "schemas are required"))
        elif schema.get("type") != "object":
            causes.append(invalid_value(f"{path}.type", schema.get("type", ""), "must be object at the root"))
        else:
            causes += _schema_problems(schema, path)
    if old is not None:
        for field, path in (("group", "spec.group"), ("scope", "spec.scope")):
            if old["spec"].get(field) != spec.get(field):
                causes.append(invalid_value(path, spec.get(field), "field is immutable"))
    return causes


def _schema_problems(schema: Any, path: str) -> list[Cause]:
    """Structural rules that authors trip over: untyped fields, patterns and CEL rules that do not compile."""
    causes: list[Cause] = []
    untyped = not (schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields"))
    if not schema.get("type") and untyped:
        causes.append(required(f"{path}.type", "must not be empty for specified object fields"))
    if "properties" in schema and schema.get("additionalProperties"):
        causes.append(
            Cause(path, "FieldValueForbidden", "Forbidden: additionalProperties and properties are mutual exclusive")
        )
    if "pattern" in schema:
        try:
            re.compile(schema["pattern"])
        except re.error as error:
            causes.append(
                invalid_value(
                    f"{path}.pattern", schema["pattern"], f"must be a valid regular expression, but isn't: {error}"
                )
            )
    for index, rule in enumerate(schema.get("x-kubernetes-validations") or []):
        from mizzen_local.api import cel

        problem = cel.compile_problem(rule["rule"])
        if problem:
            place = f"{path}.x-kubernetes-validations[{index}].rule"
            causes.append(invalid_value(place, rule["rule"], f"compilation failed: {problem}"))
    for name, below in (schema.get("properties") or {}).items():
        if path.endswith("openAPIV3Schema") and name == "metadata":
            continue
        causes += _schema_problems(below, f"{path}.properties[{name}]")
    if isinstance(schema.get("items"), dict):
        causes += _schema_problems(schema["items"], f"{path}.items")
    if isinstance(schema.get("additionalProperties"), dict) and schema["additionalProperties"]:
        causes += _schema_problems(schema["additionalProperties"], f"{path}.additionalProperties")
    return causes
