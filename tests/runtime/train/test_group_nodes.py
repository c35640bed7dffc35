"""Whether a member that is silent still lives is asked of its kernel."""

from __future__ import annotations

import contextlib
import queue
import socket
import time
from collections.abc import Iterator

import pytest

from mizzen.train.group import nodes as under_test
from mizzen.train.group.job import Job
from mizzen.train.group.keeping import Keeping
from mizzen.train.group.messages import Gone, News
from mizzen.train.group.nodes import Actor, Nodes, Slots


def knocked(port: int) -> News | None:
    """What a knock at this port brings; None where somebody lives there."""
    nodes = Nodes(Job({}, Keeping("u", ""), ""), Slots(), lambda _number, _letter: None)
    actor = nodes._actors[1] = Actor(1, "node", "127.0.0.1", None, time.monotonic(), door=port)
    nodes._knock(actor)
    deadline = time.monotonic() + 20
    while actor.knocking and time.monotonic() < deadline:
        with contextlib.suppress(queue.Empty):
            return nodes._found.get(timeout=0.05)
    with contextlib.suppress(queue.Empty):
        return nodes._found.get_nowait()
    return None


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as found:
        yield found


def test_a_process_that_only_does_not_answer_lives(listener: socket.socket) -> None:
    assert knocked(listener.getsockname()[1]) is None


def test_a_port_that_is_refused_is_of_a_process_that_is_gone(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    assert knocked(port) == Gone(1, "the worker at 127.0.0.1 is gone: Connection refused")


def test_a_kernel_that_says_nothing_is_gone(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full queue drops what comes, as a node does that has lost its power."""
    monkeypatch.setattr(under_test, "KNOCK_SECONDS", 0.2)
    with contextlib.ExitStack() as waiting:
        for _ in range(8):
            caller = waiting.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(listener.getsockname())
        found = knocked(listener.getsockname()[1])
    assert isinstance(found, Gone)
    assert found.why == "the worker at 127.0.0.1 is gone: timed out"
