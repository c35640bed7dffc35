"""A gRPC health check (grpc.health.v1.Health/Check) in as much HTTP/2 as one small question and its answer need.

The gRPC library would bring threads and megabytes into each node agent for five frames.
"""

from __future__ import annotations

import asyncio
import struct

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_PADDED = 8
_SERVING = 1
_PATH = "/grpc.health.v1.Health/Check"


def _frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body


def _string(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()  # HPACK: no Huffman code, shorter than 127


def request(authority: str, service: str) -> bytes:
    """The whole of what the client says; headers are literals that enter no table."""
    fields = {":method": "POST", ":scheme": "http", ":path": _PATH, ":authority": authority}
    fields |= {"content-type": "application/grpc", "te": "trailers", "user-agent": "kube-probe/1.37"}
    block = b"".join(b"\x00" + _string(name) + _string(value) for name, value in fields.items())
    message = b"\x0a" + _string(service) if service else b""  # HealthCheckRequest.service
    body = b"\x00" + struct.pack(">I", len(message)) + message
    headers = _frame(_HEADERS, _END_HEADERS, 1, block)
    return _PREFACE + _frame(_SETTINGS, 0, 0) + headers + _frame(_DATA, _END_STREAM, 1, body)


def status(message: bytes) -> int:
    """HealthCheckResponse.status; 0 is unknown, and what is not written is 0."""
    return message[1] if message[:1] == b"\x08" and len(message) > 1 else 0


async def check(host: str, port: int, service: str, seconds: float) -> str | None:
    """None when the service is serving, otherwise why not. Raises OSError and TimeoutError."""
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(request(f"{host}:{port}", service))
            answer = await _answer(reader, writer)
        except asyncio.IncompleteReadError:
            return "error: health rpc probe failed: the connection was closed"
        finally:
            writer.close()
    if len(answer) < 5:
        return "error: health rpc probe failed: the server answered without a health status"
    found = status(answer[5:])
    return None if found == _SERVING else f'service unhealthy (responded with "{_word(found)}")'


def _word(found: int) -> str:
    return {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}.get(found, str(found))


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """The data of the stream, until it ends."""
    found = b""
    while True:
        head = await reader.readexactly(9)
        body = await reader.readexactly(int.from_bytes(head[:3], "big"))
        kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big") & 0x7FFFFFFF
        if kind == _SETTINGS and not flags & _ACK:
            writer.write(_frame(_SETTINGS, _ACK, 0))
        elif kind == _PING and not flags & _ACK:
            writer.write(_frame(_PING, _ACK, 0, body))
        elif kind == _DATA and stream == 1:
            found += body[1 : len(body) - body[0]] if flags & _PADDED else body
        if kind in (_GOAWAY, _RESET) or (stream == 1 and kind in (_DATA, _HEADERS) and flags & _END_STREAM):
            return found
