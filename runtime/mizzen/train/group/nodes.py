"""The group on Ray: members as actors on its nodes, their letters as news, the controller's orders as calls.

Ray needs seconds to say that a node is dead. The sockets between ranks tell within milliseconds, and a member that a
peer has lost is asked for at once, by a knock at its door: a kernel that refuses says that the process is no more.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mizzen.train.group import messages as m
from mizzen.train.group.job import Job
from mizzen.train.group.member import Letter, Member
from mizzen.train.group.process_group import Formation

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5  # a member's sign of life
KNOCK_AFTER = 2.0  # seconds of silence
KNOCK_SECONDS = 2.5  # that a kernel may take to answer: one lost packet is sent again after a second
NODES_SECONDS = 0.5
_THREADS = 8  # of an actor: polls, and orders that must not wait for them


@dataclass
class Actor:
    """A member's process, as the driver sees it."""

    number: int
    node_id: str
    address: str
    handle: Any
    heard: float
    pid: int = 0
    door: int = 0
    knocked: float = 0.0
    knocking: bool = False


@dataclass(frozen=True)
class Slots:
    """What a node offers: members on each, and what each of them takes of Ray's resources."""

    per_node: int = 1
    options: dict[str, Any] = field(default_factory=lambda: {"num_cpus": 1})


class Nodes:
    """Members on the nodes of the Ray cluster that this process is a driver of. One thread uses it."""

    def __init__(self, job: Job, slots: Slots, on_letter: Callable[[int, Letter], None]) -> None:
        self._job, self._slots, self._on_letter = job, slots, on_letter
        self._actors: dict[int, Actor] = {}
        self._polls: dict[Any, int] = {}  # reference → member
        self._places: dict[str, str] = {}  # place → address
        self._found: queue.SimpleQueue[m.News] = queue.SimpleQueue()  # by knocking threads
        self._looked = -NODES_SECONDS
        self._chores: list[Any] = []

    def news(self, seconds: float) -> Iterator[m.News]:
        """What happened; waits up to so many seconds for something."""
        yield from self._look_at_nodes()
        if self._polls:
            ready, _ = ray.wait(list(self._polls), num_returns=1, timeout=seconds)
            if ready:
                ready, _ = ray.wait(list(self._polls), num_returns=len(self._polls), timeout=0)
        else:
            ready = []
            time.sleep(min(seconds, 0.05))
        for reference in ready:
            yield from self._answer(reference)
        self._knock_at_silent_ones()
        while not self._found.empty():
            yield self._found.get()

    def start(self, order: m.Start) -> None:
        node_id = order.place.partition("/")[0]
        actor = ray.remote(Member).options(
            max_concurrency=_THREADS,
            max_restarts=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
            **self._slots.options,
        )
        handle = actor.remote(order.member, order.address, self._job)
        self._actors[order.member] = Actor(order.member, node_id, order.address, handle, time.monotonic())
        self._poll(order.member)

    def form(self, members: Iterable[int], formation: Callable[[int], Formation]) -> None:
        for rank, number in enumerate(members):
            if number in self._actors:
                self._actors[number].handle.form.remote(formation(rank))

    def hold(self, order: m.Hold) -> None:
        for actor in self._chosen(order.members):
            actor.handle.hold.remote(order.generation, order.step, order.save)

    def abort(self, order: m.Abort) -> None:
        for actor in self._chosen(order.members):
            actor.handle.abort.remote(order.generation, order.lost)
            self._knock(actor)  # the one that is lost may be among them

    def kill(self, number: int) -> None:
        """Also of a process that is stopped, and so hears nothing: by somebody on its node."""
        actor = self._actors.pop(number, None)
        if actor is None:
            return
        ray.kill(actor.handle, no_restart=True)
        if actor.pid:
            end = ray.remote(_end_process).options(
                num_cpus=0,
                max_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(actor.node_id, soft=False),
            )
            self._chores.append(end.remote(actor.pid))

    def close(self, seconds: float, *, keep: bool) -> None:
        """End all members; `keep` their snapshots for a run that goes on later."""
        calls = [actor.handle.close.remote(keep) for actor in self._actors.values()]
        if calls:
            ray.wait(calls, num_returns=len(calls), timeout=seconds)
        for actor in self._actors.values():
            ray.kill(actor.handle, no_restart=True)
        self._actors.clear()
        self._polls.clear()

    def processes(self) -> dict[int, tuple[str, int]]:
        return {actor.number: (actor.address, actor.pid) for actor in list(self._actors.values()) if actor.pid}

    def _chosen(self, members: Iterable[int]) -> list[Actor]:
        return [self._actors[number] for number in members if number in self._actors]

    def _look_at_nodes(self) -> Iterator[m.News]:
        now = time.monotonic()
        if now - self._looked < NODES_SECONDS:
            return
        self._looked = now
        here = {
            f"{node['NodeID']}/{slot}": node["NodeManagerAddress"]
            for node in ray.nodes()
            if node["Alive"] and node["Resources"].get("CPU")
            for slot in range(self._slots.per_node)
        }
        for place in [one for one in self._places if one not in here]:
            del self._places[place]
            yield m.NodeDown(place)
        for place, address in here.items():
            if place not in self._places:
                self._places[place] = address
                yield m.NodeUp(place, address)

    def _poll(self, number: int) -> None:
        self._polls[self._actors[number].handle.poll.remote(POLL_SECONDS)] = number

    def _answer(self, reference: Any) -> Iterator[m.News]:
        number = self._polls.pop(reference)
        actor = self._actors.get(number)
        if actor is None:
            return
        try:
            letter: Letter = ray.get(reference)
        except ActorUnavailableError:  # perhaps dead, perhaps a connection that comes back: the door tells
            self._knock(actor)
            self._poll(number)
            return
        except RayError as error:
            del self._actors[number]
            why, counts = _why(error)
            yield m.Gone(number, f"the worker at {actor.address} {why}", counts)
            return
        actor.pid, actor.door, actor.heard = letter.pid, letter.door, time.monotonic()
        self._on_letter(number, letter)
        yield from letter.news
        if number in self._actors:  # the news may have been its end
            self._poll(number)

    def _knock_at_silent_ones(self) -> None:
        now = time.monotonic()
        for actor in self._actors.values():
            if now - max(actor.heard, actor.knocked) > KNOCK_AFTER:
                self._knock(actor)

    def _knock(self, actor: Actor) -> None:
        if actor.door and not actor.knocking:
            actor.knocking, actor.knocked = True, time.monotonic()
            threading.Thread(target=self._ask, args=(actor,), name="knock", daemon=True).start()

    def _ask(self, actor: Actor) -> None:
        """Whether there is somebody: not whether it is well."""
        try:
            socket.create_connection((actor.address, actor.door), timeout=KNOCK_SECONDS).close()
        except OSError as error:
            if self._actors.get(actor.number) is actor:
                self._found.put(
                    m.Gone(actor.number, f"the worker at {actor.address} is gone: {error.strerror or error}")
                )
        finally:
            actor.knocking = False


def _end_process(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _why(error: RayError) -> tuple[str, bool]:
    """In a line, what Ray says in twenty; and whether it is a failure of the process, and not of its node."""
    if isinstance(error, OutOfMemoryError):
        return "was ended by Ray, for its node ran out of memory", True
    if not isinstance(error, ActorDiedError):
        return f"failed: {type(error).__name__}", True
    if "its node has died" in str(error) or "node was terminated" in str(error):
        return "was lost with its node", False
    return "ended unexpectedly: it crashed, or was killed (as for memory)", True
