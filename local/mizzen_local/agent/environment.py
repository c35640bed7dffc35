"""A container's environment and arguments: from `env`, `envFrom` and references to plain strings."""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Callable
from typing import Any

from mizzen_local.client import ApiError, Object, Resource
from mizzen_local.objects import container_requests, quantity
from mizzen_local.resources import CONFIG_MAPS, SECRETS

Fetch = Callable[[Resource, str], Awaitable[Object]]
_REFERENCE = re.compile(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")


class ConfigError(Exception):
    """The pod refers to something that is not there: CreateContainerConfigError."""


def expand(text: str, env: dict[str, str]) -> str:
    """Kubernetes' `$(NAME)`: unknown names stay as they are, `$$` is one `$`."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return env.get(match[1], match[0])

    return _REFERENCE.sub(value, text)


def field_value(pod: Object, path: str) -> str:
    """What the downward API gives for a fieldPath."""
    if match := _SUBSCRIPT.fullmatch(path):
        return str((pod["metadata"].get(match[1]) or {}).get(match[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        found = pod["metadata"].get(path.rpartition(".")[2]) or {}
        return "\n".join(f'{key}="{value}"' for key, value in sorted(found.items()))
    node: Any = pod
    if path == "status.hostIPs":
        path = "status.hostIP"
    for part in path.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    if path == "status.podIPs":
        return ",".join(entry["ip"] for entry in node or [])
    return "" if node is None else str(node)


def resource_value(container: Object, reference: Object, allocatable: dict[str, str]) -> str:
    """`requests.cpu` and the like; a limit that is not set is what the node has."""
    section, _, name = reference["resource"].partition(".")
    if section == "limits":
        limits = (container.get("resources") or {}).get("limits") or {}
        amount = quantity(limits.get(name, allocatable.get(name, "0")))
    else:
        amount = container_requests(container).get(name, 0.0)
    divisor = quantity(reference.get("divisor") or "1") or 1.0
    return str(-int(-amount // divisor))


async def _from_map(fetch: Fetch, resource: Resource, name: str, optional: bool) -> dict[str, str] | None:
    try:
        found = await fetch(resource, name)
    except ApiError as error:
        if error.code != 404:
            raise
        if optional:
            return None
        kind = "configmap" if resource == CONFIG_MAPS else "secret"
        raise ConfigError(f'{kind} "{name}" not found') from None
    data = dict(found.get("data") or {})
    if resource == SECRETS:
        return {key: base64.b64decode(value).decode(errors="replace") for key, value in data.items()}
    return data


async def _one(pod: Object, container: Object, source: Object, fetch: Fetch, allocatable: dict[str, str]) -> str | None:
    if "fieldRef" in source:
        return field_value(pod, source["fieldRef"]["fieldPath"])
    if "resourceFieldRef" in source:
        return resource_value(container, source["resourceFieldRef"], allocatable)
    for key, resource in (("configMapKeyRef", CONFIG_MAPS), ("secretKeyRef", SECRETS)):
        if key in source:
            reference = source[key]
            data = await _from_map(fetch, resource, reference["name"], bool(reference.get("optional")))
            if data is None or (reference["key"] not in data and reference.get("optional")):
                return None
            if reference["key"] not in data:
                kind = "ConfigMap" if resource == CONFIG_MAPS else "Secret"
                where = f"{kind} {pod['metadata']['namespace']}/{reference['name']}"
                raise ConfigError(f"couldn't find key {reference['key']} in {where}")
            return data[reference["key"]]
    return None


async def environment(
    pod: Object, container: Object, base: dict[str, str], fetch: Fetch, allocatable: dict[str, str]
) -> dict[str, str]:
    """`base` is what image and node give; later entries win, and may refer to earlier ones."""
    env = dict(base)
    for source in container.get("envFrom") or []:
        for key, resource in (("configMapRef", CONFIG_MAPS), ("secretRef", SECRETS)):
            if key in source:
                data = await _from_map(fetch, resource, source[key]["name"], bool(source[key].get("optional")))
                env.update({f"{source.get('prefix', '')}{name}": value for name, value in (data or {}).items()})
    for entry in container.get("env") or []:
        if entry.get("valueFrom"):
            value = await _one(pod, container, entry["valueFrom"], fetch, allocatable)
            if value is not None:
                env[entry["name"]] = value
        else:
            env[entry["name"]] = expand(entry.get("value") or "", env)
    return env
