"""Which loopback addresses a cluster gives to its Services and pods: several clusters on one machine keep apart."""

from __future__ import annotations

import ipaddress
import json
import logging
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from mizzen_local.agent.sandbox import write_json

_log = logging.getLogger(__name__)
_CHOICES = 10
_CLAIM_PORT = 6400


@dataclass(frozen=True)
class Ranges:
    services: str = "127.20.0.0/16"
    pods: str = "127.30.0.0/16"


class Claim:
    """Held while the cluster runs: a socket on the last address of the Service range, which dies with its process."""

    def __init__(self, ranges: Ranges, holder: socket.socket | None) -> None:
        self.ranges, self._holder = ranges, holder

    def release(self) -> None:
        if self._holder is not None:
            self._holder.close()


def _hold(ranges: Ranges) -> socket.socket | None:
    holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        holder.bind((str(ipaddress.ip_network(ranges.services)[-2]), _CLAIM_PORT))
        holder.listen(1)
    except OSError:
        holder.close()
        return None
    return holder


def claim(record: Path, services: str = "", pods: str = "") -> Claim:
    """What was asked for, else what this cluster had before (Services keep their addresses), else the first free."""
    before = Ranges(**json.loads(record.read_text())) if record.exists() else None
    if services or pods or before:
        default = before or Ranges()
        ranges = Ranges(services or default.services, pods or default.pods)
        holder = _hold(ranges)
        if holder is None:
            _log.warning("another cluster on this machine uses %s: addresses may collide", ranges.services)
    else:
        for number in range(_CHOICES):
            ranges = Ranges(f"127.{20 + number}.0.0/16", f"127.{30 + number}.0.0/16")
            holder = _hold(ranges)
            if holder is not None:
                break
    write_json(str(record), asdict(ranges))
    return Claim(ranges, holder)
