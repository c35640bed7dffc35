"""Bodies become JSON values here; what cannot be read is told in the words of the real server's decoders."""

from __future__ import annotations

import json
from typing import Any

import orjson
import yaml

from mizzen_local.api import protobuf, status
from mizzen_local.api.golang import Undecodable, go_type, json_error
from mizzen_local.client import Object

_MOST_NODES = 1_000_000  # of a YAML document, aliases written out
_SUMMARY = 30  # bytes of a body that an error shows
_HEADER = (
    r'struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }'  # Go's words
)
_YAML = frozenset({"application/yaml", "application/apply-patch+yaml"})
_OBJECTS = frozenset({"", "application/json"})


def decode(media: str, body: bytes, problems: list[str]) -> Any:
    """The value of a body. Duplicate fields, of which the last one counts, are added to `problems`."""
    if media in _YAML:
        return _yaml(body, problems)
    if media == protobuf.MEDIA:
        return protobuf.decode(body)
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Undecodable(json_error(body)) from error
    # cheaper than a parser that looks at each name: a lost duplicate takes its colon along
    if body.count(b":") > orjson.dumps(found).count(b":"):
        problems += _duplicates(body)
    return found


def of_object(kind: str, content_type: str, body: bytes, problems: list[str], optional: bool = False) -> Any:
    """The body of a request that sends an object of this kind."""
    if not body and optional:
        return {}
    media = media_type(content_type)
    if media not in _OBJECTS and media not in _YAML and media != protobuf.MEDIA:
        raise status.unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: application/json,"
            f" application/yaml, {protobuf.MEDIA}"
        )
    try:
        found = decode(media, body, problems)
    except Undecodable as error:
        why = str(error) if media in _YAML else f"couldn't get version/kind; json parse error: {error}"
        raise _unrecognized(kind, why, body) from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        why = f"json: cannot unmarshal {go_type(found)} into Go value of type {_HEADER}"
        raise _unrecognized(kind, f"couldn't get version/kind; json parse error: {why}", body)
    return found


def check_custom(api_version: str, kind: str, body: Object, raw: bytes) -> None:
    """Custom resources say what they are; for built-in kinds the address is enough."""
    if not body.get("kind"):
        text = raw.decode(errors="replace")
        raise _unrecognized(kind, f"Object 'Kind' is missing in '{text}'", raw)
    if not body.get("apiVersion"):
        what = f"API version in the data () does not match the expected API version ({api_version})"
        raise status.bad_request(f"the {what}")


def of_patch(kind: str, body: bytes, problems: list[str]) -> Any:
    """The body of a json, merge, strategic or apply patch."""
    if kind == "apply":
        return _of_apply(body, problems)
    wanted, go_name = (list, "[]handlers.jsonPatchOp") if kind == "json" else (dict, "map[string]interface {}")
    try:
        found = decode("", body, problems)
        if not isinstance(found, wanted):
            raise Undecodable(f"json: cannot unmarshal {go_type(found)} into Go value of type {go_name}")
    except Undecodable as error:
        raise status.bad_request(f"{'' if kind == 'strategic' else 'error decoding patch: '}{error}") from error
    return found


def _of_apply(body: bytes, problems: list[str]) -> Any:
    words = "error converting YAML to JSON: "
    strict: list[str] = []
    try:
        found = _yaml(body, strict)
    except Undecodable as error:
        raise status.bad_request(f"error decoding YAML: {words}{error}") from error
    problems += [f"{words if text.startswith('yaml') else ''}{text}" for text in strict]
    if found is not None and not isinstance(found, dict):
        why = f"json: cannot unmarshal {go_type(found)} into Go value of type map[string]interface {{}}"
        raise status.bad_request(f"error decoding YAML: error unmarshaling JSON: while decoding JSON: {why}")
    return found or {}


def media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip()


def _unrecognized(kind: str, why: str, body: bytes) -> Exception:
    start = body[:_SUMMARY]
    shown = start.decode(errors="replace") if start.startswith(b"{") else start.hex() or "<empty>"
    more = " ..." if len(body) > _SUMMARY else ""
    return status.bad_request(f"the object provided is unrecognized (must be of type {kind}): {why} ({shown}{more})")


def _duplicates(body: bytes) -> list[str]:
    """The places of names that an object has twice, in the order of the document."""
    found: list[str] = []

    class Pairs(list[tuple[str, Any]]):
        """An object as it was written."""

    def look(value: Any, path: str) -> None:
        if isinstance(value, Pairs):
            seen: set[str] = set()
            for name, item in value:
                place = f"{path}.{name}" if path else name
                if name in seen:
                    found.append(f'duplicate field "{place}"')
                seen.add(name)
                look(item, place)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                look(item, f"{path}[{index}]")

    look(json.loads(body, object_pairs_hook=Pairs), "")
    return list(dict.fromkeys(found))


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as Kubernetes reads it: dates stay text, and a name that comes twice is noted."""

    problems: list[str]

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key.value in seen:
                line = key.start_mark.line + 1
                self.problems.append(f'yaml: unmarshal errors:\n  line {line}: key "{key.value}" already set in map')
            if isinstance(key.value, str):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _yaml(body: bytes, problems: list[str]) -> Any:
    try:
        found = orjson.loads(body)  # clients that apply mostly send JSON, which is YAML, too
    except orjson.JSONDecodeError:
        pass
    else:
        if body.count(b":") > orjson.dumps(found).count(b":"):
            problems += _duplicates(body)
        return found
    loader = _Loader(body)
    loader.problems = problems
    try:
        found = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark and error.problem_mark.line else ""
        raise Undecodable(f"yaml: {line}{error.problem or error.context or 'malformed'}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise Undecodable(f"yaml: {error}") from error
    finally:
        loader.dispose()
    if _nodes(found, {}) > _MOST_NODES:
        raise Undecodable("yaml: document contains excessive aliasing")
    return _keyed_by_text(found)


def _keyed_by_text(value: Any) -> Any:
    """YAML's numbers and booleans may be keys; JSON's are text."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else _as_text(key): _keyed_by_text(item) for key, item in value.items()}
    return [_keyed_by_text(item) for item in value] if isinstance(value, list) else value


def _as_text(key: Any) -> str:
    return str(key).lower() if isinstance(key, bool) else "null" if key is None else str(key)


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
