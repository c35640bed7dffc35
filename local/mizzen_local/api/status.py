"""Errors as the API server words them: every failure of a request is an `ApiError` that becomes a `Status` object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mizzen_local.client import ApiError, Object


@dataclass(frozen=True)
class Cause:
    """One field that is wrong; `reason` is the machine-readable word, `message` what a person reads after the field."""

    field: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message

    def to_json(self) -> Object:
        return {"reason": self.reason, "message": self.message, "field": self.field}


def required(field: str, detail: str = "") -> Cause:
    return Cause(field, "FieldValueRequired", f"Required value: {detail}" if detail else "Required value")


def shown(value: Any) -> str:
    """A value as Go's field errors print it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    import orjson

    return orjson.dumps(value).decode()


def invalid_value(field: str, value: Any, detail: str) -> Cause:
    return Cause(field, "FieldValueInvalid", f"Invalid value: {shown(value)}: {detail}")


def unsupported(field: str, value: Any, allowed: list[Any]) -> Cause:
    choices = ", ".join(shown(item) for item in allowed)
    return Cause(field, "FieldValueNotSupported", f"Unsupported value: {shown(value)}: supported values: {choices}")


def forbidden_field(field: str, detail: str) -> Cause:
    return Cause(field, "FieldValueForbidden", f"Forbidden: {detail}")


def duplicate(field: str, value: Any) -> Cause:
    return Cause(field, "FieldValueDuplicate", f"Duplicate value: {shown(value)}")


def qualified(plural: str, group: str) -> str:
    return f"{plural}.{group}" if group else plural


def not_found(plural: str, group: str, name: str) -> ApiError:
    details = {"name": name, **({"group": group} if group else {}), "kind": plural}
    return ApiError(404, "NotFound", f'{qualified(plural, group)} "{name}" not found', details)


def no_such_path() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource", {})


def already_exists(plural: str, group: str, name: str, prefix: str = "") -> ApiError:
    details = {"name": name, **({"group": group} if group else {}), "kind": plural}
    message = f'{prefix}{qualified(plural, group)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, details)


def conflict(plural: str, group: str, name: str, why: str = "") -> ApiError:
    details = {"name": name, **({"group": group} if group else {}), "kind": plural}
    why = why or ("the object has been modified; please apply your changes to the latest version and try again")
    message = f'Operation cannot be fulfilled on {qualified(plural, group)} "{name}": {why}'
    return ApiError(409, "Conflict", message, details)


def invalid(kind: str, group: str, name: str, causes: list[Cause]) -> ApiError:
    texts = [str(cause) for cause in causes]
    joined = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    details = {
        **({"name": name} if name else {}),
        **({"group": group} if group else {}),
        **({"kind": kind} if kind else {}),
        "causes": [cause.to_json() for cause in causes],
    }
    return ApiError(422, "Invalid", f'{qualified(kind, group)} "{name}" is invalid: {joined}', details)


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def internal(message: str) -> ApiError:
    """What the real server, too, answers with a bare 500, though the client is to blame."""
    return ApiError(500, "", message)


def forbidden(plural: str, group: str, name: str, why: str) -> ApiError:
    details = {**({"name": name} if name else {}), **({"group": group} if group else {}), "kind": plural}
    subject = f'{qualified(plural, group)} "{name}"' if name else qualified(plural, group)
    return ApiError(403, "Forbidden", f"{subject} is forbidden: {why}", details)


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def method_not_allowed() -> ApiError:
    return ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {})


def gone(message: str) -> ApiError:
    return ApiError(410, "Expired", message)


def unsupported_media_type(message: str) -> ApiError:
    return ApiError(415, "UnsupportedMediaType", message)


def unsupported_patch_type() -> ApiError:
    return ApiError(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})


def not_acceptable(media: list[str]) -> ApiError:
    message = f"406: Not Acceptable\n\nAvailable representations: {', '.join(media)}"
    return ApiError(406, "NotAcceptable", message, {})


def to_status(error: ApiError) -> Object:
    status: Object = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": error.message,
        **({"reason": error.reason} if error.reason else {}),
    }
    if error.details is not None:
        status["details"] = error.details
    status["code"] = error.code
    return status
