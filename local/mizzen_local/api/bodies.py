"""From the body of a write to a clean object of its resource, or to an error in the decoder's words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mizzen_local.api import schema, status, typed
from mizzen_local.api.golang import Undecodable, go_type
from mizzen_local.api.registry import Registry, ResourceInfo
from mizzen_local.client import Object

if TYPE_CHECKING:
    from mizzen_local.api.machinery import WriteOptions


def applied(info: ResourceInfo, namespace: str, name: str, body: Object, options: WriteOptions) -> Object:
    """An applied configuration, checked more strictly than the bodies of other writes."""
    if (body.get("apiVersion"), body.get("kind")) != (info.api_version, info.kind):
        group, _, version = str(body.get("apiVersion") or "").rpartition("/")
        raise status.bad_request(f"invalid object type: {group}/{version}, Kind={body.get('kind') or ''}")
    meta = body.get("metadata") or {}
    if isinstance(meta, dict) and meta.get("managedFields"):
        raise status.bad_request("metadata.managedFields must be nil")
    if options.problems and options.validation == "Strict":
        raise status.bad_request(f"error strict decoding YAML: {', '.join(options.problems)}")
    typed.check(info.schema, body, info.api_version, info.kind)
    given = {**meta, "name": meta.get("name") or name, "namespace": meta.get("namespace") or namespace}
    try:
        config: Object = schema.clean(info.schema, {**body, "metadata": given}, "", [], whole=True)
    except Undecodable as error:
        raise typed.failure(body, info.api_version, info.kind, [str(error)]) from error
    return named(info, namespace, name, config)


def decode(
    registry: Registry, info: ResourceInfo, namespace: str, name: str, body: Any, options: WriteOptions
) -> Object:
    """The object of a request's body, or 400 in the decoder's words."""
    try:
        obj = read(registry, info, body, options)
    except Undecodable as error:
        version = str(body.get("apiVersion") or info.version).rpartition("/")[2]
        kind = body.get("kind") or info.kind
        where = f'{kind} in version "{version}" cannot be handled as a {info.kind}: '
        raise status.bad_request(f"{where}{error}") from error
    return named(info, namespace, name, obj)


def read(registry: Registry, info: ResourceInfo, body: Any, options: WriteOptions) -> Object:
    """Check that a body is an object of this resource and drop what the schema does not know."""
    if not isinstance(body, dict):
        raise Undecodable(f"json: cannot unmarshal {go_type(body)} into Go value of type map[string]interface {{}}")
    check_kind(registry, info, body)
    unknown: list[str] = []
    body = {**body, "apiVersion": info.api_version, "kind": info.kind}
    if body.get("metadata") is None:
        body["metadata"] = {}
    try:
        obj: Object = schema.clean(info.schema, body, "", unknown)
    except schema.Mistyped as error:
        if info.crd is not None:
            error.fields = error.fields[1:]  # metadata is decoded on its own
        raise
    if info.crd is not None:
        unknown.sort()
    problems = [*options.problems, *(f'unknown field "{path}"' for path in unknown)]
    if problems and options.validation != "Ignore":
        if options.validation == "Strict":
            raise Undecodable(f"strict decoding error: {', '.join(problems)}")
        options.warnings += problems
    return obj


def check_kind(registry: Registry, info: ResourceInfo, body: Object) -> None:
    api_version, kind = body.get("apiVersion") or info.api_version, body.get("kind") or info.kind
    if (api_version, kind) == (info.api_version, info.kind):
        return
    if info.crd is not None:
        if api_version != info.api_version:
            what = f"API version in the data ({api_version}) does not match the expected API version"
            raise status.bad_request(f"the {what} ({info.api_version})")
        name = str((body.get("metadata") or {}).get("name") or "")
        cause = status.invalid_value("kind", kind, f"must be {info.kind}")
        raise status.invalid(str(kind), info.group, name, [cause])
    group, _, version = str(api_version).rpartition("/")
    if registry.by_kind(group, version, str(kind)) is None:
        place = 'in scheme "pkg/api/legacyscheme/scheme.go:30"'
        raise Undecodable(f'no kind "{kind}" is registered for version "{api_version}" {place}')
    inner = info.group.partition(".")[0] or "core"
    raise Undecodable(f"converting ({version}.{kind}) to ({inner}.{info.kind}): unknown conversion")


def named(info: ResourceInfo, namespace: str, name: str, obj: Object) -> Object:
    """The object's name and namespace are those of the URL."""
    meta = obj["metadata"]
    if name:
        given = meta.get("name")
        if not given:
            why = f"the name of the object ({name} based on URL) was undeterminable: name must be provided"
            raise status.bad_request(why)
        if given != name:
            raise status.bad_request(f"the name of the object ({given}) does not match the name on the URL ({name})")
    if info.namespaced and (meta.get("namespace") or namespace) != namespace:
        raise status.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    if info.namespaced:
        meta["namespace"] = namespace
    return obj
