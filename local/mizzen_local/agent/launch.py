"""What the launcher is told: from a container's manifest and its pod's volumes to the JSON that `sandbox.py` reads."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mizzen_local.agent.environment import ConfigError, expand
from mizzen_local.agent.images import Image
from mizzen_local.agent.security import Identity
from mizzen_local.agent.volumes import Mount
from mizzen_local.client import Object


def base_environment(image: Image, hostname: str, services: dict[str, str], user: int = 0) -> dict[str, str]:
    """What a container has before its manifest adds to it: nothing of the agent's own environment but root's HOME."""
    home = "/" if user else os.environ.get("HOME", "/")
    return {"HOME": home, "HOSTNAME": hostname, "LANG": "C.UTF-8", **image.environment(), **services}


def arguments(spec: Object, image: Image, env: dict[str, str]) -> list[str]:
    argv = [expand(part, env) for part in spec.get("command") or image.entrypoint]
    argv += [expand(part, env) for part in spec.get("args") or []]
    if not argv:
        raise ConfigError("no command is given, and the image has none")
    return argv


def launch_spec(
    spec: Object,
    *,
    argv: list[str],
    env: dict[str, str],
    hostname: str,
    mounts: list[Mount],
    hidden: Iterable[Path],
    network: dict[str, str],
    identity: Identity | None = None,
) -> dict[str, Any]:
    """`hidden` are folders of the host that no pod may see; what a pod needs of them is mounted.

    `network` is the pod's address and the folder of its ports, or nothing for a pod in the host's network.
    """
    read_only = bool((spec.get("securityContext") or {}).get("readOnlyRootFilesystem"))
    return {
        "argv": argv,
        "env": env,
        "cwd": spec.get("workingDir") or "/",
        "create_cwd": bool(spec.get("workingDir")) and not read_only,
        "hostname": hostname,
        **network,
        **({"uid": identity.uid, "gid": identity.gid} if identity and identity.uid else {}),
        "hide": [str(folder) for folder in hidden if folder not in Path(sys.prefix).parents],
        "mounts": [m.json() for m in sorted([*python_mounts(), *mounts], key=lambda m: m.target.count("/"))],
        "stdin": bool(spec.get("stdin")),
        "termination_path": spec.get("terminationMessagePath") or "/dev/termination-log",
        "read_only_root": read_only,
    }


def python_mounts() -> list[Mount]:
    """Where this Python and its packages lie, editable ones too, as far as a pod's own /tmp would cover them."""
    folders = {p for p in (sys.prefix, sys.base_prefix, *sys.path) if p.startswith("/tmp/") and Path(p).is_dir()}  # noqa: S108
    outermost = [f for f in folders if not any(Path(other) in Path(f).parents for other in folders)]
    return [Mount(folder, folder, True) for folder in sorted(outermost)]
