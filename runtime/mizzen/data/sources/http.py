"""Files behind http(s)://, by the standard library: nothing to install, and a download that ends early is noticed."""

from __future__ import annotations

import io
from http.client import HTTPException, HTTPResponse
from typing import Any, BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from mizzen.data.sources.access import ANYBODY, Access


def head(uri: str, timeout: float, access: Access = ANYBODY) -> tuple[int | None, str]:
    """Size and ETag (or time of change) as far as the server tells them."""
    try:
        with _answer(uri, "HEAD", timeout, access) as answer:
            size = answer.headers.get("Content-Length")
            stamp = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
            return (int(size) if size and size.isdigit() else None), stamp
    except HTTPError as error:
        error.close()
        if error.code in {403, 405, 501}:  # signed URLs and small servers know GET only
            return None, ""
        raise


def open_(uri: str, timeout: float, access: Access = ANYBODY) -> BinaryIO:
    return io.BufferedReader(_Body(_answer(uri, "GET", timeout, access)), 1 << 20)


def _answer(uri: str, method: str, timeout: float, access: Access) -> HTTPResponse:
    parts = urlsplit(uri)
    if parts.scheme not in {"http", "https"}:
        raise ValueError(f"{parts.scheme} is not http or https")
    user, _, host = parts.netloc.rpartition("@")
    request = Request(urlunsplit(parts._replace(netloc=host)), method=method)  # noqa: S310 (checked above)
    authorization = access.authorization or _in_the_uri(user)
    if authorization:
        request.add_header("Authorization", authorization)
    try:
        answer: HTTPResponse = build_opener(_Redirects).open(request, timeout=timeout)
    except HTTPError:
        raise
    except URLError as error:
        raise ConnectionError(str(error.reason)) from error
    except HTTPException as error:
        raise ConnectionError(f"{host} does not speak HTTP: {error!r}") from error
    return answer


def _in_the_uri(user: str) -> str | None:
    name, _, password = user.partition(":")
    return Access(username=unquote(name), password=unquote(password)).authorization if user else None


class _Redirects(HTTPRedirectHandler):
    """Another host that the server points to must not learn the credentials."""

    def redirect_request(self, req: Request, *rest: Any) -> Request | None:
        following = super().redirect_request(req, *rest)
        if following is not None and following.host != req.host:
            following.remove_header("Authorization")
        return following


class _Body(io.RawIOBase):
    """The body of an answer. http.client ends it quietly when the connection breaks."""

    def __init__(self, answer: HTTPResponse) -> None:
        self._answer = answer
        size = answer.headers.get("Content-Length")
        self._left = int(size) if size else None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            count = self._answer.readinto(buffer)
        except HTTPException as error:
            raise ConnectionError(f"the download broke off: {error!r}") from error
        if self._left is not None:
            self._left -= count
            if count == 0 and self._left > 0 and len(buffer):
                raise ConnectionError(f"the download broke off {self._left} bytes before its end")
        return count

    def close(self) -> None:
        self._answer.close()
        super().close()
