"""Sets of fields in the form of `fieldsV1`: tries whose keys are `f:<field>`, `k:<item keys>` and `v:<set value>`.

An empty trie is the field itself; `.` beside children says that the field itself belongs to the set, too. The rules
are those of structured-merge-diff, which the real server uses.
"""

from __future__ import annotations

from typing import Any

import orjson

from mizzen_local.api.schema import UNTYPED, Node

Trie = dict[str, Any]

# defaults of list-map keys that the published schemas leave out
KEY_DEFAULTS = {"protocol": "TCP"}
# fields that are structs in Go, not pointers to some, so that there is no time before they are set
_STRUCTS = frozenset(
    {"metadata", "spec", "status", "template", "jobTemplate", "strategy", "updateStrategy", "resources", "roleRef"}
)


def is_granular_list(node: Node) -> bool:
    return node.list_type in ("map", "set")


def item_key(node: Node, item: Any) -> str:
    """How a list item is named in a field set."""
    if node.list_type == "set":
        return f"v:{orjson.dumps(item).decode()}"
    keys: dict[str, Any] = {}
    for key in node.map_keys:
        value = item.get(key) if isinstance(item, dict) else None
        if value is None:
            below = node.items.props.get(key)
            value = below.default if below is not None and below.has_default else KEY_DEFAULTS.get(key)
        if value is not None:
            keys[key] = value
    return f"k:{orjson.dumps(keys, option=orjson.OPT_SORT_KEYS).decode()}"


def index(node: Node, items: list[Any]) -> dict[str, Any] | None:
    """Items by key; None where keys are not unique, so that the list can only be treated as a whole."""
    found = {item_key(node, item): item for item in items}
    return found if len(found) == len(items) else None


def fields_of(node: Node, value: Any) -> Trie | None:
    """The set of fields that a value names; None for nothing (an empty list of items)."""
    if isinstance(value, dict) and node.map_type != "atomic":
        out: Trie = {}
        for name, item in value.items():
            declared = node.props.get(name)
            below = declared or node.field(name) or UNTYPED
            sub = {} if item is None else fields_of(below, item)
            if sub is None:
                continue
            if declared is None and sub:
                sub["."] = {}
            out[f"f:{name}"] = sub
        return out
    if isinstance(value, list) and is_granular_list(node):
        if not value:
            return None
        out = {}
        for item in value:
            sub = (fields_of(node.items, item) or {}) if node.list_type == "map" else {}
            if sub:
                sub["."] = {}
            out[item_key(node, item)] = sub
        return out
    return {}


def changed(node: Node, old: Any, new: Any) -> Trie | None:
    """The fields that were added, modified or removed between two values; None when they are the same."""
    if old is new or (old == new and type(old) is type(new)):
        return None
    if isinstance(old, dict) and isinstance(new, dict) and node.map_type != "atomic":
        out: Trie = {}
        for name in old.keys() | new.keys():
            below = node.field(name) or UNTYPED
            nothing = _zero(node, name, below)
            was, present = old.get(name, nothing), new.get(name, nothing)
            sub = _changed_item(below, name in old or was is not None, was, name in new or present is not None, present)
            if sub is not None:
                out[f"f:{name}"] = sub
        return out or None
    if isinstance(old, list) and isinstance(new, list) and is_granular_list(node):
        before, after = index(node, old), index(node, new)
        if before is not None and after is not None:
            out = {}
            for key in before.keys() | after.keys():
                sub = _changed_item(node.items, key in before, before.get(key), key in after, after.get(key))
                if sub is not None:
                    out[key] = sub
            return out or None
    return {}


def _changed_item(node: Node, was: bool, old: Any, present: bool, new: Any) -> Trie | None:
    if was and present:
        return changed(node, old, new)
    return _everything(node, new if present else old)


def _zero(node: Node, name: str, below: Node) -> Any:
    """What a Go struct has where nothing was set: a struct within it, or a list that is always written."""
    if not node.builtin or not below.builtin:
        return None
    if below.type == "array":
        return [] if name in node.required else None
    return {} if "properties" in below.raw and (name in _STRUCTS or name in node.required) else None


