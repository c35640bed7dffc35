"""What is said in a group: news from members and nodes to the controller, orders from it, settings and the outcome."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True)
class Settings:
    """How many members there may be, and how patient the controller is. Times in seconds."""

    least: int = 1  # nothing trains below
    most: int = 1
    patience: float = 5.0  # that fewer than `most` wait for more, at the start
    join_patience: float = 10.0  # that a ready member waits for others on their way: one change in place of two
    stall_factor: float = 10.0  # of the usual time of a step: longer is a hang...
    stall_floor: float = 30.0  # ...unless it is shorter than this
    first_patience: float = 900.0  # for what was never seen to end: a first step may compile
    stop_patience: float = 5.0  # in which a member whose group broke must come to a halt
    failures: int = 3  # in a row without progress end the run


class Fault(StrEnum):
    """Why a member's training ended early."""

    PEER = "peer"  # the connection to another rank; not this one's fault
    OWN = "own"  # an exception of its code: the process is replaced
    USER = "user"  # the user must change something: the run ends


@dataclass(frozen=True)
class Failure:
    """What a person is told of an exception."""

    fault: Fault
    text: str  # the last line of the traceback, or the user error's message
    reason: str = ""  # of a user error


# News.


@dataclass(frozen=True)
class NodeUp:
    """A place for members. A node may have several, one for each of its devices."""

    place: str
    address: str


@dataclass(frozen=True)
class NodeDown:
    """Ray says that the node is dead."""

    place: str


@dataclass(frozen=True)
class Ready:
    """A member has imported, built and loaded what it needs, and may join."""

    member: int


@dataclass(frozen=True)
class Began:
    """A member trains in a new group, from this step on."""

    member: int
    generation: int
    step: int
    source: str = ""  # memory, snapshot, checkpoint, or empty at the start


@dataclass(frozen=True)
class Beat:
    """A sign of life."""

    member: int
    generation: int
    step: int  # optimizer steps done
    idle: float = 0.0  # seconds since it last came from one thing to the next
    usual: float | None = None  # seconds that what it does now usually takes
    steps_here: int = 0  # steps done in this generation


@dataclass(frozen=True)
class Refused:
    """A hold came too late: the member is already at `step`."""

    member: int
    generation: int
    step: int


@dataclass(frozen=True)
class Held:
    """A member waits after `step`, as it was told."""

    member: int
    generation: int
    step: int


@dataclass(frozen=True)
class Broke:
    """A member's training ended with an exception; the process lives."""

    member: int
    generation: int
    step: int
    failure: Failure


@dataclass(frozen=True)
class Finished:
    """A member is through with the whole training. Rank 0 has the metrics."""

    member: int
    generation: int
    step: int
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Gone:
    """A member's process is no more. `counts` unless it is known that its node went, which is nobody's failure."""

    member: int
    why: str
    counts: bool = True


@dataclass(frozen=True)
class Notice:
    """The pod at this address will be taken away in a moment."""

    address: str


@dataclass(frozen=True)
class Scale:
    """The wanted sizes changed."""

    least: int
    most: int


@dataclass(frozen=True)
class Stop:
    """The whole run shall come to a halt with a checkpoint."""


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


News = (
    NodeUp | NodeDown | Ready | Began | Beat | Refused | Held | Broke | Finished | Gone | Notice | Scale | Stop | Tick
)

# Orders.


@dataclass(frozen=True)
class Start:
    """Start a member's process at a place."""

    member: int
    place: str
    address: str


@dataclass(frozen=True)
class Form:
    """Members form a process group: the ranks are their positions."""

    generation: int
    members: tuple[int, ...]


@dataclass(frozen=True)
class Hold:
    """Wait after this step; `save` makes it durable first."""

    generation: int
    members: tuple[int, ...]
    step: int
    save: bool = False


@dataclass(frozen=True)
class Abort:
    """Leave the group at once: a peer is lost. Connections to `lost` addresses must be cut from this side."""

    generation: int
    members: tuple[int, ...]
    lost: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kill:
    """End the process, whatever it does."""

    member: int


@dataclass(frozen=True)
class Say:
    """What a person should know now; empty when all is well again."""

    text: str


@dataclass(frozen=True)
class Recovered:
    """After a failure the first step is done."""

    seconds: float
    lost_steps: int
    restarts: int


@dataclass(frozen=True)
class Outcome:
    """The end of a run."""

    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    failure: Failure | None = None
    stopped: bool = False


Order = Start | Form | Hold | Abort | Kill | Say | Recovered | Outcome
