"""Server-side apply and the `managedFields` of every other write: who set which field, and who may change it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mizzen_local.api import fieldset, lastapplied
from mizzen_local.api.fieldset import Trie
from mizzen_local.api.schema import UNTYPED, Node
from mizzen_local.client import ApiError, Object

# what nobody owns: identity and what the server itself writes
_SYSTEM_METADATA = (
    "name", "namespace", "uid", "creationTimestamp", "generation", "resourceVersion", "managedFields", "selfLink",
    "deletionTimestamp", "deletionGracePeriodSeconds", "generateName",
)  # fmt: skip
_BEFORE = "before-first-apply"
_MANAGER_LIMIT = 10  # entries of kind Update that are kept apart


@dataclass(frozen=True)
class Writer:
    """Who writes: the field manager, through which subresource, and with which operation."""

    manager: str
    subresource: str = ""
    operation: str = "Update"


def ownable(obj: Object) -> Object:
    """The object without the fields that nobody owns."""
    metadata = {key: value for key, value in obj.get("metadata", {}).items() if key not in _SYSTEM_METADATA}
    rest = {key: value for key, value in obj.items() if key not in ("apiVersion", "kind", "metadata")}
    return {**({"metadata": metadata} if metadata else {}), **rest}


def track(node: Node, old: Object | None, new: Object, writer: Writer, now: str) -> None:
    """Set the managed fields of `new` after a create, update or patch by the writer."""
    entries = [dict(entry) for entry in (old or new)["metadata"].get("managedFields") or []] if old else []
    if old is not None and not entries:
        new["metadata"].pop("managedFields", None)  # who gave up tracking gets it back with the first apply
        return
    value = ownable(new)
    delta = _owned(fieldset.changed(node, ownable(old) if old else {}, value))
    if delta is None:
        if entries:
            new["metadata"]["managedFields"] = entries
        return
    mine = _find(entries, writer, new["apiVersion"])
    kept = []
    for entry in entries:
        if entry is not mine:
            # an update takes over what it changes, without asking
            left = fieldset.existing(node, value, fieldset.minus(entry.get("fieldsV1") or None, delta))
            if left is not None:
                kept.append({**entry, "fieldsV1": left})
    own = fieldset.existing(node, value, fieldset.union((mine or {}).get("fieldsV1") or None, delta))
    if own is not None:
        kept.append(_entry(writer, new["apiVersion"], own, now))
    new["metadata"]["managedFields"] = _sorted(_capped(kept))


def merge_applied(
    node: Node, live: Object | None, config: Object, writer: Writer, force: bool, now: str
) -> tuple[Object, bool]:
    """Merge an applied configuration into the live object.

    Returns the merged object with its managed fields, and whether anything but their times changed. Raises a conflict
    (409) that names the fields and their managers.
    """
    base: Object = live or {
        "apiVersion": config["apiVersion"],
        "kind": config["kind"],
        "metadata": {key: config["metadata"][key] for key in ("name", "namespace") if key in config["metadata"]},
    }
    before, wanted = ownable(base), ownable(config)
    entries = _entries(node, live, now)
    merged = _merge(node, before, wanted)
    mine = _find(entries, writer, config["apiVersion"])
    others = [entry for entry in entries if entry is not mine]
    taken = _contested(node, live, merged, others, writer, force)
    config_set = _owned(fieldset.fields_of(node, wanted)) or None
    owned: Trie | None = config_set
    for entry in others:
        owned = fieldset.union(owned, entry.get("fieldsV1") or None)
    dropped = fieldset.minus((mine or {}).get("fieldsV1") or None, config_set)
    if dropped:
        merged = fieldset.remove(node, merged, dropped, owned)[1]
    system = {key: value for key, value in base["metadata"].items() if key in _SYSTEM_METADATA}
    result = {key: base[key] for key in ("apiVersion", "kind")} | merged
    result["metadata"] = {**system, **merged.get("metadata", {})}
    still = before == ownable(result)
    kept = []
    for entry in others:
        lost = next((fields for owner, fields in taken if owner is entry), None)
        left = fieldset.existing(node, merged, fieldset.minus(entry.get("fieldsV1") or None, lost))
        if left is not None:
            kept.append({**entry, "fieldsV1": left})
    if config_set:
        # the time is that of the last change, not of the last request
        time = (mine or {}).get("time") if still and live is not None else now
        kept.append(_entry(writer, config["apiVersion"], config_set, time))
    result["metadata"].pop("managedFields", None)
    if kept:
        result["metadata"]["managedFields"] = _sorted(kept)
    same_set = ((mine or {}).get("fieldsV1") or None) == config_set
    return result, bool(taken) or not (same_set and still)


def _entries(node: Node, live: Object | None, now: str) -> list[Object]:
    """Who owns what before an apply; an object that nobody tracked has an owner for all that it holds."""
    if live is None:
        return []
    entries = [dict(entry) for entry in live["metadata"].get("managedFields") or []]
    fields = None if entries else _owned(fieldset.changed(node, {}, ownable(live)))
    return [_entry(Writer(_BEFORE), live["apiVersion"], fields, now)] if fields else entries


def _contested(
    node: Node, live: Object | None, merged: Object, others: list[Object], writer: Writer, force: bool
) -> list[tuple[Object, Trie | None]]:
    """What an apply takes from other owners; raises 409 where that is not forced."""
    delta = fieldset.changed(node, ownable(live) if live else {}, merged)
    found = [(entry, fieldset.both(delta, entry.get("fieldsV1") or None)) for entry in others]
    taken: list[tuple[Object, Trie | None]] = [(entry, fields) for entry, fields in found if fields is not None]
    if not taken or force:
        return taken
    left = taken
    if live is not None and writer.manager == lastapplied.MANAGER:
        open_to_us = lastapplied.allowed(node, live)
        rest = [(entry, fieldset.minus(fields, open_to_us)) for entry, fields in taken]
        left = [(entry, fields) for entry, fields in rest if fields is not None]
    if left:
        raise _conflict(left)
    return taken


def _merge(node: Node, live: Any, config: Any) -> Any:
    if isinstance(live, dict) and isinstance(config, dict) and node.map_type != "atomic":
        out = dict(live)
        for name, value in config.items():
            out[name] = _merge(node.field(name) or UNTYPED, live[name], value) if name in live else value
        return out
    if isinstance(live, list) and isinstance(config, list) and fieldset.is_granular_list(node):
        before, after = fieldset.index(node, live), fieldset.index(node, config)
        if before is None or after is None:
            return config
        merged = {key: _merge(node.items, before[key], item) if key in before else item for key, item in after.items()}
        return [merged[key] if key in merged else before[key] for key in _order(list(before), list(after))]
    return config


def _order(live: list[str], applied: list[str]) -> list[str]:
    """Keys of both lists: the applied order wins, and what only the live list has keeps its neighbours."""
    mine, theirs = set(applied), set(live)
    out: list[str] = []
    shared = [key for key in applied if key in theirs]
    left, right = list(live), list(applied)
    while left or right:
        if left and right and left[0] == right[0]:
            out.append(left.pop(0))
            shared.remove(right.pop(0))
        elif left and right and left[0] in mine and shared and left[0] != shared[0]:
            left.pop(0)  # its turn comes with the applied list
        elif left and left[0] not in mine:
            out.append(left.pop(0))
        elif right:
            if left and left[0] in out:
                left.pop(0)
            key = right.pop(0)
            out.append(key)
            if key in shared:
                shared.remove(key)
        else:
            left.pop(0)
    return out


def _owned(fields: Trie | None) -> Trie | None:
    """Nobody owns `metadata` itself."""
    if fields and "f:metadata" in fields:
        inner = {key: sub for key, sub in fields["f:metadata"].items() if key != "."}
        fields = {key: sub for key, sub in fields.items() if key != "f:metadata"}
        if inner:
            fields["f:metadata"] = inner
    return fields or None


def _find(entries: list[Object], writer: Writer, api_version: str) -> Object | None:
    for entry in entries:
        if (
            entry.get("manager") == writer.manager
            and entry.get("operation") == writer.operation
            and entry.get("subresource", "") == writer.subresource
            and (entry.get("apiVersion") == api_version or writer.operation == "Apply")
        ):
            return entry
    return None


def _entry(writer: Writer, api_version: str, fields: Trie, now: str | None) -> Object:
    return {
        "manager": writer.manager,
        "operation": writer.operation,
        "apiVersion": api_version,
        **({"time": now} if now else {}),
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
        **({"subresource": writer.subresource} if writer.subresource else {}),
    }


def _sorted(entries: list[Object]) -> list[Object]:
    return sorted(
        entries,
        key=lambda e: (
            e.get("operation", ""), e.get("time", ""), e.get("manager", ""), e.get("apiVersion", ""),
            e.get("subresource", ""),
        ),
    )  # fmt: skip


def _capped(entries: list[Object]) -> list[Object]:
    """Fold the oldest update managers into one, as the real server does, so that objects do not grow forever."""
    updates = sorted((e for e in entries if e["operation"] == "Update"), key=lambda e: e.get("time", ""))
    if len(updates) <= _MANAGER_LIMIT:
        return entries
    old = updates[: len(updates) - _MANAGER_LIMIT + 1]
    fields: Trie | None = None
    for entry in old:
        fields = fieldset.union(fields, entry["fieldsV1"])
    ancient = {**old[-1], "manager": "ancient-changes", "fieldsV1": fields or {}}
    ancient.pop("subresource", None)
    return [ancient, *(entry for entry in entries if not any(entry is gone for gone in old))]


def _conflict(conflicts: list[tuple[Object, Trie | None]]) -> ApiError:
    causes, texts, count = [], [], 0
    for entry, fields in conflicts:
        who = f'"{entry["manager"]}"'
        if entry.get("subresource"):
            who += f' with subresource "{entry["subresource"]}"'
        if entry["operation"] == "Update":
            who += f" using {entry['apiVersion']}"
        names = fieldset.paths(fields)
        count += len(names)
        causes += [{"reason": "FieldManagerConflict", "message": f"conflict with {who}", "field": n} for n in names]
        if len(names) == 1:
            texts.append(f"conflict with {who}: {names[0]}")
        else:
            texts.append(f"conflicts with {who}:\n" + "\n".join(f"- {name}" for name in names))
    plural = "s" if count != 1 else ""
    message = f"Apply failed with {count} conflict{plural}: " + "\n".join(texts)
    return ApiError(409, "Conflict", message, {"causes": causes})