def _everything(node: Node, value: Any) -> Trie:
    """The set of a value that is new or gone as a whole: each of its levels is a member."""
    out: Trie = {}
    if isinstance(value, dict) and node.map_type != "atomic":
        out = {f"f:{name}": _everything(node.field(name) or UNTYPED, item) for name, item in value.items()}
    elif isinstance(value, list) and is_granular_list(node):
        out = {item_key(node, item): _everything(node.items, item) for item in value}
    return {**out, ".": {}} if out else out


def _is_member(trie: Trie) -> bool:
    return not trie or "." in trie


def _tidy(trie: Trie) -> Trie | None:
    if not trie:
        return None
    return {} if len(trie) == 1 and "." in trie else trie


def union(left: Trie | None, right: Trie | None) -> Trie | None:
    if left is None or right is None:
        return right if left is None else left
    if not left:
        return {**right, ".": {}} if right else {}
    if not right:
        return {**left, ".": {}}
    out = dict(left)
    for key, sub in right.items():
        out[key] = union(out[key], sub) if key in out else sub
    return out


def minus(left: Trie | None, right: Trie | None) -> Trie | None:
    if left is None or right is None:
        return left
    if not left:
        return None if _is_member(right) else {}
    out: Trie = {}
    for key, sub in left.items():
        if key == ".":
            if not _is_member(right):
                out[key] = {}
        elif key in right:
            rest = minus(sub, right[key])
            if rest is not None:
                out[key] = rest
        else:
            out[key] = sub
    return _tidy(out)


def both(left: Trie | None, right: Trie | None) -> Trie | None:
    if left is None or right is None:
        return None
    if not left or not right:
        return {} if _is_member(left) and _is_member(right) else None
    out: Trie = {}
    for key, sub in left.items():
        if key == ".":
            if "." in right:
                out["."] = {}
        elif key in right:
            common = both(sub, right[key])
            if common is not None:
                out[key] = common
    return _tidy(out)


def existing(node: Node, value: Any, trie: Trie | None) -> Trie | None:
    """The part of the set whose fields the value still has."""
    if not trie:
        return trie
    out: Trie = {".": {}} if "." in trie else {}
    items = index(node, value) if isinstance(value, list) and is_granular_list(node) else None
    for key, sub in trie.items():
        if key.startswith("f:") and isinstance(value, dict):
            name = key[2:]
            if name in value:
                kept = existing(node.field(name) or UNTYPED, value[name], sub)
                if kept is not None:
                    out[key] = kept
        elif items is not None and key in items:
            kept = existing(node.items, items[key], sub)
            if kept is not None:
                out[key] = kept
    return _tidy(out)


def remove(node: Node, value: Any, gone: Trie, keep: Trie | None) -> tuple[bool, Any]:
    """Take the fields in `gone` out of the value unless `keep` holds something at or below them.

    Returns whether the value itself stays, and what is left of it.
    """
    if keep is None and _is_member(gone):
        return False, None
    if isinstance(value, dict):
        out = dict(value)
        for key, sub in gone.items():
            name = key[2:]
            if key.startswith("f:") and name in out:
                below, kept_below = node.field(name) or UNTYPED, keep.get(key) if keep else None
                if name in node.props and kept_below is None:
                    del out[name]  # a struct goes with the last of its fields that was owned, defaults and all
                    continue
                stays, left = remove(below, out[name], sub, kept_below)
                if stays:
                    out[name] = left
                else:
                    del out[name]
        return bool(out) or not value or keep is not None, out
    if isinstance(value, list) and is_granular_list(node):
        kept = []
        for item in value:
            key = item_key(node, item)
            if key not in gone:
                kept.append(item)
                continue
            stays, left = remove(node.items, item, gone[key], keep.get(key) if keep else None)
            if stays:
                kept.append(left)
        return bool(kept) or not value or keep is not None, kept
    return True, value


def paths(trie: Trie | None, prefix: str = "") -> list[str]:
    """Every member as people read it: `.spec.containers[name="web"].image`."""
    if trie is None:
        return []
    if not trie:
        return [prefix]
    found = [prefix] if "." in trie else []
    for key in sorted(trie):
        if key.startswith("f:"):
            found += paths(trie[key], f"{prefix}.{key[2:]}")
        elif key.startswith("k:"):
            keys = ",".join(f"{name}={orjson.dumps(value).decode()}" for name, value in orjson.loads(key[2:]).items())
            found += paths(trie[key], f"{prefix}[{keys}]")
        elif key.startswith("v:"):
            found += paths(trie[key], f"{prefix}[={key[2:]}]")
    return found
