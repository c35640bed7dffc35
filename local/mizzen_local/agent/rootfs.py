"""The root that a container sees: an overlay over the host's, its changes in memory, with the pod's mounts in place."""
# Plain strings throughout: before the pivot they are joined to roots that pathlib would normalize away.
# ruff: noqa: PTH102, PTH103, PTH106, PTH110, PTH112, PTH115, PTH120, PTH123, PTH211, S108

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

NEWNS, NEWUTS, NEWUSER, NEWPID = 0x00020000, 0x04000000, 0x10000000, 0x20000000
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, REC, PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
DETACH = 2
_KERNEL = ("/dev", "/sys")
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}.get(os.uname().machine, 155)

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    check(libc.unshare(flags), "unshare (are user namespaces allowed on this machine?)")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    arguments = (source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None)
    check(libc.mount(*arguments), f"mount {kind or source} on {target}")


def _mount_points() -> list[str]:
    """Mount points other than the root, outermost only."""
    points = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if point != "/" and not point.startswith(("/proc", "/tmp/", "/dev/")):
            points.append(point)
    outermost: list[str] = []
    for point in sorted(set(points)):
        if not any(point.startswith(f"{parent}/") for parent in outermost):
            outermost.append(point)
    return outermost


def _ensure(target: str, directory: bool) -> None:
    if directory:
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "a"):
            pass


def _bind(source: str, target: str, read_only: bool) -> None:
    _ensure(target, os.path.isdir(source))
    mount(source, target, flags=BIND | REC)
    if read_only:
        _make_read_only(target)


def _make_read_only(target: str) -> None:
    kept = os.statvfs(target).f_flag & (NOSUID | NODEV | NOEXEC)  # a user namespace may not drop these
    mount("none", target, flags=BIND | REMOUNT | RDONLY | kept)


def _cover(base: str, root: str, point: str, number: int) -> list[str]:
    """Show what the host has mounted there, so that writes do not reach it; answers what is overlaid.

    Devices and the kernel's own folders are as they are on the host; what no overlay can lie over is read-only.
    """
    if point in _KERNEL:
        mount(point, root + point, flags=BIND | REC)
        return []
    if os.path.isdir(point):
        upper, work = f"{base}/upper-{number}", f"{base}/work-{number}"
        os.mkdir(upper)
        os.mkdir(work)
        try:
            mount("overlay", root + point, "overlay", data=f"lowerdir={point},upperdir={upper},workdir={work}")
        except OSError:
            os.rmdir(work)
        else:
            return [point]
    mount(point, root + point, flags=BIND | REC)
    _make_read_only(root + point)
    return []


def _overlay_each(base: str, root: str, points: list[str]) -> list[str]:
    """In a user namespace no overlay may lie over a folder that holds mounts, so each top folder gets its own.

    Answers these folders.
    """
    own = ["/"]
    mount(root, root, flags=BIND)  # pivot_root wants a mount point
    for entry in os.scandir("/"):
        target = root + entry.path
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), target)
        elif not entry.is_dir() or any(point == entry.path or point.startswith(f"{entry.path}/") for point in points):
            _bind(entry.path, target, False)
        elif entry.name == "proc":
            os.mkdir(target)
        else:
            upper, work = f"{base}/upper/{entry.name}", f"{base}/work/{entry.name}"
            for folder in (upper, work, target):
                os.mkdir(folder)
            mount("overlay", target, "overlay", data=f"lowerdir={entry.path},upperdir={upper},workdir={work},userxattr")
            own.append(entry.path)
    return own


def enter_root(spec: dict[str, Any]) -> None:
    """Make the container's root and move into it. Order matters: what is mounted later covers what came before."""
    mount("none", "/", flags=REC | PRIVATE)
    base = f"{spec['dir']}/root"
    os.makedirs(base, exist_ok=True)
    points = [p for p in _mount_points() if not base.startswith(f"{p}/") or p == "/dev"]
    mount("tmpfs", base, "tmpfs", data="mode=755")
    for part in ("upper", "work", "merged"):
        os.mkdir(f"{base}/{part}")
    root = f"{base}/merged"
    if os.geteuid():
        own = _overlay_each(base, root, points)
    else:
        own = ["/"]
        mount("overlay", root, "overlay", data=f"lowerdir=/,upperdir={base}/upper,workdir={base}/work")
        for number, point in enumerate(points):
            own += _cover(base, root, point, number)
    os.mkdir(f"{root}/.host")
    check(libc.syscall(_PIVOT_ROOT, root.encode(), f"{root}/.host".encode()), "pivot_root")
    os.chdir("/")
    mount("proc", "/proc", "proc", flags=NOSUID | NODEV | NOEXEC)
    mount("tmpfs", "/dev/shm", "tmpfs", flags=NOSUID | NODEV, data="mode=1777")
    for hidden in spec["hide"]:
        if os.path.isdir(hidden):
            mount("tmpfs", hidden, "tmpfs", data="mode=755,size=1m")
        elif os.path.exists(hidden):
            mount("/dev/null", hidden, flags=BIND)
    for entry in spec["mounts"]:
        _bind(f"/.host{entry['source']}", entry["target"], bool(entry.get("read_only")))
    check(libc.umount2(b"/.host", DETACH), "umount")
    os.rmdir("/.host")
    if spec.get("read_only_root"):
        mounted = {entry["target"] for entry in spec["mounts"]}
        for folder in own:
            if folder not in mounted:
                _make_read_only(folder)
