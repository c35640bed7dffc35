"""The scale subresource: replicas of a workload or of a custom resource, seen as an autoscaling/v1 Scale."""

from __future__ import annotations

from typing import Any

from mizzen_local.api import patch, status
from mizzen_local.api.machinery import Machinery, WriteOptions
from mizzen_local.api.registry import ResourceInfo
from mizzen_local.client import ApiError, Object


def read(info: ResourceInfo, obj: Object) -> Object:
    paths = _paths(info)
    meta = obj["metadata"]
    kept = {
        key: meta[key] for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp") if key in meta
    }
    found: Object = {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": kept,
        "spec": {},
        "status": {"replicas": _at(obj, paths["status"]) or 0},
    }
    replicas = _at(obj, paths["spec"])
    if replicas is None and info.crd is not None:
        words = f'the spec replicas field ".{".".join(paths["spec"])}" does not exist'
        raise ApiError(500, "InternalError", f"Internal error occurred: {words}", {"causes": [{"message": words}]})
    if replicas:  # nought is left out, as Go writes it
        found["spec"]["replicas"] = replicas
    selector = _at(obj, paths["selector"]) if paths["selector"] else None
    if selector:
        found["status"]["selector"] = selector if isinstance(selector, str) else _selector_text(selector)
    return found


def write(
    machinery: Machinery, info: ResourceInfo, namespace: str, name: str, kind: str, body: Any, options: WriteOptions
) -> Object:
    """Update (`kind` empty) or patch the scale; only the wanted replicas are written."""
    entry = machinery.entry(info, namespace, name)
    current = read(info, entry.obj)
    if not kind:
        wanted = _checked(body)
    elif kind == "json":
        wanted = patch.json_patch(current, body)
    else:
        wanted = patch.merge_patch(current, body)
    version = (wanted.get("metadata") or {}).get("resourceVersion")
    if version and version != entry.obj["metadata"]["resourceVersion"]:
        raise status.conflict(info.plural, info.group, name)
    replicas = (wanted.get("spec") or {}).get("replicas", 0)
    if not isinstance(replicas, int) or replicas < 0:
        if info.crd is not None:
            path = ".".join(["", *_paths(info)["spec"]])
            cause = status.invalid_value(path, replicas, "should be a non-negative integer")
            raise status.invalid(info.kind, info.group, name, [cause])
        cause = status.invalid_value("spec.replicas", replicas, "must be greater than or equal to 0")
        raise status.invalid("Scale", "autoscaling", name, [cause])
    merged: Any = replicas
    for part in reversed(_paths(info)["spec"]):
        merged = {part: merged}
    updated, _ = machinery.patch(info, namespace, name, "merge", merged, options, "scale")
    return read(info, updated.obj)


def _checked(body: Object) -> Object:
    version, kind = body.get("apiVersion") or "autoscaling/v1", body.get("kind") or "Scale"
    if (version, kind) != ("autoscaling/v1", "Scale"):
        version = version.rpartition("/")[2]
        raise status.bad_request(
            f'{kind} in version "{version}" cannot be handled as a Scale: converting ({version}.{kind}) to'
            " (autoscaling.Scale): unknown conversion"
        )
    return body


def _paths(info: ResourceInfo) -> dict[str, list[str]]:
    custom = info.subresources["scale"] if info.crd is not None else {}
    spec = custom.get("specReplicasPath", ".spec.replicas")
    selector = custom.get("labelSelectorPath", "" if info.crd else ".spec.selector")
    return {
        "spec": spec.strip(".").split("."),
        "status": custom.get("statusReplicasPath", ".status.replicas").strip(".").split("."),
        "selector": selector.strip(".").split(".") if selector else [],
    }


def _at(obj: Any, path: list[str]) -> Any:
    for part in path:
        obj = obj.get(part) if isinstance(obj, dict) else None
    return obj


def _selector_text(selector: Object) -> str:
    terms = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for item in selector.get("matchExpressions") or []:
        values = ",".join(item.get("values") or [])
        terms.append(
            {
                "In": f"{item['key']} in ({values})",
                "NotIn": f"{item['key']} notin ({values})",
                "Exists": item["key"],
                "DoesNotExist": f"!{item['key']}",
            }[item["operator"]]
        )
    return ",".join(terms)
