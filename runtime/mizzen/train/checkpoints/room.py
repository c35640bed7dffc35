"""Where snapshots may lie: memory first, then a file that the kernel keeps in its page cache."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tempfile
import time
from pathlib import Path

from mizzen.train.checkpoints.slots import is_owned

MEMORY = Path("/dev/shm")  # noqa: S108 (shared memory is what is meant; the run's folder in it is private)
SPARE = 0.05  # of what is free, that is left to others
ABANDONED_SECONDS = 24 * 3600.0  # after which slots without a living owner are nobody's
_PREFIX, _SUFFIX = "mizzen-", ".snapshot"
_CGROUP = Path("/sys/fs/cgroup")


def roots() -> tuple[Path, ...]:
    """The places, best first."""
    return MEMORY, Path(tempfile.gettempdir())


def run_folder(root: Path, run_uid: str) -> Path:
    return root / (_PREFIX + re.sub(r"[^A-Za-z0-9._-]", "_", run_uid))


def make_run_folder(root: Path, run_uid: str) -> Path:
    """A folder that this user alone may enter; OSError where somebody else made it."""
    folder = run_folder(root, run_uid)
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to somebody else")
    return folder


def slot_files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{_SUFFIX}"))


def slot_file(folder: Path, owner: str, number: int) -> Path:
    return folder / f"{owner}-{number}{_SUFFIX}"


def free_bytes(root: Path) -> int:
    """What may be taken in `root`: the file system's room, and for memory that of the container as well."""
    free = shutil.disk_usage(root).free
    if root == MEMORY:
        free = min(free, _free_memory())
    return int(free * (1 - SPARE))


def sweep(root: Path, keep: Path) -> None:
    """Remove what runs that never came back have left here."""
    for folder in root.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder != keep and folder.lstat().st_uid == os.geteuid() and _is_abandoned(folder):
                shutil.rmtree(folder)


def _is_abandoned(folder: Path) -> bool:
    times = [path.stat().st_mtime for path in (folder, *slot_files(folder))]
    return max(times) < time.time() - ABANDONED_SECONDS and not any(map(is_owned, slot_files(folder)))


def _free_memory() -> int:
    """Up to the container's limit (cgroup v2 or v1), or the machine's; what the kernel can drop counts as free."""
    available = _machine_available()
    for limit_file, usage_file, folder in (
        ("memory.max", "memory.current", _CGROUP),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", _CGROUP / "memory"),
    ):
        with contextlib.suppress(OSError, ValueError):
            limit = int((folder / limit_file).read_text())
            used = int((folder / usage_file).read_text()) - _droppable(folder / "memory.stat")
            available = min(available, max(limit - used, 0))
    return available


def _machine_available() -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 2**62


def _droppable(file: Path) -> int:
    with contextlib.suppress(OSError):
        for line in file.read_text().splitlines():
            if line.startswith(("inactive_file ", "total_inactive_file ")):
                return int(line.split()[1])
    return 0
