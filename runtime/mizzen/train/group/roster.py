"""What the controller knows of members and of the places where they run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    HOLDING = "holding"
    BREAKING = "breaking"
    OVER = "over"


class Standing(StrEnum):
    """Of one member."""

    STARTING = "starting"  # imports, builds, loads
    READY = "ready"  # halted, and may join a group
    BUSY = "busy"  # in the group
    HELD = "held"  # in the group, waiting after a step
    FINISHED = "finished"  # in the group, through with all steps


@dataclass
class Member:
    """What is known of one member."""

    number: int
    place: str
    address: str
    since: float  # when it came to its standing
    heard: float
    standing: Standing = Standing.STARTING
    step: int = 0
    idle: float = 0.0
    usual: float | None = None
    leaving: bool = False

    def stand(self, standing: Standing, now: float, step: int) -> None:
        self.standing, self.since, self.heard, self.step = standing, now, now, step
        self.idle, self.usual = 0.0, None


@dataclass
class Place:
    """Where a member may run."""

    address: str
    up: bool = True
    failures: int = 0  # in a row, of members that died or failed here
    not_before: float = 0.0
    leaving: bool = False
