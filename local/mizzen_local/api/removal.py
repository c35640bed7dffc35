"""Deletion: preconditions, finalizers, propagation and the grace of pods."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from mizzen_local.api import crds, request, status
from mizzen_local.api.golang import go_type
from mizzen_local.api.machinery import Machinery, WriteOptions, now_text
from mizzen_local.api.registry import ResourceInfo
from mizzen_local.api.store import Entry
from mizzen_local.client import Object

_POLICIES = ("Background", "Foreground", "Orphan")
_RETURNS_OBJECT = frozenset({"/pods", "/services", "/persistentvolumeclaims", "/persistentvolumes", "/serviceaccounts"})


@dataclass(frozen=True)
class DeleteOptions:
    """`propagation` empty means the resource's own default, which is background."""

    propagation: str = ""
    grace: int | None = None
    uid: str = ""
    resource_version: str = ""
    dry_run: bool = False

    @classmethod
    def parse(cls, body: Any, query: dict[str, str]) -> DeleteOptions:
        body = body if isinstance(body, dict) else {}
        conditions = body.get("preconditions") or {}
        grace = body.get("gracePeriodSeconds")
        if grace is None:
            grace = request.integer(query, "gracePeriodSeconds")
        elif not isinstance(grace, int):
            words = (
                f"cannot unmarshal {go_type(grace)} into Go struct field DeleteOptions.gracePeriodSeconds of type int64"
            )
            raise status.bad_request(
                f'DeleteOptions in version "v1" cannot be handled as a DeleteOptions: json: {words}'
            )
        propagation = body.get("propagationPolicy") or query.get("propagationPolicy") or ""
        orphan = body.get("orphanDependents", query.get("orphanDependents"))
        dry_run = body.get("dryRun") or [query[name] for name in ("dryRun",) if query.get(name)]
        _check(propagation, orphan, dry_run)
        if orphan in (True, "true"):
            propagation = "Orphan"
        return cls(
            propagation,
            grace,
            conditions.get("uid") or "",
            conditions.get("resourceVersion") or "",
            bool(dry_run),
        )


def _check(propagation: Any, orphan: Any, dry_run: Any) -> None:
    causes = []
    if orphan is not None and propagation:
        detail = "orphanDependents and deletionPropagation cannot be both set"
        causes.append(status.invalid_value("propagationPolicy", propagation, detail))
    if propagation not in ("", *_POLICIES):
        causes.append(status.unsupported("propagationPolicy", propagation, [*_POLICIES, "nil"]))
    if dry_run not in ([], ["All"]):
        causes.append(status.unsupported("dryRun", dry_run, ["All"]))
    if causes:
        raise status.invalid("DeleteOptions", "meta.k8s.io", "", causes)


def delete(machinery: Machinery, info: ResourceInfo, namespace: str, name: str, options: DeleteOptions) -> Object:
    """Delete, or begin to; returns what the client gets: the object while it stays, a Status once it is gone."""
    found = machinery.store.get(info.bucket, namespace, name)
    if found is None:
        raise status.not_found(info.plural, info.group, name)
    old_meta = found.obj["metadata"]
    for field, wanted in (("uid", options.uid), ("resourceVersion", options.resource_version)):
        if wanted and wanted != old_meta[field]:
            label, fate = ("UID", "deleted and then recreated") if field == "uid" else ("ResourceVersion", "modified")
            why = (
                f"the {label} in the precondition ({wanted}) does not match the {label} in record ({old_meta[field]})."
                f" The object might have been {fate}"
            )
            raise status.conflict(info.plural, info.group, name, why)
    meta = dict(old_meta)
    finalizers = _finalizers(info, meta, options.propagation)
    grace = _grace(info, found, options)
    obj: Object = {**found.obj, "metadata": meta}
    if info.bucket == "/namespaces":
        obj["status"] = {**(found.obj.get("status") or {}), "phase": "Terminating"}
    held = bool(finalizers) or grace > 0 or bool(info.bucket == "/namespaces" and obj["spec"].get("finalizers"))
    if not held:
        if not options.dry_run:
            machinery.removed(info, namespace, name)
        return found.obj if info.bucket in _RETURNS_OBJECT else _success(info, found)
    if finalizers:
        meta["finalizers"] = finalizers
    else:
        meta.pop("finalizers", None)
    first = "deletionTimestamp" not in old_meta
    if first or grace < old_meta.get("deletionGracePeriodSeconds", 0):
        moment = datetime.now(UTC) + timedelta(seconds=grace)
        meta["deletionTimestamp"] = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
        meta["deletionGracePeriodSeconds"] = grace
        if first and meta.get("generation"):
            meta["generation"] += 1
    if obj == found.obj or options.dry_run:
        return obj
    entry = machinery.store.put(info.bucket, namespace, name, obj)
    if info.bucket == crds.BUCKET:
        machinery.registry.set_crd(entry.obj)
        _remove_instances(machinery, entry.obj)
    return entry.obj


