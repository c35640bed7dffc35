"""A port space for each pod, without a network namespace: `0.0.0.0:80` in a pod is port 80 of the pod's own address.

Containers bind to all addresses, as Kubernetes lets them. Here pods share the machine's ports, and the machine has
addresses that are not loopback. So `bind` and `connect` of a container are stopped by seccomp and looked at by its
supervisor (seccomp_unotify(2)): a wildcard or localhost address becomes the pod's, everything else goes on as it is.

    the container's process ── bind(0.0.0.0:80) ──▶ kernel ──▶ supervisor: binds the same socket to 127.30.0.6:80
                            ◀────────────── the supervisor's result ──┘

It is about meaning, not about security: who wants to listen elsewhere, can. Linux 5.19 or newer; no privilege needed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import ipaddress
import os
import select
import socket
import struct
from pathlib import Path
from typing import NamedTuple


class _Machine(NamedTuple):
    audit: int
    seccomp: int
    bind: int
    connect: int


_MACHINES = {
    "x86_64": _Machine(0xC000003E, 317, 49, 42),
    "aarch64": _Machine(0xC00000B7, 277, 200, 203),
}
_PIDFD_GETFD = 438
_NO_NEW_PRIVS = 38
_SET_MODE_FILTER, _NEW_LISTENER, _WAIT_KILLABLE = 1, 1 << 3, 1 << 5
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_RECEIVE, _SEND, _CONTINUE = 0xC0502100, 0xC0182101, 1  # ioctls of the listener, and the flag of an answer
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")  # id, thread, flags, syscall, architecture, instruction, arguments
_ANSWER = struct.Struct("=QqiI")  # id, value, -errno, flags

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _machine() -> _Machine:
    name = os.uname().machine
    if name not in _MACHINES:
        raise OSError(errno.ENOSYS, f"pods need x86_64 or aarch64, this machine is {name}")
    return _MACHINES[name]


def confine() -> int:
    """Stop `bind` and `connect` of this process and all that it starts; answers the listener that hears of them."""
    machine = _machine()
    statements = [
        (_LOAD, 0, 0, 4),
        (_JUMP_EQUAL, 0, 3, machine.audit),
        (_LOAD, 0, 0, 0),
        (_JUMP_EQUAL, 2, 0, machine.bind),
        (_JUMP_EQUAL, 1, 0, machine.connect),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _NOTIFY),
    ]
    code = b"".join(struct.pack("=HBBI", *statement) for statement in statements)
    program = _Program(len(statements), code)
    _libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    # Without WAIT_KILLABLE a signal, such as Go's scheduler sends all the time, would repeat a `bind` that was done.
    flags = _NEW_LISTENER | _WAIT_KILLABLE
    listener = int(_libc.syscall(machine.seccomp, _SET_MODE_FILTER, flags, ctypes.byref(program)))
    if listener < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp user notification (Linux 5.19 or newer): {os.strerror(number)}")
    return listener


class PortSpace:
    """Made by the supervisor, taken along by the process that it forks: what the one asks, the other answers.

    `folder` is the pod's: its containers note there which ports they bound, for localhost means all of them.
    """

    def __init__(self, ip: str, folder: str) -> None:
        self._ip, self._folder = ip, Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._bind = _machine().bind
        self._ours, self._theirs = socket.socketpair()
        self._waiting = select.poll()

    def enter(self) -> None:
        """In the container's process, last thing before it becomes the command."""
        listener = confine()
        socket.send_fds(self._theirs, [b"."], [listener])
        os.close(listener)

    def leave(self) -> None:
        """In the supervisor, once the container's process was forked."""
        self._theirs.close()
        self._waiting.register(self._ours, select.POLLIN)

    def answer_until(self, descriptor: int) -> None:
        """Answer calls until there is something to read from `descriptor`."""
        self._waiting.register(descriptor, select.POLLIN)
        while True:
            events = dict(self._waiting.poll())
            if descriptor in events:
                self._waiting.unregister(descriptor)
                return
            for source, event in events.items():
                if source == self._ours.fileno():
                    self._take_listener()
                elif event & select.POLLIN:
                    self._answer(source)
                else:  # all who could call have ended
                    self._waiting.unregister(source)

    def _take_listener(self) -> None:
        _, files, _, _ = socket.recv_fds(self._ours, 1, 1)
        self._waiting.unregister(self._ours)
        for listener in files:  # none, if it ended before it became the command
            self._waiting.register(listener, select.POLLIN)

    def _answer(self, listener: int) -> None:
        notification = bytearray(_NOTIFICATION.size)
        if not _control(listener, _RECEIVE, notification):
            return
        identity, thread, _, call, _, _, descriptor, address, length, *_ = _NOTIFICATION.unpack(notification)
        try:
            done = self._handle(call == self._bind, thread, descriptor, address, min(length, 28))
            answer = (0, 0, 0) if done else (0, 0, _CONTINUE)
        except OSError as error:
            answer = (0, -(error.errno or errno.EINVAL), 0)
        _control(listener, _SEND, bytearray(_ANSWER.pack(identity, *answer)))

    def _handle(self, binds: bool, thread: int, descriptor: int, address: int, length: int) -> bool:
        """Whether the call is done; if not, the kernel goes on with it. Raises OSError for the caller."""
        try:
            memory = os.open(f"/proc/{thread}/mem", os.O_RDWR)
        except OSError:
            return False
        try:
            raw = os.pread(memory, length, address)
            target = _Address.parse(raw)
            if target is None:
                return False
            if binds:
                return self._bind_socket(thread, descriptor, target)
            if target.is_localhost and (self._folder / str(target.port)).exists():
                os.pwrite(memory, target.bytes_of(self._ip), address + target.offset)
        finally:
            os.close(memory)
        return False

    def _bind_socket(self, thread: int, descriptor: int, target: _Address) -> bool:
        if not (target.ip.is_unspecified or target.is_localhost or str(target.ip) == self._ip):
            return False
        with _socket_of(thread, descriptor) as found:
            if found.type == socket.SOCK_DGRAM and not target.port:
                return False  # a client's: from a loopback address it could not reach the world
            if target.version6 and found.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
                raise OSError(errno.EADDRNOTAVAIL, "pods have no IPv6")
            found.bind((f"::ffff:{self._ip}" if target.version6 else self._ip, target.port))
            if found.type == socket.SOCK_STREAM:
                (self._folder / str(found.getsockname()[1])).touch()
        return True


