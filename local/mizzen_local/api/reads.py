"""Lists: selectors, pages, and the bytes of a list put together from the bytes of its objects."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import orjson

from mizzen_local.api import selectors, status
from mizzen_local.api.machinery import Machinery
from mizzen_local.api.registry import ResourceInfo
from mizzen_local.api.selectors import Matcher
from mizzen_local.api.store import Entry, Store

_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You must start a new list without"
    " the continue parameter."
)


@dataclass(frozen=True)
class Selection:
    """What a list or watch asks for."""

    namespace: str | None = None
    label_selector: str = ""
    field_selector: str = ""

    def matcher(self, info: ResourceInfo) -> Matcher | None:
        by_label = selectors.labels(self.label_selector)
        extra = frozenset(
            item["jsonPath"].lstrip(".") for item in (info.crd_version or {}).get("selectableFields") or []
        )
        by_field = selectors.fields(info.bucket, self.field_selector, extra)
        if by_label is None or by_field is None:
            return by_label or by_field
        return lambda obj: by_label(obj) and by_field(obj)


@dataclass(frozen=True)
class Page:
    """Selected entries; `token` and `remaining` are set where there is more."""

    entries: list[Entry]
    rv: int
    token: str = ""
    remaining: int = 0


def page(machinery: Machinery, info: ResourceInfo, selection: Selection, limit: int = 0, token: str = "") -> Page:
    """The entries in order; all pages of a list show the moment of its first."""
    matches = selection.matcher(info)
    name = selectors.exact_name(selection.field_selector)
    rv, after = _parse(token) if token else (machinery.store.rv, ("", ""))
    if token:
        found = [entry for entry in _at(machinery.store, info.bucket, selection.namespace, rv) if _key(entry) > after]
    elif name is not None and selection.namespace is not None:
        one = machinery.store.get(info.bucket, selection.namespace, name)
        found = [one] if one is not None else []
    else:
        found = list(machinery.store.entries(info.bucket, selection.namespace))
    if matches is not None:
        found = [entry for entry in found if matches(entry.obj)]
    rest = 0
    next_token = ""
    if limit and len(found) > limit:
        # nobody counts what a selector would let through
        rest = 0 if matches else len(found) - limit
        found = found[:limit]
        next_token = base64.urlsafe_b64encode(orjson.dumps([rv, *_key(found[-1])])).decode()
    return Page([machinery.served(info, entry) for entry in found], rv, next_token, rest)


def _at(store: Store, bucket: str, namespace: str | None, rv: int) -> list[Entry]:
    """The entries as they were at a version: the present ones with every later change undone."""
    events = store.since(bucket, rv)
    if events is None:
        raise status.gone(_TOO_OLD)
    found = {_key(entry): entry for entry in store.entries(bucket, namespace)}
    for event in reversed(events):
        key = _key(event.entry)
        if namespace is not None and key[0] != namespace:
            continue
        if event.before is None:
            found.pop(key, None)
        else:
            found[key] = event.before
    return [found[key] for key in sorted(found)]


def _key(entry: Entry) -> tuple[str, str]:
    meta = entry.obj["metadata"]
    return meta.get("namespace") or "", meta["name"]


def _parse(token: str) -> tuple[int, tuple[str, str]]:
    try:
        rv, namespace, name = orjson.loads(base64.urlsafe_b64decode(token))
        return int(rv), (str(namespace), str(name))
    except (ValueError, TypeError) as error:
        raise status.bad_request(f"continue key is not valid: {error}") from error


def list_bytes(info: ResourceInfo, found: Page) -> bytes:
    """A list as JSON without parsing or encoding any of its objects again."""
    meta = {"resourceVersion": str(found.rv)}
    if found.token:
        meta["continue"] = found.token
    if found.remaining:
        meta["remainingItemCount"] = found.remaining  # type: ignore[assignment]
    head = orjson.dumps({"kind": info.list_kind, "apiVersion": info.api_version, "metadata": meta})
    return b"".join((head[:-1], b',"items":[', b",".join([entry.raw for entry in found.entries]), b"]}\n"))
