"""The part of SPDY/3 that `kubectl port-forward` tunnels through its WebSocket: streams, data, pings."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

SYN_STREAM, SYN_REPLY, RST_STREAM, PING, GOAWAY = 1, 2, 3, 6, 7
FIN = 0x01

# the dictionary that the protocol gives the compressor: words with their lengths, then plain text
_WORDS = [
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
]
_WORDS += ["200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin"]
_TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    "404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = b"".join(struct.pack(">I", len(word)) + word.encode() for word in _WORDS) + _TEXT.encode()


@dataclass(frozen=True)
class Frame:
    """A frame that arrived: `kind` is 0 for data."""

    kind: int
    stream: int
    fin: bool = False
    data: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class Session:
    """One connection's framing: bytes in, frames out, and frames to bytes. Header compression is a state of both."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def feed(self, data: bytes) -> Iterator[Frame]:
        self._buffer += data
        while len(self._buffer) >= 8:
            size = int.from_bytes(self._buffer[5:8], "big")
            if len(self._buffer) < 8 + size:
                return
            head, body = bytes(self._buffer[:8]), bytes(self._buffer[8 : 8 + size])
            del self._buffer[: 8 + size]
            yield self._frame(head, body)

    def _frame(self, head: bytes, body: bytes) -> Frame:
        fin = bool(head[4] & FIN)
        if not head[0] & 0x80:
            return Frame(0, int.from_bytes(head[:4], "big"), fin, body)
        kind = int.from_bytes(head[2:4], "big")
        number = int.from_bytes(body[:4], "big")
        if kind == SYN_STREAM:
            return Frame(kind, number & 0x7FFFFFFF, fin, headers=self._headers(body[10:]))
        return Frame(kind, number, fin, body)

    def _headers(self, block: bytes) -> dict[str, str]:
        data = self._inflate.decompress(block)
        count, at = struct.unpack_from(">I", data)[0], 4
        words: list[str] = []
        for _ in range(2 * count):
            size = struct.unpack_from(">I", data, at)[0]
            words.append(data[at + 4 : at + 4 + size].decode())
            at += 4 + size
        return dict(zip(words[::2], words[1::2], strict=True))

    def reply(self, stream: int) -> bytes:
        """Accept a stream."""
        block = self._deflate.compress(struct.pack(">I", 0)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return _control(SYN_REPLY, struct.pack(">I", stream) + block)


def data(stream: int, payload: bytes, fin: bool = False) -> bytes:
    return struct.pack(">I", stream) + bytes([FIN if fin else 0]) + len(payload).to_bytes(3, "big") + payload


def pong(number: int) -> bytes:
    return _control(PING, struct.pack(">I", number))


def _control(kind: int, body: bytes) -> bytes:
    return struct.pack(">HH", 0x8003, kind) + b"\x00" + len(body).to_bytes(3, "big") + body
