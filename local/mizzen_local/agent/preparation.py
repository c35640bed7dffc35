"""What has to be known before a container starts: whose it is, its environment, its command and what it mounts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mizzen_local.agent.environment import Fetch, environment
from mizzen_local.agent.images import Image
from mizzen_local.agent.launch import arguments, base_environment, launch_spec
from mizzen_local.agent.security import accounts, identity
from mizzen_local.agent.surroundings import Node
from mizzen_local.agent.volumes import Mount, Volumes
from mizzen_local.client import Object
from mizzen_local.objects import meta


@dataclass(frozen=True)
class Place:
    """Where the pod is on this machine; `temporary` becomes the container's /tmp."""

    folder: Path
    ip: str
    volumes: Volumes
    temporary: Path


async def prepare(node: Node, pod: Object, spec: Object, image: Image, place: Place, fetch: Fetch) -> dict[str, Any]:
    """What the launcher is told. Raises ConfigError and VolumeError where the manifest asks for what is not there."""
    hostname = (pod["spec"].get("hostname") or meta(pod)["name"])[:63]
    own = {"podIP": place.ip, "podIPs": [{"ip": place.ip}], "hostIP": node.host_ip}
    known = {**pod, "status": {**(pod.get("status") or {}), **own}}
    user = identity(pod, spec, image)
    base = base_environment(image, hostname, node.service_environment(pod), user.uid)
    env = await environment(known, spec, base, fetch, node.allocatable)
    mounts = [
        Mount(str(place.temporary), "/tmp"),  # noqa: S108
        Mount(str(place.folder / "hosts"), "/etc/hosts"),
        *accounts(place.folder, user, image),
        *place.volumes.mounts(spec, env),
    ]
    return launch_spec(
        spec,
        argv=arguments(spec, image, env),
        env=env,
        hostname=hostname,
        mounts=mounts,
        hidden=node.hidden,
        network={} if pod["spec"].get("hostNetwork") else {"ip": place.ip, "ports": str(place.folder / "ports")},
        identity=user,
    )
