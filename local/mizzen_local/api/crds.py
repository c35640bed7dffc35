"""CustomResourceDefinitions: what a definition must look like, its conditions, and its life with its objects."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mizzen_local.api import schemachecks
from mizzen_local.api.status import Cause, invalid, invalid_value, required, unsupported
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
        causes.append(unsupported("spec.scope", spec.get("scope", ""), ["Cluster", "Namespaced"]))
    for field in ("plural", "singular", "kind", "listKind"):
        if not names.get(field):
            causes.append(required(f"spec.names.{field}"))
    versions = spec.get("versions") or []
    if sum(bool(version.get("storage")) for version in versions) != 1:
        detail = "must have exactly one version marked as storage version"
        causes.append(invalid_value("spec.versions", [version["name"] for version in versions], detail))
    causes += _version_problems(versions)
    if old is not None:
        for field, path in (("group", "spec.group"), ("scope", "spec.scope")):
            if old["spec"].get(field) != spec.get(field):
                causes.append(invalid_value(path, spec.get(field), "field is immutable"))
        present = {version["name"] for version in versions}
        for index, stored in enumerate((old.get("status") or {}).get("storedVersions") or []):
            if stored not in present:
                field = f"status.storedVersions[{index}]"
                causes.append(invalid_value(field, stored, "must appear in spec.versions"))
    return causes


def _version_problems(versions: list[Object]) -> list[Cause]:
    """What is wrong with the schemas; one that all versions share is named once, where it stood before v1."""
    schemas = [(version.get("schema") or {}).get("openAPIV3Schema") for version in versions]
    shared = len(schemas) > 0 and all(schema == schemas[0] for schema in schemas) and schemas[0] is not None
    causes: list[Cause] = []
    for index, schema in enumerate(schemas[:1] if shared else schemas):
        path = "spec.validation" if shared else f"spec.versions[{index}].schema"
        path += ".openAPIV3Schema"
        if schema is None:
            causes.append(required(path))
        elif schema.get("type") != "object":
            causes.append(invalid_value(f"{path}.type", schema.get("type", ""), "must be object at the root"))
        else:
            causes += schemachecks.problems(schema, path)
    return causes
