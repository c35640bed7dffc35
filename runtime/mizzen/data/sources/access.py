"""Credentials of one source: from the values of a Secret to what object stores and web servers want."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mizzen.errors import UserError
from mizzen_api.conditions import Reason
from mizzen_api.dataset_sources import ACCESS_KEYS, Source


@dataclass(frozen=True)
class Access:
    """What a Secret says. Its text shows nothing of it, so that no log and no traceback can."""

    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    endpoint: str | None = None
    region: str | None = None
    username: str | None = field(default=None, repr=False)
    password: str = field(default="", repr=False)
    token: str | None = field(default=None, repr=False)

    @property
    def authorization(self) -> str | None:
        """The header of that name."""
        if self.token is not None:
            return f"Bearer {self.token}"
        if self.username is None:
            return None
        return f"Basic {b64encode(f'{self.username}:{self.password}'.encode()).decode()}"


ANYBODY = Access()  # credentials come from the environment or the identity of the pod


def access_of(source: Source, secrets: Mapping[str, str]) -> Access:
    """The access that a source's secretRef gives; `secrets` has its values as NAME/KEY.

    UserError where there is no such Secret, where its keys do not go together, or where the uri is of another kind.
    """
    if source.secret_ref is None or source.uri is None:
        return ANYBODY
    name = source.secret_ref.name
    found = {key: secrets[f"{name}/{key}"] for key in ACCESS_KEYS if f"{name}/{key}" in secrets}
    scheme = source.uri.partition("://")[0] if "://" in source.uri else ""
    wanted = _WANTED.get(scheme)
    if wanted is None:
        what = f"{scheme}://" if scheme else "paths"
        raise UserError(Reason.INVALID_PARAMETERS, f"secretRef is for s3:// and http(s)://, not for {what}")
    if not found.keys() & set(wanted):
        raise UserError(
            Reason.SOURCE_UNREADABLE,
            f"the Secret {name!r} has none of the keys that {scheme}:// can use: {', '.join(wanted)}",
        )
    if ("accessKeyId" in found) != ("secretAccessKey" in found):
        raise UserError(
            Reason.SOURCE_UNREADABLE, f"the Secret {name!r} needs both of accessKeyId and secretAccessKey, or neither"
        )
    fields = dict(zip(ACCESS_KEYS, _FIELDS, strict=True))
    return Access(**{fields[key]: value for key, value in found.items()})


def access_in(folder: Path) -> Access:
    """The access that a mounted Secret gives; anybody's where none is mounted."""
    found = {field: (folder / key) for key, field in zip(ACCESS_KEYS, _FIELDS, strict=True) if (folder / key).is_file()}
    return Access(**{field: file.read_text().strip() for field, file in found.items()}) if found else ANYBODY


_FIELDS = (
    "access_key_id", "secret_access_key", "session_token", "endpoint", "region", "username", "password", "token",
)  # fmt: skip
_S3 = ("accessKeyId", "secretAccessKey", "sessionToken", "endpoint", "region")
_HTTP = ("username", "password", "token")
_WANTED = {"s3": _S3, "s3a": _S3, "http": _HTTP, "https": _HTTP}
