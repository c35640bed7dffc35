"""The launcher between the node agent and a container's process: one supervisor and one init for each container.

Runs with nothing but the standard library, so that it starts in milliseconds and outlives the agent:

    agent ── sandbox.py run spec.json         supervisor: own session, copies output to the log, writes exit.json
                └── init                      PID 1 of a new PID namespace, own mounts, reaps and forwards signals
                      └── the container's command

The root is an overlay over the host's, its changes in memory: any mount path can exist, and no trace is left.
"""
# Plain strings throughout: before the pivot they are joined to roots that pathlib would normalize away.
# ruff: noqa: PTH103, PTH105, PTH112, PTH123

from __future__ import annotations

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
from mizzen_local.agent.rootfs import NEWNS, NEWPID, NEWUSER, NEWUTS, check, enter_root, libc, unshare

PDEATHSIG = 1
LOG_LIMIT = 16 * 2**20
LINE_LIMIT = 16 * 2**10
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


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
        libc.prctl(PDEATHSIG, signal.SIGKILL)
        unshare(NEWNS | NEWUTS)
        libc.sethostname(spec["hostname"].encode(), len(spec["hostname"].encode()))
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
        os.dup2(output_end, 1)
        os.dup2(output_end, 2)
        os.close(output_end)
        _init(spec, errors_end, ports)
    os.close(output_end)
    os.close(errors_end)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # what is typed is the container's
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
        check(libc.setns(file, 0), "setns")
    libc.prctl(PDEATHSIG, signal.SIGKILL)
    child = os.fork()
    if child == 0:
        libc.prctl(PDEATHSIG, signal.SIGKILL)
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
