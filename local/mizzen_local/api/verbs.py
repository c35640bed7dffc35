"""The verbs of a resource over HTTP: from a decoded request to the machinery and to the bytes of the answer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from mizzen_local.api import decoding, eviction, reads, removal, render, request, reviews, scale, status
from mizzen_local.api.machinery import WriteOptions
from mizzen_local.api.reads import Selection
from mizzen_local.api.registry import ResourceInfo
from mizzen_local.api.removal import DeleteOptions
from mizzen_local.api.request import PATCH_TYPES, Target
from mizzen_local.api.store import Entry
from mizzen_local.client import ApiError, Object

if TYPE_CHECKING:
    from mizzen_local.api.app import App, Call

Answer = tuple[int, bytes, list[tuple[bytes, bytes]]]
_RBAC_GROUP = "rbac.authorization.k8s.io"


def run(app: App, call: Call, info: ResourceInfo, target: Target, verb: str, body: bytes) -> Answer:
    """Serve one request that is not a stream."""
    if verb in ("create", "update", "patch"):
        return _write(app, call, info, target, verb, body)
    if verb == "delete":
        options = _delete_options(call, body)
        if not target.name or target.subresource:
            raise status.method_not_allowed()
        return 200, orjson.dumps(removal.delete(app.machinery, info, target.namespace, target.name, options)), []
    if info.virtual:
        raise status.method_not_allowed()
    if verb == "get":
        return _get(app, call, info, target)
    selection = selection_of(call.query, target)
    if verb == "deletecollection":
        return _delete_collection(app, call, info, selection, body)
    check_version(call.query, app.machinery.store.rv)
    limit = request.integer(call.query, "limit") or 0
    found = reads.page(app.machinery, info, selection, limit, call.query.get("continue", ""))
    return 200, render.listed(info, found, call.form, call.query), []


def selection_of(query: dict[str, str], target: Target) -> Selection:
    fields = query.get("fieldSelector", "")
    if target.name:  # a watch of one object by its path
        fields = ",".join(filter(None, (fields, f"metadata.name={target.name}")))
    return Selection(target.namespace or None, query.get("labelSelector", ""), fields)


def check_version(query: dict[str, str], current: int) -> None:
    """A client that has seen more than we have (after a restore of the state) must not be told the past."""
    wanted = query.get("resourceVersion") or "0"
    if not (wanted.isascii() and wanted.isdigit()):
        raise status.bad_request(f"resourceVersion: Invalid value: {wanted!r}: strconv.ParseUint: invalid syntax")
    if int(wanted) > current:
        message = f"Too large resource version: {wanted}, current: {current}"
        cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
        raise ApiError(504, "Timeout", message, {"causes": [cause], "retryAfterSeconds": 1})
    if query.get("resourceVersionMatch") == "Exact" and int(wanted) != current and not query.get("continue"):
        raise status.gone(f"The provided resource version {wanted} is no longer available")


def _get(app: App, call: Call, info: ResourceInfo, target: Target) -> Answer:
    entry = app.machinery.entry(info, target.namespace, target.name)
    if target.subresource == "scale":
        return 200, orjson.dumps(scale.read(info, entry.obj)), []
    if target.subresource not in ("", "status"):
        raise status.method_not_allowed()
    return 200, render.one(info, entry, call.form, call.query), []


def _delete_collection(app: App, call: Call, info: ResourceInfo, selection: Selection, body: bytes) -> Answer:
    options = _delete_options(call, body)
    found = reads.page(app.machinery, info, selection)
    for entry in found.entries:
        meta = entry.obj["metadata"]
        removal.delete(app.machinery, info, meta.get("namespace", ""), meta["name"], options)
    return 200, reads.list_bytes(info, found), []


def _delete_options(call: Call, body: bytes) -> DeleteOptions:
    given = decoding.of_object("DeleteOptions", call.header(b"content-type"), body, [], optional=True)
    return DeleteOptions.parse(given, call.query)


def _write(app: App, call: Call, info: ResourceInfo, target: Target, verb: str, raw: bytes) -> Answer:
    content_type = call.header(b"content-type")
    query = call.query
    kind = ""
    if verb == "patch":
        kind = PATCH_TYPES.get(decoding.media_type(content_type), "")
        if not kind:
            raise status.unsupported_patch_type()
    request.check_write(verb, kind, query)
    problems: list[str] = []
    if kind:
        body = decoding.of_patch(kind, raw, problems)
    else:
        body = decoding.of_object(info.kind, content_type, raw, problems, bool(target.subresource))
        if info.crd is not None and not target.subresource:
            decoding.check_custom(info.api_version, info.kind, body, raw)
    manager = query.get("fieldManager") or ("" if kind == "apply" else _agent(call))
    options = WriteOptions(
        manager=manager,
        dry_run=bool(query.get("dryRun")),
        force=request.is_true(query, "force"),
        validation=query.get("fieldValidation") or "Warn",
        problems=problems,
    )
    code, result = perform(app, call, info, target, verb, kind, body, options)
    warnings = [(b"warning", f'299 - "{_quoted(text)}"'.encode()) for text in options.warnings]
    if isinstance(result, Entry):
        return code, render.one(info, result, call.form, query), warnings
    return code, orjson.dumps(result), warnings


def perform(
    app: App,
    call: Call,
    info: ResourceInfo,
    target: Target,
    verb: str,
    kind: str,
    body: Any,
    options: WriteOptions,
) -> tuple[int, Entry | Object]:
    """The verb itself; returns the HTTP code with the stored entry or with an answer that is no stored object."""
    machinery, namespace, name, sub = app.machinery, target.namespace, target.name, target.subresource
    if verb == "create":
        return 201, _create(app, call, info, target, body, options)
    if not name or info.virtual:
        raise status.method_not_allowed()
    if sub == "scale":
        return 200, scale.write(machinery, info, namespace, name, kind, body, options)
    if sub == "finalize" and verb == "update":
        return 200, removal.finalize_namespace(machinery, info, name, body)
    if sub not in ("", "status"):
        raise status.method_not_allowed()
    if verb == "update":
        if info.group == _RBAC_GROUP and machinery.store.get(info.bucket, namespace, name) is None:
            return 201, _create(app, call, info, replace(target, name=""), body, options)  # they may be created so
        if info.group == _RBAC_GROUP:
            outcome = machinery.update(info, namespace, name, body, _dry(options), sub)
            app.authz.check_escalation(call.user, info.plural, outcome.obj, namespace)
        return 200, machinery.update(info, namespace, name, body, options, sub)
    if info.group == _RBAC_GROUP:
        outcome, _ = machinery.patch(info, namespace, name, kind, body, _dry(options), sub)
        app.authz.check_escalation(call.user, info.plural, outcome.obj, namespace)
    entry, created = machinery.patch(info, namespace, name, kind, body, options, sub)
    return 201 if created else 200, entry


def _create(
    app: App, call: Call, info: ResourceInfo, target: Target, body: Any, options: WriteOptions
) -> Entry | Object:
    namespace, name, sub = target.namespace, target.name, target.subresource
    if info.virtual:
        given = {"kind": info.kind, "apiVersion": info.api_version, "metadata": {}} | reviews.decoded(info.kind, body)
        return reviews.answer(info.plural, namespace, given, call.user, app.authn, app.authz)
    if sub == "token":
        return app.authn.request_token(namespace, name, reviews.decoded("TokenRequest", body))
    if sub == "eviction":
        return eviction.evict(app.machinery, info, namespace, name, body, dry_run=options.dry_run)
    if sub == "binding":
        return removal.bind(app.machinery, info, namespace, name, body)
    if name or sub or (info.namespaced and not namespace):
        raise status.method_not_allowed()
    if info.group == _RBAC_GROUP:
        outcome = app.machinery.create(info, namespace, body, _dry(options))
        app.authz.check_escalation(call.user, info.plural, outcome.obj, namespace)
    return app.machinery.create(info, namespace, body, options)


def _dry(options: WriteOptions) -> WriteOptions:
    """What a role would become is checked on a whole, valid object, before it is stored."""
    return replace(options, dry_run=True, warnings=[])


def _agent(call: Call) -> str:
    """Without a field manager the client's name stands for it, as in the real server."""
    return call.header(b"user-agent").split("/", 1)[0][:128] or "unknown"


def _quoted(text: str) -> str:
    return text.replace("\n", " ").replace("\\", "\\\\").replace('"', '\\"')
