"""Which loopback addresses a cluster gives to its Services and pods: several clusters on one machine keep apart."""

from __future__ import annotations

import ipaddress
import json
import logging
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from mizzen_local.agent.sandbox import write_json
from mizzen_local.state import StateError

_log = logging.getLogger(__name__)
_CHOICES = 10
_CLAIM_PORT = 6400
_LOOPBACK = ipaddress.IPv4Network("127.0.0.0/8")
_LOCALHOST = ipaddress.IPv4Address("127.0.0.1")
_LONGEST_PREFIX = 24  # room for some hundred Services or pods


@dataclass(frozen=True)
class Ranges:
    services: str = "127.20.0.0/16"
    pods: str = "127.30.0.0/16"


def network(text: str) -> ipaddress.IPv4Network:
    """A range that pods or Services may have; StateError says what is wrong with another."""
    try:
        found = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise StateError(f"{text!r} is no range of addresses ({error}); 127.30.0.0/16 is one") from None
    if not found.subnet_of(_LOOPBACK):
        raise StateError(f"{text!r} is not within 127.0.0.0/8, and pods are processes on this machine's loopback")
    if _LOCALHOST in found:
        raise StateError(f"{text!r} holds 127.0.0.1, where the machine's own servers listen")
    if found.prefixlen > _LONGEST_PREFIX:
        raise StateError(f"{text!r} is too small: it needs a prefix of /{_LONGEST_PREFIX} or shorter")
    return found


def _checked(ranges: Ranges) -> Ranges:
    if network(ranges.services).overlaps(network(ranges.pods)):
        raise StateError(f"the ranges of pods ({ranges.pods}) and Services ({ranges.services}) overlap")
    return ranges


def _before(record: Path) -> Ranges | None:
    """What this cluster had; a record that cannot be used is none."""
    try:
        return _checked(Ranges(**json.loads(record.read_text())))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, StateError) as error:
        _log.warning("%s is not used: %s", record, error)
        return None


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
    """What was asked for, else what this cluster had before (Services keep their addresses), else the first free.

    StateError where what was asked for cannot be, or another cluster runs there; nothing is recorded then.
    """
    before = _before(record)
    if services or pods or before:
        default = before or Ranges()
        ranges = _checked(Ranges(services or default.services, pods or default.pods))
        holder = _hold(ranges)
        if holder is None:
            raise StateError(
                f"another cluster on this machine uses {ranges.services}, which this one's Services have, too: stop it "
                "first with `mizzen down --state-dir ITS_FOLDER`"
            )
    else:
        for number in range(_CHOICES):
            ranges = Ranges(f"127.{20 + number}.0.0/16", f"127.{30 + number}.0.0/16")
            holder = _hold(ranges)
            if holder is not None:
                break
    write_json(str(record), asdict(ranges))
    return Claim(ranges, holder)
