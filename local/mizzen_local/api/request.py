"""What a request asks for: its path taken apart, its query, and the form of answer that it accepts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import parse_qsl, unquote

from mizzen_local.api import status
from mizzen_local.client import ApiError

MAX_BODY = 3 * 1024 * 1024
PATCH_TYPES = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}
VALIDATIONS = ("", "Ignore", "Strict", "Warn")
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_NAMESPACE_SUBRESOURCES = ("status", "finalize")


@dataclass(frozen=True, slots=True)
class Target:
    """A resource path: `namespace` is empty for cluster scope, `name` for collections."""

    group: str
    version: str
    resource: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""


@lru_cache(maxsize=4096)
def parse_path(path: str) -> Target | None:
    """The target of a path below /api or /apis; None for discovery and everything else."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if parts[0] == "api" and len(parts) >= 3:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) >= 4:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    if rest[0] == "namespaces" and len(rest) >= 3 and not (len(rest) == 3 and rest[2] in _NAMESPACE_SUBRESOURCES):
        namespace, rest = rest[1], rest[2:]
    rest += [""] * (3 - len(rest))
    return Target(group, version, rest[0], namespace, rest[1], rest[2], "/".join(rest[3:]))


@lru_cache(maxsize=256)
def parse_query(query: bytes) -> dict[str, str]:
    """The last value of each parameter. The result is shared: do not change it."""
    return dict(parse_qsl(query.decode(errors="replace"), keep_blank_values=True))


def integer(query: dict[str, str], name: str) -> int | None:
    """A whole number of the query; None where it is not given."""
    text = query.get(name)
    if not text:
        return None
    if not _INTEGER.fullmatch(text):
        raise status.bad_request(f'{name}: Invalid value: "{text}": strconv.ParseInt: invalid syntax')
    return int(text)


def is_true(query: dict[str, str], name: str) -> bool:
    return name in query and query[name] not in ("false", "0")


@dataclass(frozen=True, slots=True)
class Form:
    """How to answer: `kind` is empty for plain objects, else Table, PartialObjectMetadata or APIGroupDiscoveryList."""

    kind: str = ""
    version: str = "v1"
    yaml: bool = False


PLAIN = Form()


@lru_cache(maxsize=512)
def negotiate(accept: str) -> Form | None:
    """The first form that we speak of an Accept header; None where there is none (406)."""
    if not accept:
        return PLAIN
    for item in accept.split(","):
        media, *raw = [part.strip() for part in item.split(";")]
        options = dict(part.split("=", 1) for part in raw if "=" in part)
        if media == "application/yaml" and "as" not in options:
            return Form(yaml=True)
        if media not in ("application/json", "*/*", "application/*"):
            continue
        kind = options.get("as", "")
        if kind in ("", "Table", "PartialObjectMetadata", "PartialObjectMetadataList", "APIGroupDiscoveryList"):
            return Form(kind.removesuffix("List") if kind.startswith("Partial") else kind, options.get("v", "v1"))
    return None


def check_write(verb: str, kind: str, query: dict[str, str]) -> None:
    """The options of a create, update or patch (of type `kind`); raises 422 where one is not allowed."""
    causes, manager = [], query.get("fieldManager", "")
    if kind == "apply" and not manager:
        causes.append(status.required("fieldManager", "is required for apply patch"))
    if kind not in ("", "apply") and "force" in query:
        causes.append(status.forbidden_field("force", "may not be specified for non-apply patch"))
    if len(manager.encode()) > 128:
        causes.append(status.Cause("fieldManager", "FieldValueTooLong", "Too long: may not be more than 128 bytes"))
    for place, letter in enumerate(manager):
        if not letter.isprintable():
            detail = f"invalid character U+{ord(letter):04X} (at position {place})"
            causes.append(status.invalid_value("fieldManager", manager, detail))
    causes += check_dry_run(query.get("dryRun"))
    if query.get("fieldValidation", "") not in VALIDATIONS:
        causes.append(status.unsupported("fieldValidation", query["fieldValidation"], list(VALIDATIONS)))
    if causes:
        raise status.invalid(f"{verb.capitalize()}Options", "meta.k8s.io", "", causes)


def check_dry_run(value: str | None) -> list[status.Cause]:
    return [] if value in (None, "", "All") else [status.unsupported("dryRun", [value], ["All"])]


def too_large() -> ApiError:
    message = f"Request entity too large: limit is {MAX_BODY}"
    return ApiError(413, "RequestEntityTooLarge", message)
