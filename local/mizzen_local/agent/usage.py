"""What containers use of the machine, read from /proc for whoever asks the node: no control groups are needed.

CPU is time in seconds since the start, summed over all processes of the container's PID namespace, those that have
ended included. Memory is the working set in bytes: the proportional set size (PSS), in which a page that several
processes share counts once, in equal parts.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_BUSY = (0, 1, 2, 5, 6)  # user, nice, system, irq, softirq: the columns of /proc/stat that are work


@dataclass(frozen=True)
class Usage:
    """`cpu` in seconds since the start, `memory` in bytes."""

    cpu: float
    memory: int


class Meter:
    """Adds up one attempt of a container, of which `init` is the first process."""

    def __init__(self, init: int) -> None:
        self.init = init
        self._proc = f"/proc/{init}/root/proc"  # what the container sees: the processes of its namespace, no others
        self._visitors: dict[tuple[str, str], int] = {}  # (pid, start) of commands from outside: their ticks
        self._departed = 0

    def read(self) -> Usage | None:
        """None while the container is being set up, and once it has ended."""
        try:
            Path(f"{self._proc}/self").readlink()  # can be read by members of its namespace only
        except FileNotFoundError:
            return self._sum() if Path(f"{self._proc}/1").exists() else None
        except OSError:
            return None
        return None  # still the root of the host

    def _sum(self) -> Usage | None:
        ticks, memory = 0, 0
        visitors: dict[tuple[str, str], int] = {}
        try:
            pids = [name for name in os.listdir(self._proc) if name.isdigit()]  # noqa: PTH208
        except OSError:
            return None
        for pid in pids:
            try:
                fields = _fields(f"{self._proc}/{pid}/stat")
                memory += _memory(f"{self._proc}/{pid}", int(fields[21]) * _PAGE)
            except OSError:
                continue
            spent = sum(map(int, fields[11:15]))  # own time, and that of children that were waited for
            ticks += spent
            if fields[1] == "0" and pid != "1":
                visitors[pid, fields[19]] = spent
        self._departed += sum(spent for who, spent in self._visitors.items() if who not in visitors)
        self._visitors = visitors
        return Usage((ticks + self._departed) / _TICKS, memory)


def _fields(path: str) -> list[str]:
    """The fields of a stat file from the state on, which is the third."""
    return Path(path).read_text(errors="replace").rpartition(")")[2].split()


def _memory(folder: str, resident: int) -> int:
    """Proportional set size in bytes; the resident set where the kernel does not tell."""
    try:
        with Path(folder, "smaps_rollup").open("rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except ProcessLookupError:  # a zombie, or gone by now
        return 0
    except OSError:
        return resident
    return 0


def machine() -> Usage:
    """The whole machine, pods or not, as a kubelet counts its node."""
    columns = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    memory = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        memory[name] = int(rest.split()[0]) * 1024
    busy = sum(int(columns[index]) for index in _BUSY)
    return Usage(busy / _TICKS, memory["MemTotal"] - memory["MemAvailable"])
