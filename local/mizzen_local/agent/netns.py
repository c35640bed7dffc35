"""A network namespace for the node: addresses of its own for pods and Services, and a link to the host.

A real API server takes no loopback addresses for pods, and the machine's own addresses belong to the machine. So the
agent and its pods move into a namespace where whole ranges are local, which Linux calls AnyIP:

    host: API server, 10.222.0.1 ── veth ── 10.222.0.2: kubelet endpoint, pods: 10.244.0.0/16, Services: 10.96.0.0/16

The host has routes to both ranges, so an API server there reaches pods and webhooks as on any cluster. The agent
itself talks to the API server through sockets of the host, so it need not be reachable from the namespace.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import ipaddress
import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class NetworkError(Exception):
    """The namespace cannot be made; one line that says why."""


@dataclass(frozen=True)
class Plan:
    """What the namespace looks like; `link` is a range of at least four addresses between host and node."""

    name: str
    pods: str = "10.244.0.0/16"
    services: str = "10.96.0.0/16"
    link: str = "10.222.0.0/30"

    def __post_init__(self) -> None:
        try:
            networks = [ipaddress.ip_network(text) for text in (self.pods, self.services, self.link)]
        except ValueError as error:
            raise NetworkError(f"not an address range: {error}") from None
        if any(network.is_loopback for network in networks):
            raise NetworkError(
                "in a network namespace, ranges must not be loopback addresses: use for example 10.244.0.0/16"
            )
        if any(
            a.overlaps(b)
            for a, b in ((networks[0], networks[1]), (networks[0], networks[2]), (networks[1], networks[2]))
        ):
            raise NetworkError(f"these ranges overlap: {self.pods}, {self.services}, {self.link}")

    @property
    def host(self) -> str:
        return str(ipaddress.ip_network(self.link)[1])

    @property
    def node(self) -> str:
        return str(ipaddress.ip_network(self.link)[2])

    @property
    def outer(self) -> str:
        """The host's end of the link; such names have 15 letters at most."""
        return f"mz{hashlib.sha256(self.name.encode()).hexdigest()[:8]}h"

    def commands(self) -> list[list[str]]:
        """For `ip`, in order; those that come after the first two may be repeated."""
        outer, inner = self.outer, f"{self.outer[:-1]}n"
        length = self.link.partition("/")[2]
        inside = ["-n", self.name]
        return [
            ["netns", "add", self.name],
            ["link", "add", outer, "type", "veth", "peer", "name", inner, "netns", self.name],
            ["addr", "replace", f"{self.host}/{length}", "dev", outer],
            ["link", "set", outer, "up"],
            [*inside, "link", "set", "lo", "up"],
            [*inside, "addr", "replace", f"{self.node}/{length}", "dev", inner],
            [*inside, "link", "set", inner, "up"],
            [*inside, "route", "replace", "default", "via", self.host],
            *([*inside, "route", "replace", "local", range_, "dev", "lo"] for range_ in (self.pods, self.services)),
            *(["route", "replace", range_, "via", self.node, "dev", outer] for range_ in (self.pods, self.services)),
        ]


class Namespace:
    """Made by `create`; this process is inside from `enter` on, except for sockets from `host_socket`."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._path = Path("/run/netns") / plan.name
        self._home, self._inside = -1, -1

    @classmethod
    def create(cls, plan: Plan) -> Namespace:
        """Make it, or take over what an earlier agent left."""
        if os.geteuid():
            raise NetworkError("--network-namespace needs root: it makes a namespace and a link to it")
        if shutil.which("ip") is None:
            raise NetworkError("--network-namespace needs the command `ip` (Debian: apt install iproute2)")
        found = cls(plan)
        commands = plan.commands()
        if found._path.exists():
            commands = commands[2:]
        try:
            for command in commands:
                _ip(command)
        except NetworkError:
            found.remove()
            raise
        return found

    def enter(self) -> None:
        """Before any thread is started: threads that exist stay where they are."""
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._inside = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        _set(self._inside)

    def host_socket(self, address: tuple[Any, ...]) -> socket.socket:
        """A socket that belongs to the host's network; for `aiohttp` and the service proxy."""
        family, kind, protocol = address[:3]
        _set(self._home)
        try:
            found = socket.socket(family, kind, protocol)
        finally:
            _set(self._inside)
        found.setblocking(False)
        return found

    def claim(self, address: str) -> None:
        """Give a pod's address to the loopback device: programs such as gloo look their own up among the interfaces."""
        with contextlib.suppress(NetworkError):  # without it the pod is reachable all the same
            _ip(["addr", "replace", f"{address}/32", "dev", "lo"])

    def release(self, address: str) -> None:
        with contextlib.suppress(NetworkError):
            _ip(["addr", "delete", f"{address}/32", "dev", "lo"])

    def remove(self) -> None:
        """With the link go its routes; processes that are left over keep an empty namespace alive until they end."""
        if self._home >= 0:
            _set(self._home)
            os.close(self._home)
            os.close(self._inside)
            self._home = self._inside = -1
        for command in (["link", "delete", self.plan.outer], ["netns", "delete", self.plan.name]):
            with contextlib.suppress(NetworkError):
                _ip(command)


def _set(descriptor: int) -> None:
    if _libc.setns(descriptor, _NEWNET):
        raise OSError(ctypes.get_errno(), "cannot change the network namespace")


def _ip(arguments: list[str]) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NetworkError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
