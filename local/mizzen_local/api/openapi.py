"""OpenAPI documents: v3 for each group and version, and v2 for all, built when asked for and cached as bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from mizzen_local.api import definitions, openapi_protobuf, status
from mizzen_local.api.discovery import VERSION
from mizzen_local.api.registry import Registry, ResourceInfo
from mizzen_local.client import Object

_LIST_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"
_DELETE_OPTIONS = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"
_STATUS = "io.k8s.apimachinery.pkg.apis.meta.v1.Status"
_PATCH = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch"
_PATCH_MEDIA = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)
_WRITE_PARAMETERS = {
    "dryRun": "When present, indicates that modifications should not be persisted.",
    "fieldManager": "The name associated with the actor that is making these changes.",
    "fieldValidation": "How the server treats unknown or duplicate fields: Ignore, Warn or Strict.",
}


@dataclass(frozen=True)
class Page:
    """A document with its headers."""

    body: bytes
    headers: list[tuple[bytes, bytes]]


class Pages:
    """The documents of the present registry; a change of the registry drops those that it touches."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._cache: dict[str, tuple[int, Page]] = {}

    def page(self, path: str, accept: str) -> Page | None:
        binary = path.strip("/") == "openapi/v2" and openapi_protobuf.MEDIA in accept
        key = f"{path} as protobuf" if binary else path
        known = self._cache.get(key)
        version = self._version(path)
        if known is None or known[0] != version:
            found = self._build(path)
            if found is None:
                return None
            body = openapi_protobuf.encode(found) if binary else orjson.dumps(found)
            tag = f'"{hashlib.sha256(body).hexdigest()[:32].upper()}"'.encode()
            media = openapi_protobuf.SENT_AS if binary else "application/json"
            known = (version, Page(body, [(b"content-type", media.encode()), (b"etag", tag)]))
            self._cache[key] = known
        if not binary and "json" not in accept and "*/*" not in accept and accept:
            raise status.not_acceptable(["application/json"])
        return known[1]

    def _version(self, path: str) -> int:
        parts = path.strip("/").split("/")[2:]
        if parts[:1] == ["apis"] and len(parts) == 3:
            infos = self._infos(parts[1], parts[2])
            return hash(tuple(id(info) for info in infos)) if any(i.crd for i in infos) else 0
        return self._registry.generation if not parts or parts[0] != "api" else 0

    def _infos(self, group: str, version: str) -> list[ResourceInfo]:
        return [i for i in self._registry.infos() if (i.group, i.version) == (group, version)]

    def _build(self, path: str) -> Object | None:
        parts = path.strip("/").split("/")[1:]
        if parts == ["v2"]:
            return swagger(self._registry.infos())
        if parts == ["v3"]:
            return self._index()
        group, version = ("", parts[2]) if parts[1] == "api" and len(parts) == 3 else ("", "")
        if parts[1] == "apis" and len(parts) == 4:
            group, version = parts[2], parts[3]
        infos = self._infos(group, version)
        return document(infos) if infos else None

    def _index(self) -> Object:
        paths: Object = {}
        for group, versions in self._registry.groups().items():
            for version in versions:
                name = f"apis/{group}/{version}" if group else f"api/{version}"
                # the hash only has to change when the document does; it must not cost building it
                seen = [
                    (i.plural, orjson.dumps((i.crd_version or {}).get("schema"))) for i in self._infos(group, version)
                ]
                tag = hashlib.sha256(repr((definitions.VERSION, seen)).encode()).hexdigest()[:32].upper()
                paths[name] = {"serverRelativeURL": f"/openapi/v3/{name}?hash={tag}"}
        return {"paths": paths}


def document(infos: list[ResourceInfo]) -> Object:
    """The OpenAPI v3 document of one group and version."""
    prefix = "#/components/schemas/"
    schemas = _schemas(infos, prefix, v3=True)
    paths: Object = {}
    for info in infos:
        paths |= _paths(info, prefix, v3=True)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": VERSION["gitVersion"]},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def swagger(infos: list[ResourceInfo]) -> Object:
    """The OpenAPI v2 document of everything."""
    prefix = "#/definitions/"
    paths: Object = {}
    for info in infos:
        paths |= _paths(info, prefix, v3=False)
    return {
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": VERSION["gitVersion"]},
        "paths": paths,
        "definitions": _schemas(infos, prefix, v3=False),
    }


def _schemas(infos: list[ResourceInfo], prefix: str, v3: bool) -> Object:
    everything = definitions.load()
    wanted: Object = {}
    for info in infos:
        if info.crd is None:
            wanted[info.definition] = everything.get(info.definition, {"type": "object"})
        else:
            wanted[info.definition] = _custom(info)
        wanted[f"{info.definition}List"] = _list_schema(info)
        if info.subresources.keys() & {"scale"}:
            wanted["io.k8s.api.autoscaling.v1.Scale"] = everything["io.k8s.api.autoscaling.v1.Scale"]
    wanted |= {name: everything[name] for name in (_DELETE_OPTIONS, _STATUS, _PATCH) if name in everything}
    found: Object = {}
    queue = list(wanted.items())
    while queue:
        name, schema = queue.pop()
        if name in found:
            continue
        references: set[str] = set()
        found[name] = _referring(schema, prefix, v3, references)
        queue += [(other, wanted.get(other) or everything[other]) for other in references if other not in found]
    return found


