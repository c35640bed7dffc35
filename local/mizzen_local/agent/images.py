"""Images: from an image's name to the local command that it stands for. Tags and digests are ignored."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

import yaml

_OUR_USER = 65532  # as in docker/
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Image:
    """`path` goes before the system's PATH; `entrypoint` is what runs when the container gives no command.

    `user` is whom it runs as where the pod does not say.
    """

    path: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    user: int = 0

    def environment(self) -> dict[str, str]:
        return {"PATH": ":".join((*self.path, SYSTEM_PATH)), **self.env}


class UnknownImageError(LookupError):
    """Says which image is not in the table, and what is."""


def repository(reference: str) -> str:
    """`registry:5000/a/b:v1@sha256:...` is `registry:5000/a/b`; Docker Hub's long and short names are one."""
    name = reference.partition("@")[0]
    head, slash, last = name.rpartition("/")
    name = head + slash + last.partition(":")[0]
    for prefix in ("docker.io/library/", "docker.io/", "index.docker.io/"):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


class Images:
    def __init__(self, table: dict[str, Image]) -> None:
        self._table = {repository(name): image for name, image in table.items()}

    @classmethod
    def default(cls, extra: Path | None = None) -> Images:
        """Our own images and a few of the field, from the environment that runs us; `extra` is a YAML file."""
        here = str(Path(sys.executable).parent)
        venv = {"VIRTUAL_ENV": sys.prefix} if sys.prefix != sys.base_prefix else {}
        ours = {
            name: Image((here,), (command,), venv, 0 if name == "traefik" else _OUR_USER)
            for name, command in {
                "ghcr.io/mizzen-dev/operator": "mizzen-operator",
                "ghcr.io/mizzen-dev/runtime": "mizzen",
                "ghcr.io/mizzen-dev/mlflow": "mlflow",
                "traefik": "traefik",
            }.items()
        }
        shells = {
            name: Image((here,), (shell,))
            for name, shell in {"busybox": "sh", "debian": "bash", "alpine": "sh", "python": "python3"}.items()
        }
        table = {**ours, **shells}
        if extra is not None:
            for name, entry in (yaml.safe_load(extra.read_text()) or {}).items():
                table[name] = Image(
                    tuple(entry.get("path") or (here,)),
                    tuple(entry.get("entrypoint") or ()),
                    {k: str(v) for k, v in (entry.get("env") or {}).items()},
                    int(entry.get("user") or 0),
                )
        return cls(table)

    def find(self, reference: str) -> Image:
        name = repository(reference)
        if name not in self._table:
            known = ", ".join(sorted(self._table))
            raise UnknownImageError(
                f'image "{reference}" is not in the table of this node, which runs pods as local processes. '
                f"It knows: {known}. Add it with `mizzen up --images FILE`."
            )
        return self._table[name]


def executable(image: Image) -> str | None:
    """Where the image's entrypoint is on this machine, if it is installed."""
    return shutil.which(image.entrypoint[0], path=image.environment()["PATH"]) if image.entrypoint else os.devnull
