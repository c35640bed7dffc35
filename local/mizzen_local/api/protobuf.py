"""Reads Kubernetes' protobuf bodies, which Go clients send for built-in kinds, into the same JSON as everybody's.

Only the field numbers are our own table (`protobuf_fields.txt`); types come from the published schemas. Answers are
always JSON, which every client accepts beside protobuf.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import orjson

from mizzen_local.api import definitions, schema
from mizzen_local.api.schema import Node
from mizzen_local.api.status import bad_request, unsupported_media_type

MEDIA = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."


class Field(NamedTuple):
    """A field by its JSON name; `keep` says that its zero value means something; `inline` is another message."""

    name: str
    keep: bool
    inline: str


@cache
def _table() -> dict[str, dict[int, Field]]:
    text = (files("mizzen_local.api") / "protobuf_fields.txt").read_text()
    found = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        message, *entries = line.split(" ")
        fields = {}
        for entry in entries:
            number, name = entry.split(":", 1)
            inline = name[1:] if name.startswith(">") else ""
            fields[int(number.rstrip("*"))] = Field("" if inline else name, number.endswith("*"), inline)
        found[message] = fields
    return found


def decode(body: bytes) -> Any:
    """A `k8s\\0` envelope as a JSON object."""
    if not body.startswith(_MAGIC):
        raise bad_request("the protobuf body does not start with the Kubernetes prefix")
    try:
        envelope = {number: value for number, _, value in _fields(body[len(_MAGIC) :])}
        header = {number: value for number, _, value in _fields(envelope.get(1, b""))}
        api_version, kind = header.get(1, b"").decode(), header.get(2, b"").decode()
        raw = envelope.get(2, b"")
        if envelope.get(4, b"").decode() == "application/json":
            return orjson.loads(raw)
        name = _message_of(api_version, kind)
        return {"apiVersion": api_version, "kind": kind, **_message(name, _node_of(name), raw)}
    except (IndexError, struct.error, UnicodeDecodeError, ValueError) as error:
        raise bad_request(f"the protobuf body cannot be read: {error}") from error


def _message_of(api_version: str, kind: str) -> str:
    group, _, version = api_version.rpartition("/")
    candidates = (f"{group.split('.')[0] or 'core'}.{version}.{kind}", f"meta.v1.{kind}")
    for name in candidates:
        if name in _table():
            return name
    raise unsupported_media_type(
        f"{kind} in {api_version} cannot be read as protobuf - accepted media types include: application/json"
    )


def _node_of(message: str) -> Node:
    prefix = _META if message.startswith("meta.v1.") else f"io.k8s.api.{message.rsplit('.', 1)[0]}."
    return schema.named(prefix + message.rsplit(".", 1)[1])


def _fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """(field number, wire type, value) of a message: integers for varints, bytes for everything with a length."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        value: Any
        if wire == 0:
            value, at = _varint(data, at)
        elif wire == 2:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("unexpected end")
            value, at = data[at : at + size], at + size
        elif wire == 1:
            value, at = struct.unpack_from("<d", data, at)[0], at + 8
        elif wire == 5:
            value, at = struct.unpack_from("<f", data, at)[0], at + 4
        else:
            raise ValueError(f"wire type {wire}")
        yield number, wire, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _message(name: str, node: Node, data: bytes) -> dict[str, Any]:
    fields = _table().get(name, {})
    out: dict[str, Any] = {}
    for number, wire, raw in _fields(data):
        field = fields.get(number)
        if field is None:
            continue
        if field.inline:
            out |= _message(field.inline, node, raw)
            continue
        below = node.field(field.name)
        if below is None:
            continue
        if below.type == "array":
            out.setdefault(field.name, []).extend(_items(below.items, wire, raw))
        elif below.is_map and below.type == "object":
            entry = {number: (kind, value) for number, kind, value in _fields(raw)}
            key = entry.get(1, (2, b""))[1].decode()
            value = entry.get(2, (2, b""))[1]
            if below.values.type == "array":  # a list as a map's value is a message of its own
                found = [item for _, w, v in _fields(value) for item in _items(below.values.items, w, v)]
                out.setdefault(field.name, {})[key] = found
            else:
                out.setdefault(field.name, {})[key] = _value(below.values, value)
        else:
            value = _value(below, raw)
            if value not in (None, "", 0, False, {}) or (field.keep and value is not None):
                out[field.name] = value
    return out


def _items(node: Node, wire: int, raw: Any) -> list[Any]:
    if node.type == "integer" and wire == 2:  # packed
        found, at = [], 0
        while at < len(raw):
            number, at = _varint(raw, at)
            found.append(_signed(number))
        return found
    return [_value(node, raw)]


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _value(node: Node, raw: Any) -> Any:  # noqa: PLR0911
    if node.type == "boolean":
        return bool(raw)
    if node.type == "integer":
        return _signed(raw)
    if node.type == "number":
        return raw
    if node.format == "quantity":
        return next((value.decode() for number, _, value in _fields(raw) if number == 1), "")
    if node.format == "int-or-string":
        parts = {number: value for number, _, value in _fields(raw)}
        return parts.get(3, b"").decode() if parts.get(1) else _signed(parts.get(2, 0))
    if node.format == "date-time":
        return _time(raw)
    if node.format == "byte":
        return base64.b64encode(raw).decode()
    if node.type == "string":
        return raw.decode()
    if node.preserve and not node.props:  # free JSON travels as bytes
        body = next((value for number, _, value in _fields(raw) if number == 1), b"")
        return orjson.loads(body) if body else None
    return _message(_name(node), node, raw)


def _time(raw: bytes) -> str | None:
    parts = {number: value for number, _, value in _fields(raw)}
    seconds, nanos = _signed(parts.get(1, 0)), parts.get(2, 0)
    if not seconds and not nanos:
        return None
    moment = datetime.fromtimestamp(seconds, UTC)
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{nanos // 1000:06d}Z" if nanos else f"{text}Z"


def _name(node: Node) -> str:
    """The message of an object's schema, by the definition that it was compiled from."""
    definition = node.definition
    if definition.startswith(_META):
        return f"meta.v1.{definition.removeprefix(_META)}"
    return definition.removeprefix("io.k8s.api.")


assert definitions.OBJECT_META.startswith(_META)
