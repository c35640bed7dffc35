"""The one path that every write takes, whichever transport it came by: decode, default, validate, own, commit."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from mizzen_local.api import (
    aggregation,
    apply,
    bodies,
    carryover,
    cel,
    checks,
    crds,
    defaults,
    eventforms,
    kinds,
    lastapplied,
    metering,
    names,
    patch,
    schema,
    status,
    validation,
)
from mizzen_local.api.apply import Writer
from mizzen_local.api.golang import Undecodable, go_text
from mizzen_local.api.registry import Registry, ResourceInfo
from mizzen_local.api.store import Entry, Store
from mizzen_local.client import ApiError, Object

# after these nothing can be said about rules
_BLOCKING = frozenset({"FieldValueTypeInvalid", "FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany"})


@dataclass
class WriteOptions:
    """What a write was asked for beside its body; `warnings` is filled for the response's Warning headers."""

    manager: str = "unknown"
    dry_run: bool = False
    force: bool = False
    validation: str = "Warn"  # Strict, Warn or Ignore
    metered: bool = True  # whether quotas are asked
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # what strict decoding found in the body's text


def now_text() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Machinery:
    """Kubernetes' semantics over the store. Every method is synchronous: a request is one step of the event loop."""

    def __init__(self, store: Store, service_range: str = "127.20.0.0/16") -> None:
        self.store = store
        self.registry = Registry()
        self.addresses = kinds.Addresses(self, service_range)
        for entry in store.entries(crds.BUCKET):
            self.registry.set_crd(entry.obj)

    def entry(self, info: ResourceInfo, namespace: str, name: str) -> Entry:
        found = self.store.get(info.bucket, namespace, name)
        if found is None:
            raise status.not_found(info.plural, info.group, name)
        return self.served(info, found)

    def served(self, info: ResourceInfo, entry: Entry) -> Entry:
        """The entry in the version asked for: its apiVersion, and of its fields those that the version has."""
        if info.group == eventforms.GROUP and entry.obj["apiVersion"] == "v1":
            return Entry(eventforms.to_new(entry.obj), entry.rv)
        if info.crd is None or entry.obj["apiVersion"] == info.api_version:
            return entry
        return Entry(schema.clean(info.schema, {**entry.obj, "apiVersion": info.api_version}, "", []), entry.rv)

    def create(self, info: ResourceInfo, namespace: str, body: Any, options: WriteOptions) -> Entry:
        obj = bodies.decode(self.registry, info, namespace, "", body, options)
        self._reset_status(info, obj, None)
        kept, obj = self._as_kept(info, obj)
        return self.served(info, self._create(kept, namespace, obj, options, Writer(options.manager)))

    def _as_kept(self, info: ResourceInfo, obj: Object) -> tuple[ResourceInfo, Object]:
        """The resource and the form in which an object is stored, where those are not its own."""
        if info.group != eventforms.GROUP:
            return info, obj
        core = self.registry.get("", "v1", "events")
        assert core is not None
        return core, eventforms.to_core(obj)

    def _create(
        self, info: ResourceInfo, namespace: str, obj: Object, options: WriteOptions, writer: Writer | None
    ) -> Entry:
        meta = obj["metadata"]
        if meta.get("resourceVersion"):
            raise status.internal("resourceVersion should not be set on objects to be created")
        if not meta.get("name"):
            if not meta.get("generateName"):
                causes = [status.required("metadata.name", "name or generateName is required")]
                if info.crd is not None:
                    self._validate_custom(info, obj, None, causes)
                raise status.invalid(info.kind, info.group, "", causes)
            meta["name"] = meta["generateName"][:58] + names.suffix()
        name = meta["name"]
        for key in carryover.SERVER_METADATA:
            meta.pop(key, None)
        if info.namespaced:
            meta["namespace"] = namespace
            self._check_namespace(info, namespace, name)
        else:
            meta.pop("namespace", None)
        meta["uid"] = str(uuid.uuid4())
        meta["creationTimestamp"] = now_text()
        if info.generation:
            meta["generation"] = 1
        self._default(info, obj)
        if writer is not None:
            apply.track(info.schema, None, obj, writer, meta["creationTimestamp"])
        self._admit(info, obj, None)
        charges = metering.charges(self, info, obj) if options.metered else []
        # what is wrong with an object is told before that it exists
        found = self.store.get(info.bucket, namespace, name)
        if found is not None:
            ending = "object is being deleted: " if "deletionTimestamp" in found.obj["metadata"] else ""
            raise status.already_exists(info.plural, info.group, name, ending)
        if charges and not options.dry_run:
            metering.spend(self, charges)
        return self._commit(info, namespace, name, obj, options)

    def update(
        self, info: ResourceInfo, namespace: str, name: str, body: Any, options: WriteOptions, subresource: str = ""
    ) -> Entry:
        obj = bodies.decode(self.registry, info, namespace, name, body, options)
        found = self.store.get(info.bucket, namespace, name)
        if found is None:
            raise status.not_found(info.plural, info.group, name)
        if info.crd is not None and not obj["metadata"].get("resourceVersion"):
            cause = status.invalid_value("metadata.resourceVersion", 0, "must be specified for an update")
            raise status.invalid(info.plural, info.group, name, [cause])
        kept, obj = self._as_kept(info, obj)
        entry = self._replace(kept, namespace, found, obj, options, Writer(options.manager, subresource))
        return self.served(info, entry)

    def patch(
        self,
        info: ResourceInfo,
        namespace: str,
        name: str,
        kind: str,
        body: Any,
        options: WriteOptions,
        subresource: str = "",
    ) -> tuple[Entry, bool]:
        """Apply a patch of type json, merge, strategic or apply; returns the entry and whether it was created."""
        found = self.store.get(info.bucket, namespace, name)
        if kind == "apply" and info.group == eventforms.GROUP:
            raise status.unsupported_patch_type()  # ownership is kept in the core form
        if kind == "apply":
            return self._apply(info, namespace, name, found, body, options, subresource)
        if found is None:
            raise status.not_found(info.plural, info.group, name)
        current = {**self.served(info, found).obj, "apiVersion": info.api_version}
        if kind == "json":
            patched = patch.json_patch(current, body)
        elif kind == "merge":
            patched = patch.merge_patch(current, body)
        else:
            if info.crd is not None:
                raise status.unsupported_media_type(
                    "the body of the request was in an unknown format - accepted media types include:"
                    " application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
                )
            patched = patch.strategic_patch(info.schema, current, body)
        if not isinstance(patched, dict) or not isinstance(patched.get("metadata"), dict):
            raise status.bad_request("Invalid JSON Patch")
        try:
            obj = bodies.named(info, namespace, name, bodies.read(self.registry, info, patched, options))
        except Undecodable as error:
            given = go_text(body) if kind == "strategic" else orjson.dumps(patched).decode()
            cause = status.invalid_value("patch", given, str(error))
            raise status.invalid("", "", "", [cause]) from error
        kept, obj = self._as_kept(info, obj)
        entry = self._replace(kept, namespace, found, obj, options, Writer(options.manager, subresource))
        return self.served(info, entry), False

    def _apply(
        self,
        info: ResourceInfo,
        namespace: str,
        name: str,
        found: Entry | None,
        body: Any,
        options: WriteOptions,
        subresource: str,
    ) -> tuple[Entry, bool]:
        config = bodies.applied(info, namespace, name, body, options)
        meta = config["metadata"]
        expected = meta.pop("resourceVersion", None)
        for key in carryover.SERVER_METADATA:
            meta.pop(key, None)
        if info.has_status and not subresource and found is not None:
            config.pop("status", None)
        elif subresource:
            config = {key: config[key] for key in ("apiVersion", "kind", "metadata", subresource) if key in config}
            config["metadata"] = {key: meta[key] for key in ("name", "namespace") if key in meta}
        if "stringData" in config and info.bucket == "/secrets":
            defaults.plain_secret(config)
        writer = Writer(options.manager, subresource, "Apply")
        if found is None:
            if subresource:
                raise status.not_found(info.plural, info.group, name)
            self._reset_status(info, config, None)
            merged, _ = apply.merge_applied(info.schema, None, config, writer, options.force, now_text())
            merged["metadata"]["name"] = name
            merged = schema.clean(info.schema, merged, "", [])
            return self._create(info, namespace, merged, options, None), True
        live = {**found.obj, "apiVersion": info.api_version}
        if expected and expected != found.obj["metadata"]["resourceVersion"]:
            raise status.conflict(info.plural, info.group, name)
        merged, moved = apply.merge_applied(info.schema, live, config, writer, options.force, now_text())
        if not moved:
            return self.served(info, found), False
        if options.manager == lastapplied.MANAGER:
            lastapplied.renew(merged, body)
        obj = schema.clean(info.schema, merged, "", [])
        return self._replace(info, namespace, found, obj, options, None, subresource), False

    def _replace(
        self,
        info: ResourceInfo,
        namespace: str,
        found: Entry,
        obj: Object,
        options: WriteOptions,
        writer: Writer | None,
        subresource: str = "",
    ) -> Entry:
        """Store `obj` over the entry; an apply brings its own managed fields and passes no writer."""
        subresource = writer.subresource if writer else subresource
        carryover.check_preconditions(info, found.obj, obj["metadata"])
        if subresource == "status":
            obj = carryover.with_status(found.obj, obj)
        else:
            self._reset_status(info, obj, found.obj)
        carryover.keep_identity(info, found.obj["metadata"], obj["metadata"])
        if subresource == "status":
            if info.crd is not None:
                self._validate_custom(info, obj, found.obj, root="status")
        else:
            self._default(info, obj)
            self._admit(info, obj, found.obj)
            charges = metering.charges(self, info, obj, found.obj)
            if charges and not options.dry_run:
                metering.spend(self, charges)
            if info.generation and carryover.content(info, obj) != carryover.content(info, found.obj):
                obj["metadata"]["generation"] = found.obj["metadata"].get("generation", 0) + 1
        if writer is not None:
            apply.track(info.schema, carryover.managed_as_given(found.obj, obj), obj, writer, now_text())
        return self._commit_over(info, namespace, found, obj, options)

    def _commit_over(
        self, info: ResourceInfo, namespace: str, found: Entry, obj: Object, options: WriteOptions
    ) -> Entry:
        """Commit unless nothing changed; a deleted object whose last finalizer went is removed instead."""
        meta = obj["metadata"]
        if obj == {**found.obj, "apiVersion": obj["apiVersion"]}:
            return self.served(info, found)
        released = "deletionTimestamp" in meta and not meta.get("finalizers") and not self._waits(info, obj)
        if released and not options.dry_run:
            return self.served(info, self.removed(info, namespace, meta["name"], obj))
        return self._commit(info, namespace, meta["name"], obj, options)

    @staticmethod
    def _waits(info: ResourceInfo, obj: Object) -> bool:
        """Whether something beside finalizers still holds a deleted object: a namespace's content, a pod's grace."""
        if info.bucket == "/namespaces":
            return bool(obj.get("spec", {}).get("finalizers"))
        return info.bucket == "/pods" and obj["metadata"].get("deletionGracePeriodSeconds", 0) > 0

    def removed(self, info: ResourceInfo, namespace: str, name: str, obj: Object | None = None) -> Entry:
        """Commit an object's removal, with what follows from it; `obj` is its last state, if that changed with it."""
        entry = self.store.remove(info.bucket, namespace, name, obj)
        if info.bucket == aggregation.BUCKET:
            aggregation.gather(self.store)
        elif info.bucket == crds.BUCKET:
            self.registry.remove_crd(entry.obj)
        elif info.crd is not None:
            self.finish_crd(info.crd["metadata"]["name"])
        return entry

    def finish_crd(self, name: str) -> None:
        """Let a deleted definition go once its last object has gone."""
        found = self.store.get(crds.BUCKET, "", name)
        if found is None or "deletionTimestamp" not in found.obj["metadata"]:
            return
        spec = found.obj["spec"]
        if any(True for _ in self.store.entries(f"{spec['group']}/{spec['names']['plural']}")):
            return
        info = self.registry.get("apiextensions.k8s.io", "v1", "customresourcedefinitions")
        assert info is not None
        meta = dict(found.obj["metadata"])
        meta["finalizers"] = [item for item in meta.get("finalizers") or [] if item != crds.FINALIZER]
        if meta["finalizers"]:
            self.store.put(crds.BUCKET, "", name, {**found.obj, "metadata": meta})
        else:
            self.removed(info, "", name)

    def _commit(self, info: ResourceInfo, namespace: str, name: str, obj: Object, options: WriteOptions) -> Entry:
        if options.dry_run:
            return Entry(obj, 0)
        if info.crd is not None and info.storage_version != info.version:
            obj = {**obj, "apiVersion": f"{info.group}/{info.storage_version}"}
            stored = self.registry.get(info.group, info.storage_version, info.plural)
            obj = schema.clean(stored.schema, obj, "", []) if stored else obj
        entry = self.store.put(info.bucket, namespace, name, obj)
        if info.bucket == aggregation.BUCKET:
            aggregation.gather(self.store)
        elif info.bucket == crds.BUCKET:
            self.registry.set_crd(entry.obj)
            self.store.begin(f"{obj['spec']['group']}/{obj['spec']['names']['plural']}")
        return self.served(info, entry)

    def _reset_status(self, info: ResourceInfo, obj: Object, old: Object | None) -> None:
        """The main resource never writes a status that has its own subresource; nodes bring theirs at birth."""
        if not info.has_status or (old is None and info.bucket == "/nodes"):
            return
        obj.pop("status", None)
        if old is not None and "status" in old:
            obj["status"] = old["status"]

    def _default(self, info: ResourceInfo, obj: Object) -> None:
        if info.crd is None:
            defaults.apply(info.bucket, obj)
        else:
            schema.default(info.schema, obj)

    def _admit(self, info: ResourceInfo, obj: Object, old: Object | None) -> None:
        """Per-kind preparation and validation."""
        causes: list[status.Cause] = []
        checks.metadata(info, obj, causes)
        if info.crd is None:
            if causes:
                raise status.invalid(info.kind, info.group, obj["metadata"].get("name", ""), causes)
            if info.bucket not in kinds.FIRST:
                checks.builtin(info, obj, old, causes)
            hook = kinds.HOOKS.get(info.bucket)
            if hook is not None and not causes:
                hook(self, obj, old)
            if info.bucket in kinds.FIRST:
                checks.builtin(info, obj, old, causes)
        else:
            self._validate_custom(info, obj, old, causes)
        if causes:
            raise status.invalid(info.kind, info.group, obj["metadata"].get("name", ""), causes)
        gate = kinds.GATES.get(info.bucket)
        if gate is not None:
            gate(self, obj, old)

    def _validate_custom(
        self,
        info: ResourceInfo,
        obj: Object,
        old: Object | None,
        causes: list[status.Cause] | None = None,
        root: str = "",
    ) -> None:
        found: list[status.Cause] = [] if causes is None else causes
        validation.validate(info.schema, obj, "", found)
        if any(cause.reason in _BLOCKING for cause in found):
            if info.schema.rules_below:
                text = (
                    "Invalid value: null: some validation rules were not checked because the object was invalid;"
                    " correct the existing errors to complete validation"
                )
                found.append(status.Cause("<nil>", "FieldValueInvalid", text))
        else:
            cel.check(info.schema, obj, old, "", found)
        if root:  # what is validated alone names its fields from there
            found = [replace(cause, message=cause.message.replace(f": {root}.", ": ", 1)) for cause in found]
        if found:
            raise status.invalid(info.kind, info.group, obj["metadata"].get("name", ""), found)

    def _check_namespace(self, info: ResourceInfo, namespace: str, name: str) -> None:
        found = self.store.get("/namespaces", "", namespace)
        if found is None:
            raise status.not_found("namespaces", "", namespace)
        if "deletionTimestamp" in found.obj["metadata"]:
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            error = status.forbidden(info.plural, info.group, name, why)
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {namespace} is being terminated",
                "field": "metadata.namespace",
            }
            raise ApiError(error.code, error.reason, error.message, {**(error.details or {}), "causes": [cause]})
