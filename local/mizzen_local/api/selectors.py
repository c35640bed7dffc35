"""Label and field selectors, parsed once and matched against stored objects."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from mizzen_local.api import names
from mizzen_local.api.status import bad_request
from mizzen_local.client import Object

Matcher = Callable[[Object], bool]

_SET = re.compile(r"^\s*(?P<key>[^\s!=,()]+)\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)\s*$")
_PLAIN = re.compile(r"^\s*(?P<key>[^\s!=,()<>]+)\s*(?P<op>==|=|!=)\s*(?P<value>[^\s!=,()]*)\s*$")
_EXISTS = re.compile(r"^\s*(?P<no>!?)\s*(?P<key>[^\s!=,()]+)\s*$")

# field labels beyond metadata.name and metadata.namespace, by bucket
FIELDS: dict[str, frozenset[str]] = {
    "/pods": frozenset(
        {"spec.nodeName", "status.phase", "spec.restartPolicy", "spec.serviceAccountName", "status.podIP"}
    ),
    "/events": frozenset(
        {
            *(f"involvedObject.{name}" for name in ("kind", "namespace", "name", "uid", "apiVersion", "fieldPath")),
            "involvedObject.resourceVersion", "reason", "reportingComponent", "source", "type",
        }
    ),
    "/secrets": frozenset({"type"}),
    "/nodes": frozenset({"spec.unschedulable"}),
    "/namespaces": frozenset({"status.phase"}),
    "/services": frozenset({"spec.clusterIP", "spec.type"}),
    "apps/replicasets": frozenset({"status.replicas"}),
    "batch/jobs": frozenset({"status.successful"}),
}  # fmt: skip


def split_terms(text: str) -> list[str]:
    """Split at commas outside parentheses."""
    return [term for term in re.split(r",(?![^(]*\))", text) if term.strip()]


@lru_cache(maxsize=1024)
def labels(text: str) -> Matcher | None:
    """A matcher over objects for a label selector; None when the selector is empty."""
    if not text.strip():
        return None
    tests = [_label_term(term) for term in split_terms(text)]

    def matches(obj: Object) -> bool:
        have = obj["metadata"].get("labels") or {}
        return all(test(have) for test in tests)

    return matches


def _label_term(term: str) -> Callable[[dict[str, str]], bool]:
    found = _SET.match(term) or _PLAIN.match(term) or _EXISTS.match(term)
    if found and (problem := names.qualified_problem(found["key"])):
        raise bad_request(f'unable to parse requirement: <nil>: Invalid value: "{found["key"]}": {problem}')
    if found := _SET.match(term):
        key, values = found["key"], {value.strip() for value in found["values"].split(",")}
        if found["op"] == "in":
            return lambda have: have.get(key) in values
        return lambda have: have.get(key) not in values
    if found := _PLAIN.match(term):
        key, value = found["key"], found["value"]
        if found["op"] == "!=":
            return lambda have: have.get(key) != value
        return lambda have: have.get(key) == value
    if found := _EXISTS.match(term):
        key = found["key"]
        return (lambda have: key not in have) if found["no"] else (lambda have: key in have)
    raise bad_request(f"unable to parse requirement: invalid label selector {term.strip()!r}")


@lru_cache(maxsize=1024)
def fields(bucket: str, text: str, extra: frozenset[str] = frozenset()) -> Matcher | None:
    """A matcher for a field selector; a field that the resource does not offer is the client's mistake."""
    if not text.strip():
        return None
    allowed = FIELDS.get(bucket, frozenset()) | {"metadata.name", "metadata.namespace"} | extra
    tests: list[tuple[tuple[str, ...], bool, str]] = []
    for term in split_terms(text):
        found = _PLAIN.match(term)
        if found is None:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{term}'")
        if found["key"] not in allowed:
            raise bad_request(_unsupported(bucket, found["key"], allowed))
        tests.append((tuple(found["key"].split(".")), found["op"] != "!=", found["value"]))
    return lambda obj: all((_text_at(obj, path) == value) is equal for path, equal, value in tests)


def _unsupported(bucket: str, key: str, allowed: frozenset[str]) -> str:
    if bucket in FIELDS:
        return f"field label not supported: {key}"
    known = ", ".join(f'"{name}"' for name in sorted(allowed))
    return f'"{key}" is not a known field selector: only {known}'


def exact_name(text: str) -> str | None:
    """The name in a selector that asks for one object only, so that a list need not look at the others."""
    found = _PLAIN.match(text) if "metadata.name" in text and "," not in text else None
    return found["value"] if found and found["key"] == "metadata.name" and found["op"] != "!=" else None


def _text_at(obj: Any, path: tuple[str, ...]) -> str:
    if path == ("status", "successful"):
        path = ("status", "succeeded")
    if path == ("source",):
        path = ("source", "component")
    for part in path:
        obj = obj.get(part) if isinstance(obj, dict) else None
    if obj is None:
        return "false" if path == ("spec", "unschedulable") else ""
    return str(obj).lower() if isinstance(obj, bool) else str(obj)
