"""torch's process group, formed anew in milliseconds, and cut from this side where a lost peer never says goodbye."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import timedelta

log = logging.getLogger(__name__)

TIMEOUT = timedelta(minutes=30)  # of a collective: hangs are found by heartbeats, long before
_SOCKETS = "/proc/self/fd"
_PEER_WORDS = (
    "gloo", "connection closed", "connection reset", "broken pipe", "nccl", "socket", "timed out", "connection refused",
    "store", "process group",
)  # fmt: skip


@dataclass(frozen=True)
class Formation:
    """A member's place in a group, and where its ranks meet. `name` is this formation's alone in the whole run."""

    generation: int
    rank: int
    world: int
    name: str
    store_host: str
    store_port: int


class Rendezvous:
    """Where the ranks of all generations meet; it lives in the driver, so that no lost rank takes it away."""

    def __init__(self, host: str) -> None:
        import torch.distributed as dist

        # Bound here, for torch would listen on all interfaces.
        listener = socket.create_server((host, 0))
        self.host, self.port = host, int(listener.getsockname()[1])
        self._store = dist.TCPStore(  # type: ignore[attr-defined]
            host, self.port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
        )


def form(formation: Formation, backend: str = "gloo") -> None:
    """The default process group of this process; all ranks call it. RuntimeError where one is lost meanwhile."""
    import torch.distributed as dist

    address = socket.gethostbyname(formation.store_host)
    store = dist.TCPStore(address, formation.store_port, is_master=False, timeout=TIMEOUT)  # type: ignore[attr-defined]
    dist.init_process_group(
        backend,
        store=dist.PrefixStore(formation.name, store),  # type: ignore[attr-defined]
        rank=formation.rank,
        world_size=formation.world,
        timeout=TIMEOUT,
    )


def warm_up() -> None:
    """Import what torch imports at the first use of its wrappers: seconds for which other ranks would wait."""
    import torch
    import torch.distributed as dist

    store = dist.HashStore()  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))
    dist.destroy_process_group()


def leave() -> None:
    """Forget the group, which may be broken. Its peers notice at once."""
    import torch.distributed as dist

    if not dist.is_initialized():
        return
    abort_devices()
    try:
        dist.destroy_process_group()
    except Exception as error:
        log.warning("the broken process group could not be closed: %s", error)


def on_devices() -> bool:
    """Whether the group of now sends from devices: calls then return before the work is done, and can be aborted."""
    import torch.distributed as dist

    if not dist.is_initialized():
        return False
    backends = {part.rpartition(":")[2] for part in str(dist.get_backend_config()).split(",")}
    return backends != {"gloo"}


def abort_devices() -> None:
    """End what devices send and wait for, from any thread. What they had to compute with it is then worth nothing."""
    import torch.distributed as dist

    if on_devices():
        with contextlib.suppress(Exception):  # some back ends have none
            dist.distributed_c10d._abort_process_group()


def is_peer_error(error: BaseException) -> bool:
    """Whether an exception tells of a lost connection, and not of this rank's own code."""
    import torch.distributed as dist

    if isinstance(error, dist.DistError):
        return True
    words = str(error).lower()
    return type(error) is RuntimeError and any(word in words for word in _PEER_WORDS)


def listening() -> set[int]:
    """Ports that this process listens on."""
    return {one.getsockname()[1] for one in _sockets() if _listens(one)}


def cut(lost: Collection[str], others: Collection[int], store_port: int) -> int:
    """Shut down connections of collectives, so that calls that wait in them raise. Returns how many.

    gloo has no abort that wakes its waiters. Of each of its connections one end came in at a port that its process
    listens on: those are cut, and those to `lost` addresses, whose owners cannot do their part. `others` are ports that
    are not gloo's. Does nothing where there is no /proc.
    """
    ports = listening() - set(others)
    count = 0
    for one in _sockets():
        if _listens(one):
            continue
        with contextlib.suppress(OSError):
            peer, peer_port = one.getpeername()[:2]
            if one.getsockname()[1] in ports or peer_port == store_port or peer.removeprefix("::ffff:") in lost:
                one.shutdown(socket.SHUT_RDWR)
                count += 1
    return count


def _listens(one: socket.socket) -> bool:
    return bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _sockets() -> Iterator[socket.socket]:
    """This process's TCP sockets, as duplicates that are closed after use."""
    try:
        names = os.listdir(_SOCKETS)  # noqa: PTH208 (names of descriptors, not files)
    except OSError:
        return
    for name in names:
        with contextlib.suppress(OSError):
            if not os.readlink(f"{_SOCKETS}/{name}").startswith("socket:"):  # noqa: PTH115
                continue
            with socket.socket(fileno=os.dup(int(name))) as one:
                if one.family in (socket.AF_INET, socket.AF_INET6) and one.type == socket.SOCK_STREAM:
                    yield one