def _finalizers(info: ResourceInfo, meta: Object, propagation: str) -> list[str]:
    """The finalizers that the garbage collector acts on follow the propagation policy."""
    found = list(meta.get("finalizers") or [])
    wanted = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}.get(propagation)
    if propagation:
        found = [item for item in found if item not in ("foregroundDeletion", "orphan")]
    if wanted:
        found.append(wanted)
    if info.bucket == crds.BUCKET and crds.FINALIZER not in found:
        found.append(crds.FINALIZER)  # until its objects are gone
    return found


def _grace(info: ResourceInfo, entry: Entry, options: DeleteOptions) -> int:
    """Only pods that run somewhere get time; the node agent ends them with a second deletion of zero seconds."""
    if info.bucket != "/pods":
        return 0
    spec, phase = entry.obj["spec"], (entry.obj.get("status") or {}).get("phase")
    if not spec.get("nodeName") or phase in ("Succeeded", "Failed"):
        return 0
    grace = options.grace if options.grace is not None else spec.get("terminationGracePeriodSeconds", 30)
    if "deletionTimestamp" in entry.obj["metadata"]:
        grace = min(grace, entry.obj["metadata"].get("deletionGracePeriodSeconds", grace))
    return max(int(grace), 0)


def _success(info: ResourceInfo, entry: Entry) -> Object:
    details = {
        "name": entry.obj["metadata"]["name"],
        **({"group": info.group} if info.group else {}),
        "kind": info.plural,
        "uid": entry.obj["metadata"]["uid"],
    }
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def _remove_instances(machinery: Machinery, crd: Object) -> None:
    """A definition takes its objects along; those with finalizers hold it until somebody lets them go."""
    spec = crd["spec"]
    version = next(version["name"] for version in spec["versions"] if version.get("storage"))
    info = machinery.registry.get(spec["group"], version, spec["names"]["plural"])
    name = crd["metadata"]["name"]
    if info is not None:
        for entry in list(machinery.store.entries(info.bucket)):
            meta = entry.obj["metadata"]
            delete(machinery, info, meta.get("namespace", ""), meta["name"], DeleteOptions("Background"))
    machinery.finish_crd(name)


def finalize_namespace(machinery: Machinery, info: ResourceInfo, name: str, body: Object) -> Entry:
    """The subresource by which the namespace controller says that a namespace is empty."""
    found = machinery.entry(info, "", name)
    wanted = (body.get("spec") or {}).get("finalizers") or []
    obj = {**found.obj, "spec": {**found.obj.get("spec", {}), "finalizers": wanted}}
    obj["metadata"] = dict(found.obj["metadata"])
    if not wanted:
        obj["spec"].pop("finalizers")
    if "deletionTimestamp" in obj["metadata"] and not wanted and not obj["metadata"].get("finalizers"):
        return machinery.removed(info, "", name)
    return machinery.store.put(info.bucket, "", name, obj)


def bind(machinery: Machinery, info: ResourceInfo, namespace: str, name: str, body: Object) -> Object:
    """The scheduler's verdict: which node runs the pod."""
    found = machinery.entry(info, namespace, name)
    node = (body.get("target") or {}).get("name", "")
    if found.obj["spec"].get("nodeName"):
        why = f'pod {name} is already assigned to node "{found.obj["spec"]["nodeName"]}"'
        raise status.conflict("pods/binding", "", name, why)
    conditions = [c for c in (found.obj.get("status") or {}).get("conditions") or [] if c["type"] != "PodScheduled"]
    now = now_text()
    conditions.append({"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now})
    obj = {
        **found.obj,
        "metadata": dict(found.obj["metadata"]),
        "spec": {**found.obj["spec"], "nodeName": node},
        "status": {**(found.obj.get("status") or {}), "conditions": conditions},
    }
    obj["status"].pop("nominatedNodeName", None)
    machinery.store.put(info.bucket, namespace, name, obj)
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


__all__ = ["DeleteOptions", "WriteOptions", "bind", "delete", "finalize_namespace"]
