"""The OpenAPI v2 document as protobuf, the one form in which kubectl asks for it (gnostic's `openapi.v2.Document`).

Schemas are complete; paths are left out, for nobody reads them from this form.
"""

from __future__ import annotations

from typing import Any

import orjson

from mizzen_local.client import Object

MEDIA = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
SENT_AS = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"  # no @, which a content type must not have
_TEXTS = {"$ref": 1, "format": 2, "title": 3, "description": 4, "pattern": 13}
_NUMBERS = {"maxLength": 11, "minLength": 12, "maxItems": 14, "minItems": 15, "maxProperties": 17, "minProperties": 18}


def encode(document: Object) -> bytes:
    info = document["info"]
    return b"".join(
        [
            _text(1, document["swagger"]),
            _message(2, _text(1, info["title"]) + _text(2, info["version"])),
            _message(9, _named_schemas(document["definitions"])),
        ]
    )


def _named_schemas(schemas: Object) -> bytes:
    entries = (_text(1, name) + _message(2, _schema(schema)) for name, schema in schemas.items())
    return b"".join(_message(1, entry) for entry in entries)


def _schema(schema: Object) -> bytes:
    parts = [_text(number, schema[name]) for name, number in _TEXTS.items() if isinstance(schema.get(name), str)]
    parts += [_tag(number, 0) + _varint(schema[name]) for name, number in _NUMBERS.items() if name in schema]
    if "default" in schema:
        parts.append(_message(5, _any(schema["default"])))
    parts += [_text(19, name) for name in schema.get("required") or []]
    parts += [_message(20, _any(value)) for value in schema.get("enum") or []]
    additional = schema.get("additionalProperties")
    if isinstance(additional, dict):
        parts.append(_message(21, _message(1, _schema(additional))))
    if "type" in schema:
        parts.append(_message(22, _text(1, schema["type"])))
    if isinstance(schema.get("items"), dict):
        parts.append(_message(23, _message(1, _schema(schema["items"]))))
    parts += [_message(24, _schema(option)) for option in schema.get("allOf") or []]
    if schema.get("properties"):
        parts.append(_message(25, _named_schemas(schema["properties"])))
    for name, value in schema.items():
        if name.startswith("x-"):
            parts.append(_message(31, _text(1, name) + _message(2, _any(value))))
    return b"".join(parts)


def _any(value: Any) -> bytes:
    """A value as YAML, of which JSON is a part."""
    return _text(2, orjson.dumps(value).decode())


def _text(number: int, text: str) -> bytes:
    return _message(number, text.encode())


def _message(number: int, body: bytes) -> bytes:
    return _tag(number, 2) + _varint(len(body)) + body


def _tag(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
