"""The launcher between the node agent and a container's process: one supervisor and one init for each container.

Runs with nothing but the standard library, so that it starts in milliseconds and outlives the agent:

    agent ── sandbox.py run spec.json         supervisor: own session, copies output to the log, writes exit.json
                └── init                      PID 1 of a new PID namespace, own mounts, reaps and forwards signals
                      └── the container's command

The root is an overlay over the host's, its changes in memory: any mount path can exist, and no trace is left.
"""
# Plain strings throughout: before the pivot they are joined to roots that pathlib would normalize away.
# ruff: noqa: PTH102, PTH103, PTH105, PTH106, PTH110, PTH112, PTH115, PTH120, PTH123, PTH211, S108

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import sys
import termios
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

from mizzen_local.agent.portspace import PortSpace

NEWNS, NEWUTS, NEWUSER, NEWPID = 0x00020000, 0x04000000, 0x10000000, 0x20000000
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, REC, PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
DETACH = 2
PDEATHSIG = 1
LOG_LIMIT = 16 * 2**20
LINE_LIMIT = 16 * 2**10
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare (are user namespaces allowed on this machine?)")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    arguments = (source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None)
    _check(_libc.mount(*arguments), f"mount {kind or source} on {target}")


def start_time(pid: int) -> str:
    """A process's start in ticks since boot: tells a pid from its reuse. Empty when none lives (a zombie does not)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def write_json(path: str, value: Any) -> None:
    """Atomic: a reader sees the whole file or none."""
    draft = f"{path}.{os.getpid()}"
    with open(draft, "w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


# -- the root of a container ------------------------------------------------------------------------------------------


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
        for point in points:
            mount(point, root + point, flags=BIND | REC)
    os.mkdir(f"{root}/.host")
    _check(_libc.syscall(_PIVOT_ROOT, root.encode(), f"{root}/.host".encode()), "pivot_root")
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
    _check(_libc.umount2(b"/.host", DETACH), "umount")
    os.rmdir("/.host")
    if spec.get("read_only_root"):
        mounted = {entry["target"] for entry in spec["mounts"]}
        for folder in own:
            if folder not in mounted:
                _make_read_only(folder)


_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}.get(os.uname().machine, 155)


# -- init: PID 1 of the container -------------------------------------------------------------------------------------


def _port_space(spec: dict[str, Any]) -> PortSpace | None:
    """None for a pod in the host's network."""
    return PortSpace(spec["ip"], spec["ports"]) if spec.get("ip") else None


def _become(spec: dict[str, Any]) -> None:
    """Be the pod's user, by name: in a user namespace where the agent's own identity has that number.

    To become another user for good needs root, and that user would have to be able to read the Python that runs us.
    """
    if not spec.get("uid"):
        return
    uid, gid = os.geteuid(), os.getegid()
    unshare(NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{spec['uid']} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{spec['gid']} {gid} 1")


def _exec(spec: dict[str, Any], errors: int, ports: PortSpace | None) -> NoReturn:
    argv, env = spec["argv"], spec["env"]
    try:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        if spec.get("create_cwd"):
            os.makedirs(spec["cwd"], exist_ok=True)
        os.chdir(spec["cwd"])
        if ports:
            ports.enter()
        _become(spec)
        if os.isatty(0):
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            env.setdefault("TERM", "xterm")
        os.execvpe(argv[0], argv, env)  # noqa: S606
    except FileNotFoundError:
        name, what = argv[0], "no such file or directory" if "/" in argv[0] else "executable file not found in $PATH"
        if not os.path.isdir(spec["cwd"]):
            name, what = spec["cwd"], "working directory not found"
        os.write(errors, f'exec: "{name}": {what}'.encode())
    except OSError as error:
        os.write(errors, f'exec: "{argv[0]}": {error.strerror}'.encode())
    os._exit(128)


def _init(spec: dict[str, Any], errors: int, ports: PortSpace | None) -> NoReturn:
    try:
        _libc.prctl(PDEATHSIG, signal.SIGKILL)
        unshare(NEWNS | NEWUTS)
        _libc.sethostname(spec["hostname"].encode(), len(spec["hostname"].encode()))
        enter_root(spec)
    except Exception as error:
        os.write(errors, f"cannot set up the container: {error}".encode())
        traceback.print_exc()
        os._exit(128)
    command = os.fork()
    if command == 0:
        _exec(spec, errors, ports)
    os.close(errors)
    while True:
        number = signal.sigwait((*_FORWARDED, signal.SIGCHLD))
        if number != signal.SIGCHLD:
            os.kill(command, number)
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                os._exit(0)
            if pid == 0:
                break
            if pid == command:
                os._exit(_exit_code(status))


# -- supervisor: stays outside, writes the log and the exit status ----------------------------------------------------


class _Log:
    """The CRI log format, `<time> stdout F|P <line>`, which keeps the time of each line."""

    def __init__(self, path: str) -> None:
        self._path, self._rest = path, b""
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115

    def write(self, data: bytes) -> None:
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        stamp = _stamp()
        out = [b"%s stdout F %s\n" % (stamp, line) for line in lines]
        if len(self._rest) > LINE_LIMIT:
            out.append(b"%s stdout P %s\n" % (stamp, self._rest))
            self._rest = b""
        self._put(b"".join(out))

    def close(self) -> None:
        if self._rest:
            self._put(b"%s stdout F %s\n" % (_stamp(), self._rest))
        self._file.close()

    def _put(self, data: bytes) -> None:
        try:
            if data and self._file.write(data) and self._file.tell() > LOG_LIMIT:
                self._file.close()
                os.replace(self._path, f"{self._path}.1")
                self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115
        except OSError:  # a full disk must not end the container
            return


def _stamp() -> bytes:
    now = time.time_ns()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)).encode() + b".%09dZ" % (now % 10**9)


