"""Lists: selectors, pages, and the bytes of a list put together from the bytes of its objects."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import orjson

from mizzen_local.api import selectors, status
from mizzen_local.api.machinery import Machinery
from mizzen_local.api.registry import ResourceInfo
from mizzen_local.api.selectors import Matcher
from mizzen_local.api.store import Entry


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
    """The entries in order; a page continues after the last key of the one before, at the present state."""
    matches = selection.matcher(info)
    name = selectors.exact_name(selection.field_selector)
    if name is not None and selection.namespace is not None:
        one = machinery.store.get(info.bucket, selection.namespace, name)
        found = [one] if one is not None else []
    else:
        found = list(machinery.store.entries(info.bucket, selection.namespace))
    if matches is not None:
        found = [entry for entry in found if matches(entry.obj)]
    if token:
        after = _parse(token)
        found = [entry for entry in found if _key(entry) > after]
    rest = 0
    next_token = ""
    if limit and len(found) > limit:
        rest = len(found) - limit
        found = found[:limit]
        next_token = base64.urlsafe_b64encode(orjson.dumps(_key(found[-1]))).decode()
    return Page([machinery.served(info, entry) for entry in found], machinery.store.rv, next_token, rest)


def _key(entry: Entry) -> tuple[str, str]:
    meta = entry.obj["metadata"]
    return meta.get("namespace") or "", meta["name"]


def _parse(token: str) -> tuple[str, str]:
    try:
        namespace, name = orjson.loads(base64.urlsafe_b64decode(token))
    except (ValueError, TypeError) as error:
        raise status.bad_request(f"continue key is not valid: {error}") from error
    return namespace, name


def list_bytes(info: ResourceInfo, found: Page) -> bytes:
    """A list as JSON without parsing or encoding any of its objects again."""
    meta = {"resourceVersion": str(found.rv)}
    if found.token:
        meta["continue"] = found.token
        meta["remainingItemCount"] = found.remaining  # type: ignore[assignment]
    head = orjson.dumps({"kind": info.list_kind, "apiVersion": info.api_version, "metadata": meta})
    return b"".join((head[:-1], b',"items":[', b",".join([entry.raw for entry in found.entries]), b"]}\n"))
