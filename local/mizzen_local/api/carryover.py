"""What an update keeps of the stored object: identity, system fields, and the halves that it may not write."""

from __future__ import annotations

from mizzen_local.api import status
from mizzen_local.api.registry import ResourceInfo
from mizzen_local.client import Object

SERVER_METADATA = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")


def content(info: ResourceInfo, obj: Object) -> Object:
    """What a generation counts: everything but metadata, and the status where that is a subresource."""
    hidden = {"metadata", "apiVersion", "kind", *(("status",) if info.has_status else ())}
    return {key: value for key, value in obj.items() if key not in hidden}


def check_preconditions(info: ResourceInfo, old: Object, meta: Object) -> None:
    """Optimistic concurrency: a version or uid that the writer names must be the present one."""
    name, version, uid = old["metadata"]["name"], meta.get("resourceVersion"), meta.get("uid")
    if version and not (version.isascii() and version.isdigit()):
        raise status.internal(f'strconv.ParseUint: parsing "{version}": invalid syntax')
    if version and version not in (old["metadata"]["resourceVersion"], "0"):
        raise status.conflict(info.plural, info.group, name)
    if uid and uid != old["metadata"]["uid"]:
        key = "/".join(filter(None, ("/registry", *info.bucket.split("/"), old["metadata"].get("namespace"), name)))
        why = (
            f"StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition"
            f" failed: UID in precondition: {uid}, UID in object meta: {old['metadata']['uid']}"
        )
        raise status.conflict(info.plural, info.group, name, why)


def with_status(old: Object, obj: Object) -> Object:
    """What a write to the status subresource may change: the status and the bookkeeping of its fields."""
    merged: Object = {**old, "apiVersion": obj["apiVersion"], "metadata": dict(old["metadata"])}
    merged.pop("status", None)
    if obj.get("status") is not None:
        merged["status"] = obj["status"]
    if "managedFields" in obj["metadata"]:
        merged["metadata"]["managedFields"] = obj["metadata"]["managedFields"]
    return merged


def keep_identity(info: ResourceInfo, old: Object, meta: Object) -> None:
    """Carry over what only the server writes; finalizers can only go once an object is being deleted."""
    for key in ("name", "namespace", "resourceVersion", *SERVER_METADATA):
        if key in old:
            meta[key] = old[key]
        else:
            meta.pop(key, None)
    added = set(meta.get("finalizers") or []) - set(old.get("finalizers") or [])
    if "deletionTimestamp" in old and added:
        detail = (
            "no new finalizers can be added if the object is being deleted, found new finalizers"
            f" []string{{{', '.join(status.shown(item) for item in sorted(added))}}}"
        )
        cause = status.forbidden_field("metadata.finalizers", detail)
        raise status.invalid(info.kind, info.group, old["name"], [cause])
    if not meta.get("finalizers"):
        meta.pop("finalizers", None)


def managed_as_given(old: Object, obj: Object) -> Object:
    """The stored object with the managed fields that the writer sent, who may edit them, or reset them by `[{}]`."""
    given = obj["metadata"].get("managedFields")
    if not given or given == old["metadata"].get("managedFields"):
        return old
    if not given[0]:
        given = []
    return {**old, "metadata": {**old["metadata"], "managedFields": given}}
