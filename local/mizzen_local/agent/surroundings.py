"""What a pod's worker needs of its node."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mizzen_local.agent.images import Images
from mizzen_local.client import Object
from mizzen_local.http_client import HttpClient
from mizzen_local.recorder import Recorder


@dataclass(frozen=True)
class Limits:
    """Back-off between restarts, in seconds."""

    backoff_base: float = 1.0
    backoff_max: float = 60.0


class Node(Protocol):
    client: HttpClient
    recorder: Recorder
    images: Images
    limits: Limits
    host_ip: str
    state: Path
    hidden: tuple[Path, ...]
    allocatable: dict[str, str]

    def hosts_for(self, pod: Object, ip: str) -> str: ...
    def service_environment(self, pod: Object) -> dict[str, str]: ...
