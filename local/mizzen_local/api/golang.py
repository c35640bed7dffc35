"""Values, types and decoding errors in the words of Go, which clients of the real server know."""

from __future__ import annotations

import json
from typing import Any

# what Python's parser says, and Go's
_EXPECTED = {
    "Expecting property name": "looking for beginning of object key string",
    "Illegal trailing comma": "looking for beginning of object key string",
    "Expecting ':'": "after object key",
    "Extra data": "after top-level value",
    "Invalid control": "in string literal",
}


class Undecodable(Exception):  # noqa: N818
    """The body is no value of the form that its content type promises; the message is the decoder's own."""


def go_type(value: Any) -> str:
    """A JSON value's type as Go's decoder names it."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, float):
        return f"number {value!r}"
    return {dict: "object", list: "array", str: "string", int: "number"}.get(type(value), "null")


def go_text(value: Any) -> str:
    """A value as Go prints it with %v."""
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{go_text(item)}' for key, item in sorted(value.items()))}]"
    if isinstance(value, list):
        return f"[{' '.join(go_text(item) for item in value)}]"
    if value is None:
        return "<nil>"
    return str(value).lower() if isinstance(value, bool) else str(value)


def json_error(body: bytes) -> str:
    """What Go's JSON decoder says about a malformed body."""
    text = body.decode(errors="replace")
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        rest = text[error.pos :].lstrip()
        if not rest or error.msg.startswith("Unterminated"):
            return "unexpected end of JSON input"
        inside = "object key:value pair" if "}" in rest or "{" in text[: error.pos] else "array element"
        words = {**_EXPECTED, "Expecting ','": f"after {inside}"}
        place = next((word for start, word in words.items() if error.msg.startswith(start)), "")
        if error.msg.startswith("Illegal trailing comma"):
            rest = rest[1:].lstrip() or rest
        return f"invalid character {_quoted(rest[0])} {place or 'looking for beginning of value'}"
    except RecursionError:
        return "exceeded max depth"
    return "invalid character in string literal"


def _quoted(letter: str) -> str:
    return {"'": r"'\''", '"': "'\"'", "\n": r"'\n'", "\t": r"'\t'"}.get(letter, f"'{letter}'")
