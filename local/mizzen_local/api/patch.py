"""JSON patch (RFC 6902), merge patch (RFC 7386) and strategic merge patch, all returning new objects."""

from __future__ import annotations

import copy
from typing import Any

from mizzen_local.api import status
from mizzen_local.api.golang import go_text
from mizzen_local.api.schema import UNTYPED, Node
from mizzen_local.client import ApiError

_MOST_OPERATIONS = 10_000


def merge_patch(value: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    out = dict(value) if isinstance(value, dict) else {}
    for name, item in patch.items():
        if item is None:
            out.pop(name, None)
        else:
            out[name] = merge_patch(out.get(name), item)
    return out


def json_patch(value: Any, operations: Any) -> Any:
    if len(operations) > _MOST_OPERATIONS:
        message = (
            "Request entity too large: The allowed maximum operations in a JSON patch is"
            f" {_MOST_OPERATIONS}, got {len(operations)}"
        )
        raise ApiError(413, "RequestEntityTooLarge", message)
    document = copy.deepcopy(value)
    for operation in operations:
        try:
            document = _operate(document, operation)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            message = "the server rejected our request due to an error in our request"
            raise ApiError(422, "Invalid", message, {}) from error
    return document


def _operate(document: Any, operation: dict[str, Any]) -> Any:
    kind, path = operation["op"], _pointer(operation["path"])
    if kind == "test":
        if _look_up(document, path) != operation.get("value"):
            raise ValueError(f"testing value {operation['path']} failed")
        return document
    if kind in ("add", "replace"):
        return _put(document, path, copy.deepcopy(operation.get("value")), kind == "replace")
    if kind == "remove":
        return _drop(document, path)
    if kind in ("move", "copy"):
        source = _pointer(operation["from"])
        # what is not there is copied as null, as the real server's library does
        parent = _look_up(document, source[:-1])
        absent = kind == "copy" and isinstance(parent, dict) and source and source[-1] not in parent
        found = None if absent else copy.deepcopy(_look_up(document, source))
        if kind == "move":
            document = _drop(document, source)
        return _put(document, path, found, False)
    raise ValueError(f"unexpected kind: {kind}")


def _pointer(text: str) -> list[str]:
    if text and not text.startswith("/"):
        raise ValueError(f"invalid path {text!r}")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _look_up(document: Any, path: list[str]) -> Any:
    for part in path:
        document = document[_position(part, document)] if isinstance(document, list) else document[part]
    return document


def _position(part: str, items: list[Any]) -> int:
    found = int(part)
    if not 0 <= found < len(items):
        raise IndexError(f"index {part} is out of bounds")
    return found


def _put(document: Any, path: list[str], value: Any, replace: bool) -> Any:
    if not path:
        return value
    parent, last = _look_up(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        if replace:
            parent[_position(last, parent)] = value
        elif last == "-" or int(last) == len(parent):
            parent.append(value)
        else:
            parent.insert(_position(last, parent), value)
    else:
        parent[last] = value  # a replacement of what is not there adds it
    return document


def _drop(document: Any, path: list[str]) -> Any:
    parent, last = _look_up(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        parent.pop(_position(last, parent))
    else:
        del parent[last]
    return document


def strategic_patch(node: Node, value: Any, patch: Any) -> Any:
    """Merge as the kind's schema says: lists with a merge key by item, others as a whole."""
    if not isinstance(patch, dict):
        return patch
    directive = patch.get("$patch")
    if directive not in (None, "replace", "delete", "merge"):
        raise status.internal(f"unknown patch type: {directive} in map: {go_text(patch)}")
    if directive == "replace":
        return {name: item for name, item in patch.items() if name != "$patch"}
    if directive == "delete":
        return {}
    out = dict(value) if isinstance(value, dict) else {}
    retain = patch.get("$retainKeys")
    if retain is not None:
        out = {name: item for name, item in out.items() if name in retain}
    for name, item in patch.items():
        if name.startswith("$deleteFromPrimitiveList/"):
            field = name.split("/", 1)[1]
            out[field] = [entry for entry in out.get(field) or [] if entry not in item]
        elif item is None:
            out.pop(name, None)
        elif not name.startswith("$"):
            order = patch.get(f"$setElementOrder/{name}")
            out[name] = _strategic_field(node.field(name) or UNTYPED, out.get(name), item, order)
    for name, order in patch.items():
        field = name.split("/", 1)[1] if name.startswith("$setElementOrder/") else ""
        if field in out and field not in patch:
            out[field] = _ordered(node.field(field) or UNTYPED, out[field], order, out[field])
    return out


def _strategic_field(node: Node, value: Any, patch: Any, order: list[Any] | None) -> Any:
    if isinstance(patch, list):
        return _strategic_list(node, value or [], patch, order)
    return strategic_patch(node, value, patch) if isinstance(patch, dict) else patch


def _strategic_list(node: Node, items: list[Any], patch: list[Any], order: list[Any] | None) -> list[Any]:
    if "merge" not in node.strategies:
        return [{k: v for k, v in i.items() if k != "$patch"} if isinstance(i, dict) else i for i in patch]
    if not node.merge_key:
        merged = [*items, *(item for item in patch if item not in items)]
        return _ordered(node, merged, order or patch, items)
    if any(isinstance(item, dict) and item.get("$patch") == "replace" for item in patch):
        return [item for item in patch if item.get("$patch") != "replace"]
    key = node.merge_key
    out = list(items)
    for item in patch:
        if key not in item:
            raise status.internal(f"map: {go_text(item)} does not contain declared merge key: {key}")
        place = next((at for at, entry in enumerate(out) if entry.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            if place is not None:
                out.pop(place)
        elif place is None:
            out.append(strategic_patch(node.items, {}, item))
        else:
            out[place] = strategic_patch(node.items, out[place], item)
    return _ordered(node, out, order or patch, items)


def _ordered(node: Node, items: list[Any], order: list[Any], before: list[Any]) -> list[Any]:
    """Items in the order of the patch; those that it does not name go where they stood relative to the others."""
    key = node.merge_key

    def name(item: Any) -> Any:
        return item.get(key) if isinstance(item, dict) and key else item

    wanted, stood = [name(item) for item in order], [name(item) for item in before]
    named = sorted((item for item in items if name(item) in wanted), key=lambda item: wanted.index(name(item)))
    others = [item for item in items if name(item) not in wanted]
    out: list[Any] = []
    while named and others:
        mine, other = name(named[0]), name(others[0])
        earlier = mine in stood and other in stood and stood.index(other) < stood.index(mine)
        out.append(others.pop(0) if earlier else named.pop(0))
    return [*out, *named, *others]