def _read(descriptor: int, ports: PortSpace | None) -> bytes:
    if ports:
        ports.answer_until(descriptor)
    return os.read(descriptor, 2**16)


def run(spec_path: str) -> None:
    spec = json.loads(Path(spec_path).read_text())
    signal.pthread_sigmask(signal.SIG_BLOCK, [*_FORWARDED, signal.SIGCHLD])
    folder, started = spec["dir"], time.time()
    running: dict[str, Any] = {"supervisor": os.getpid(), "start": start_time(os.getpid()), "boot": boot_id()}
    write_json(f"{folder}/running.json", {**running, "startedAt": started})
    if os.geteuid():
        uid, gid = os.geteuid(), os.getegid()
        unshare(NEWUSER | NEWPID)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    else:
        unshare(NEWPID)
    output, output_end = os.pipe()
    errors, errors_end = os.pipe()
    ports = _port_space(spec)
    init = os.fork()
    if init == 0:
        os.close(output)
        os.close(errors)
        if spec.get("stdin"):
            os.dup2(os.open(f"{folder}/stdin", os.O_RDONLY), 0)
        os.dup2(output_end, 1)
        os.dup2(output_end, 2)
        os.close(output_end)
        _init(spec, errors_end, ports)
    os.close(output_end)
    os.close(errors_end)
    if ports:
        ports.leave()
    write_json(f"{folder}/running.json", {**running, "startedAt": started, "init": init, "initStart": start_time(init)})
    log = _Log(f"{folder}/log")
    while data := _read(output, ports):
        log.write(data)
    log.close()
    _, status = os.waitpid(init, 0)
    code = _exit_code(status)
    error = os.read(errors, 4096).decode(errors="replace")
    result = {
        "exitCode": code,
        "startedAt": started,
        "finishedAt": time.time(),
        "error": error,
    }
    write_json(f"{folder}/exit.json", result)


# -- a command inside a running container -----------------------------------------------------------------------------


def enter(spec_path: str, argv: list[str]) -> int:
    """Run one command in the namespaces of a running container; answers its exit code."""
    spec = json.loads(Path(spec_path).read_text())
    running = json.loads((Path(spec["dir"]) / "running.json").read_text())
    pid = running["init"]
    if start_time(pid) != running["initStart"]:
        raise SystemExit("the container does not run")
    ports = _port_space(spec)
    inside = os.fork()
    if inside == 0:
        os._exit(_enter({**spec, "argv": argv, "create_cwd": False}, pid, ports))
    if ports:  # this process stays outside, where the pod's folder and all processes can be seen
        ports.leave()
        ports.answer_until(os.pidfd_open(inside))
    return _exit_code(os.waitpid(inside, 0)[1])


def _enter(spec: dict[str, Any], pid: int, ports: PortSpace | None) -> int:
    kinds = [*(["user"] if os.geteuid() else []), "mnt", "uts", "pid"]
    files = [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY) for kind in kinds]
    for file in files:
        _check(_libc.setns(file, 0), "setns")
    _libc.prctl(PDEATHSIG, signal.SIGKILL)
    child = os.fork()
    if child == 0:
        _libc.prctl(PDEATHSIG, signal.SIGKILL)
        _exec(spec, 2, ports)
    return _exit_code(os.waitpid(child, 0)[1])


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def main() -> None:
    if sys.argv[1] == "run":
        run(sys.argv[2])
    else:
        sys.exit(enter(sys.argv[2], sys.argv[3:]))