class _Address(NamedTuple):
    """What a sockaddr_in or sockaddr_in6 says."""

    version6: bool
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int

    @classmethod
    def parse(cls, raw: bytes) -> _Address | None:
        family = struct.unpack_from("=H", raw)[0] if len(raw) >= 2 else -1
        if family == socket.AF_INET and len(raw) >= 8:
            return cls(False, ipaddress.IPv4Address(raw[4:8]), struct.unpack_from(">H", raw, 2)[0])
        if family == socket.AF_INET6 and len(raw) >= 24:
            ip = ipaddress.IPv6Address(raw[8:24])
            return cls(True, ip.ipv4_mapped or ip, struct.unpack_from(">H", raw, 2)[0])
        return None

    @property
    def is_localhost(self) -> bool:
        """A port of localhost; port 0 is not: whatever the kernel chooses there is free for this pod too."""
        return self.port != 0 and str(self.ip) in {"127.0.0.1", "::1"}

    @property
    def offset(self) -> int:
        """Where the address begins in the structure."""
        return 8 if self.version6 else 4

    def bytes_of(self, ip: str) -> bytes:
        packed = socket.inet_aton(ip)
        return bytes(10) + b"\xff\xff" + packed if self.version6 else packed


def _control(listener: int, request: int, buffer: bytearray) -> bool:
    """Whether the caller still waits: it may have been killed meanwhile."""
    try:
        fcntl.ioctl(listener, request, buffer, True)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def _socket_of(thread: int, descriptor: int) -> socket.socket:
    """The very socket that another process has under this number."""
    status = Path(f"/proc/{thread}/status").read_text()
    process = int(status.partition("\nTgid:")[2].split(None, 1)[0])
    pidfd = os.pidfd_open(process)
    try:
        copied = int(_libc.syscall(_PIDFD_GETFD, pidfd, descriptor, 0))
    finally:
        os.close(pidfd)
    if copied < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return socket.socket(fileno=copied)