def _referring(schema: Any, prefix: str, v3: bool, references: set[str]) -> Any:  # noqa: PLR0911
    """The schema with references into this document; v3 allows text beside a reference only through allOf."""
    if isinstance(schema, list):
        return [_referring(item, prefix, v3, references) for item in schema]
    if not isinstance(schema, dict):
        return schema
    name = schema.get("$ref")
    if isinstance(name, str):
        references.add(name)
        reference = {"$ref": prefix + name}
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        if not rest or not v3:
            return {**rest, **reference}
        return {**rest, "allOf": [reference]}
    if v3 and schema.get("format") == "int-or-string":
        return {
            **{key: value for key, value in schema.items() if key != "type"},
            "oneOf": [{"type": "integer"}, {"type": "string"}],
        }
    if schema.get("format") == "quantity":
        rest = {key: value for key, value in schema.items() if key not in ("format", "type")}
        return {**rest, **({"oneOf": [{"type": "string"}, {"type": "number"}]} if v3 else {"type": "string"})}
    return {key: _referring(value, prefix, v3, references) for key, value in schema.items()}


def _gvk(info: ResourceInfo, kind: str = "") -> Object:
    return {"group": info.group, "kind": kind or info.kind, "version": info.version}


def _custom(info: ResourceInfo) -> Object:
    raw = dict((info.crd_version or {}).get("schema", {}).get("openAPIV3Schema") or {"type": "object"})
    texts = definitions_text()
    raw["properties"] = {
        **raw.get("properties", {}),
        "apiVersion": {"type": "string", "description": texts[0]},
        "kind": {"type": "string", "description": texts[1]},
        "metadata": {"$ref": definitions.OBJECT_META, "description": texts[2]},
    }
    raw["x-kubernetes-group-version-kind"] = [_gvk(info)]
    return raw


def definitions_text() -> tuple[str, str, str]:
    return (
        "APIVersion defines the versioned schema of this representation of an object.",
        "Kind is a string value representing the REST resource this object represents.",
        "Standard object's metadata.",
    )


def _list_schema(info: ResourceInfo) -> Object:
    texts = definitions_text()
    return {
        "description": f"{info.list_kind} is a list of {info.kind}",
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": texts[0]},
            "kind": {"type": "string", "description": texts[1]},
            "metadata": {"$ref": _LIST_META, "description": "Standard list metadata."},
            "items": {"type": "array", "description": f"List of {info.plural}.", "items": {"$ref": info.definition}},
        },
        "x-kubernetes-group-version-kind": [_gvk(info, info.list_kind)],
    }


def _paths(info: ResourceInfo, prefix: str, v3: bool) -> Object:
    root = f"/apis/{info.group}/{info.version}" if info.group else f"/api/{info.version}"
    home = f"{root}/namespaces/{{namespace}}/{info.plural}" if info.namespaced else f"{root}/{info.plural}"
    on_list = {"post": "create", "get": "list"}
    actions = {method: verb.replace("create", "post") for method, verb in on_list.items() if verb in info.verbs}
    found: Object = {home: _operations(info, prefix, v3, actions)}
    if "get" in info.verbs:
        one = f"{home}/{{name}}"
        on_one = {"get": "get", "put": "update", "patch": "patch", "delete": "delete"}
        verbs = {method: method for method, verb in on_one.items() if verb in info.verbs}
        found[one] = _operations(info, prefix, v3, verbs)
        if info.has_status:
            found[f"{one}/status"] = _operations(info, prefix, v3, {k: verbs[k] for k in ("get", "put", "patch")})
    return found


def _operations(info: ResourceInfo, prefix: str, v3: bool, verbs: dict[str, str]) -> Object:
    out: Object = {}
    for method, action in verbs.items():
        answer = f"{info.definition}List" if action == "list" else _STATUS if action == "delete" else info.definition
        operation: Object = {
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": _gvk(info),
            "operationId": f"{action}{info.version.capitalize()}{info.group.title().replace('.', '')}{info.kind}",
            "parameters": list(_parameters(action, v3)),
            "responses": {"200": _content(prefix + answer, v3)},
        }
        if action in ("post", "put", "patch", "delete"):
            name = {"patch": _PATCH, "delete": _DELETE_OPTIONS}.get(action, info.definition)
            # custom resources have no merge keys: clients must not be told that strategic patches work
            patches = _PATCH_MEDIA[:3] if info.crd is not None else _PATCH_MEDIA
            media = patches if action == "patch" else ("application/json",)
            if v3:
                content = {item: {"schema": {"$ref": prefix + name}} for item in media}
                operation["requestBody"] = {"content": content, "required": action != "delete"}
            else:
                body = {"in": "body", "name": "body", "required": True, "schema": {"$ref": prefix + name}}
                operation["parameters"].append(body)
                operation["consumes"] = list(media)
        out[method] = operation
    return out


def _content(reference: str, v3: bool) -> Object:
    if v3:
        return {"description": "OK", "content": {"application/json": {"schema": {"$ref": reference}}}}
    return {"description": "OK", "schema": {"$ref": reference}}


def _parameters(action: str, v3: bool) -> Iterable[Object]:
    names: dict[str, str] = {}
    if action in ("post", "put", "patch"):
        names |= _WRITE_PARAMETERS
    if action == "patch":
        names["force"] = "Force is going to force Apply requests."
    if action == "list":
        names |= {"labelSelector": "A selector by labels.", "fieldSelector": "A selector by fields."}
    for name, description in names.items():
        kind = {"type": "boolean" if name == "force" else "string", "uniqueItems": True}
        yield {"name": name, "in": "query", "description": description, **({"schema": kind} if v3 else kind)}
