"""What a request asks for: its path taken apart, its query, its body decoded, the form of answer it accepts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, unquote

import orjson
import yaml

from mizzen_local.api import protobuf, status
from mizzen_local.client import ApiError, Object

MAX_BODY = 3 * 1024 * 1024
PATCH_TYPES = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_MOST_NODES = 1_000_000  # of a YAML document, aliases written out
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


PLAIN = Form()


@lru_cache(maxsize=512)
def negotiate(accept: str) -> Form | None:
    """The first form that we speak of an Accept header; None where there is none (406)."""
    if not accept:
        return PLAIN
    for item in accept.split(","):
        media, *raw = [part.strip() for part in item.split(";")]
        options = dict(part.split("=", 1) for part in raw if "=" in part)
        if media not in ("application/json", "*/*", "application/*"):
            continue
        kind = options.get("as", "")
        if kind in ("", "Table", "PartialObjectMetadata", "PartialObjectMetadataList", "APIGroupDiscoveryList"):
            return Form(kind.removesuffix("List") if kind.startswith("Partial") else kind, options.get("v", "v1"))
    return None


def decode(content_type: str, body: bytes, optional: bool = False) -> Any:
    """A body as JSON values; YAML where the content type says so."""
    media = content_type.partition(";")[0].strip()
    if not body and optional:
        return {}
    if media in ("application/yaml", "application/apply-patch+yaml"):
        return _yaml(body)
    if media == protobuf.MEDIA:
        return protobuf.decode(body)
    if media and media != "application/json" and media not in PATCH_TYPES:
        raise status.unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: application/json,"
            " application/yaml"
        )
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise status.bad_request(f"couldn't get version/kind; json parse error: {error}") from error


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as Kubernetes reads it: dates stay text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _yaml(body: bytes) -> Any:
    try:
        return orjson.loads(body)  # clients that apply mostly send JSON, which is YAML, too
    except orjson.JSONDecodeError:
        pass
    try:
        found = yaml.load(body, _Loader)  # noqa: S506
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise status.bad_request(f"error parsing YAML: {error}") from error
    if _nodes(found, {}) > _MOST_NODES:
        raise status.bad_request("error parsing YAML: document contains excessive aliasing")
    return found


def _nodes(value: Any, known: dict[int, int]) -> int:
    """How many nodes a value has when each alias is written out; a value within itself has too many."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = _MOST_NODES + 1
        known[id(value)] = 1 + sum(
            _nodes(item, known) for item in (value.values() if isinstance(value, dict) else value)
        )
    return known[id(value)]


def too_large() -> ApiError:
    message = f"Request entity too large: limit is {MAX_BODY}"
    return ApiError(413, "RequestEntityTooLarge", message)


def error_object(error: ApiError) -> Object:
    return status.to_status(error)
