"""Server-side apply and the `managedFields` of every other write: who set which field, and who may change it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mizzen_local.api import fieldset
from mizzen_local.api.fieldset import Trie
from mizzen_local.api.schema import UNTYPED, Node
from mizzen_local.client import ApiError, Object

# what nobody owns: identity and what the server itself writes
_SYSTEM_METADATA = (
    "name", "namespace", "uid", "creationTimestamp", "generation", "resourceVersion", "managedFields", "selfLink",
    "deletionTimestamp", "deletionGracePeriodSeconds", "generateName",
)  # fmt: skip
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
    value = ownable(new)
    delta = fieldset.changed(node, ownable(old) if old else {}, value)
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
    new["metadata"]["managedFields"] = _capped(kept)


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
    entries = [dict(entry) for entry in base["metadata"].get("managedFields") or []]
    wanted = ownable(config)
    merged = _merge(node, ownable(base), wanted)
    mine = _find(entries, writer, config["apiVersion"])
    others = [entry for entry in entries if entry is not mine]
    delta = fieldset.changed(node, ownable(base), merged)
    conflicts = [(entry, fieldset.both(delta, entry.get("fieldsV1") or None)) for entry in others]
    conflicts = [(entry, fields) for entry, fields in conflicts if fields is not None]
    if conflicts and not force:
        raise _conflict(conflicts)
    config_set = fieldset.fields_of(node, wanted) or None
    last = (mine or {}).get("fieldsV1") or None
    owned: Trie | None = config_set
    for entry in others:
        owned = fieldset.union(owned, entry.get("fieldsV1") or None)
    dropped = fieldset.minus(last, config_set)
    if dropped:
        merged = fieldset.remove(node, merged, dropped, owned)[1]
    result = {**base, **merged}
    for key in base.keys() - merged.keys() - {"apiVersion", "kind", "metadata"}:
        del result[key]
    system = {key: value for key, value in base["metadata"].items() if key in _SYSTEM_METADATA}
    result["metadata"] = {**system, **merged.get("metadata", {})}
    kept = []
    for entry in others:
        taken = next((fields for owner, fields in conflicts if owner is entry), None)
        left = fieldset.existing(node, merged, fieldset.minus(entry.get("fieldsV1") or None, taken))
        if left is not None:
            kept.append({**entry, "fieldsV1": left})
    new_entry = _entry(writer, config["apiVersion"], config_set or {}, now)
    same_set = mine is not None and (mine.get("fieldsV1") or {}) == new_entry["fieldsV1"]
    if same_set and mine is not None:
        new_entry["time"] = mine.get("time", now)
    kept.append(new_entry)
    result["metadata"]["managedFields"] = kept
    moved = not same_set or ownable(base) != ownable(result) or bool(conflicts)
    return result, moved


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
        if before.keys() <= after.keys():
            return list(merged.values())  # the applied order wins where it names every item
        return [merged.get(key, item) for key, item in before.items()] + [
            item for key, item in merged.items() if key not in before
        ]
    return config


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


def _entry(writer: Writer, api_version: str, fields: Trie, now: str) -> Object:
    entry = {
        "manager": writer.manager,
        "operation": writer.operation,
        "apiVersion": api_version,
        "time": now,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    }
    return {**entry, "subresource": writer.subresource} if writer.subresource else entry


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
