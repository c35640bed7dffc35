"""The /etc/hosts of a pod: cluster DNS as a file, rewritten in place whenever a Service or its endpoints change."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from mizzen_local.client import Object

_DOMAIN = "svc.cluster.local"


def service_addresses(service: Object, slices: Iterable[Object]) -> list[tuple[str, str]]:
    """(address, hostname of the pod or empty) that a Service's name stands for; headless ones stand for their pods."""
    spec = service["spec"]
    if spec.get("type") == "ExternalName":
        return []
    if spec.get("clusterIP") and spec["clusterIP"] != "None":
        return [(spec["clusterIP"], "")]
    found = []
    for piece in slices:
        for entry in piece.get("endpoints") or []:
            if (entry.get("conditions") or {}).get("ready", True):
                found.append((entry["addresses"][0], entry.get("hostname") or ""))
    return found


def render(
    namespace: str,
    own: tuple[str, str],
    entries: Iterable[tuple[str, str, list[tuple[str, str]]]],
    aliases: Iterable[Object] = (),
) -> str:
    """`own` is (pod IP, hostname); entries are (namespace, service, addresses). The pod's own namespace comes first."""
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback", f"{own[0]}\t{own[1]}"]
    for ns, name, addresses in sorted(entries, key=lambda e: (e[0] != namespace, e[0], e[1])):
        names = [f"{name}.{ns}.{_DOMAIN}", f"{name}.{ns}.svc", f"{name}.{ns}"]
        if ns == namespace:
            names.append(name)
        for address, hostname in addresses:
            extra = [f"{hostname}.{n}" for n in names] if hostname else []
            lines.append(f"{address}\t{' '.join(names + extra)}")
    for alias in aliases:
        lines.append(f"{alias['ip']}\t{' '.join(alias.get('hostnames') or [])}")
    return "\n".join(lines) + "\n"


def service_variables(services: Iterable[Object]) -> dict[str, str]:
    """`REDIS_SERVICE_HOST` and its kin, also in the form of Docker links, for the Services of one namespace."""
    found: dict[str, str] = {}
    for service in services:
        spec = service["spec"]
        ports = spec.get("ports") or []
        if spec.get("clusterIP") in (None, "", "None") or not ports:
            continue
        found.update(_variables(service["metadata"]["name"], spec["clusterIP"], ports))
    return found


def api_server_variables(host: str, port: int) -> dict[str, str]:
    return _variables("kubernetes", host, [{"name": "https", "port": port}])


def _variables(name: str, host: str, ports: list[Object]) -> dict[str, str]:
    prefix = name.upper().replace("-", "_")
    found = {f"{prefix}_SERVICE_HOST": host, f"{prefix}_SERVICE_PORT": str(ports[0]["port"])}
    for index, entry in enumerate(ports):
        number, protocol = entry["port"], entry.get("protocol", "TCP")
        url = f"{protocol.lower()}://{host}:{number}"
        if entry.get("name"):
            found[f"{prefix}_SERVICE_PORT_{entry['name'].upper().replace('-', '_')}"] = str(number)
        if index == 0:
            found[f"{prefix}_PORT"] = url
        link = f"{prefix}_PORT_{number}_{protocol}"
        found.update({link: url, f"{link}_PROTO": protocol.lower(), f"{link}_PORT": str(number), f"{link}_ADDR": host})
    return found


def write_in_place(path: Path, text: str) -> None:
    """Keeps the inode, which running containers have mounted."""
    data = text.encode()
    if path.exists() and path.read_bytes() == data:
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.pwrite(descriptor, data, 0)
        os.ftruncate(descriptor, len(data))
    finally:
        os.close(descriptor)
