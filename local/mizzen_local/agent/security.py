"""As whom a container runs: from the securityContext of pod and container, and the image's own user."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mizzen_local.agent.environment import ConfigError
from mizzen_local.agent.images import Image
from mizzen_local.agent.volumes import Mount
from mizzen_local.client import Object


@dataclass(frozen=True)
class Identity:
    """User and group as the container sees them; files belong to it as they do to the node agent."""

    uid: int
    gid: int


def _setting(pod: Object, container: Object, name: str) -> int | bool | None:
    """The container's word counts before the pod's."""
    for context in (container.get("securityContext") or {}, pod["spec"].get("securityContext") or {}):
        if context.get(name) is not None:
            found: int | bool = context[name]
            return found
    return None


def identity(pod: Object, container: Object, image: Image) -> Identity:
    """Raises ConfigError where the pod must not run as root and would."""
    given = _setting(pod, container, "runAsUser")
    uid = image.user if given is None else int(given)
    group = _setting(pod, container, "runAsGroup")
    meta = pod["metadata"]
    where = f'(pod: "{meta["name"]}_{meta["namespace"]}({meta["uid"]})", container: {container["name"]})'
    if _setting(pod, container, "runAsNonRoot") and uid == 0:
        if given is None:
            raise ConfigError(f"container has runAsNonRoot and image will run as root {where}")
        raise ConfigError(f"container's runAsUser breaks non-root policy {where}")
    return Identity(uid, (image.user if given is None else 0) if group is None else int(group))


def accounts(folder: Path, user: Identity, image: Image) -> list[Mount]:
    """An /etc/passwd that knows the image's own user; of any other number an image knows no name."""
    if not user.uid or user.uid != image.user:
        return []
    path = folder / "passwd"
    own = f"nonroot:x:{user.uid}:{user.uid}::/tmp:/bin/sh\n"
    path.write_text(Path("/etc/passwd").read_text() + own)
    return [Mount(str(path), "/etc/passwd", True)]
