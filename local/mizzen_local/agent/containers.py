"""One container on this machine: starts its supervisor, watches it, and finds it again after a restart."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mizzen_local.agent import sandbox

# Without site-packages, so that it starts in milliseconds; this package's folder is the only one added.
_LAUNCHER = (
    *(sys.executable, "-I", "-S", "-c"),
    "import sys; sys.path.append(sys.argv.pop(1)); from mizzen_local.agent.sandbox import main; main()",
    str(Path(sandbox.__file__).parents[2]),
)
_MESSAGE_LIMIT = 4096
_SET_UP_LOOKS = 500  # of 10 ms each
_FEED_INTERVAL = 0.02  # while a container does not read its stdin
_LOST = "the container's supervisor ended without leaving an exit status (was the machine restarted?)"


@dataclass(frozen=True)
class Exit:
    code: int
    started_at: float
    finished_at: float
    reason: str
    message: str = ""


class Container:
    """`restarts` counts the attempts before the present one; `changed` is called when the process ends."""

    def __init__(self, pod_folder: Path, name: str, changed: Callable[[], None]) -> None:
        self.name, self._changed = name, changed
        self.folder = pod_folder / "containers" / name
        self.attempt = -1
        self.running = False
        self.started_at = 0.0
        self.exit: Exit | None = None
        self.previous: Exit | None = None
        self._fallback_to_logs = False
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._stdin = -1

    @property
    def restarts(self) -> int:
        return max(self.attempt, 0)

    def attempt_folder(self, attempt: int | None = None) -> Path:
        return self.folder / str(self.attempt if attempt is None else attempt)

    # -- start and adopt

    def make_temporary(self) -> Path:
        """The /tmp of the next attempt: as empty as its root, and its own."""
        if self.attempt >= 0:
            _remove(self.attempt_folder() / "tmp")
        found = self.attempt_folder(self.attempt + 1) / "tmp"
        found.mkdir(parents=True, exist_ok=True)
        found.chmod(0o1777)
        return found

    def start(self, spec: dict[str, Any], *, fallback_to_logs: bool) -> None:
        self.previous = self.exit or self.previous
        self.attempt += 1
        self._fallback_to_logs = fallback_to_logs
        folder = self.attempt_folder()
        folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.iterdir():  # `logs --previous` needs one attempt back, no more
            if old.name.isdigit() and int(old.name) < self.attempt - 1:
                _remove(old)
        termination = folder / "termination-log"
        termination.touch()
        termination.chmod(0o666)
        spec = {**spec, "dir": str(folder), "fallback_to_logs": fallback_to_logs}
        spec["mounts"] = [*spec["mounts"], {"source": str(termination), "target": spec["termination_path"]}]
        stdin = self._make_stdin() if spec.get("stdin") else subprocess.DEVNULL
        sandbox.write_json(str(folder / "spec.json"), spec)
        command = [*_LAUNCHER, "run", str(folder / "spec.json")]
        errors = (folder / "supervisor.log").open("wb")
        with errors:
            self._process = subprocess.Popen(
                command,
                stdin=stdin,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
                cwd="/",
                env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
            )
        if stdin >= 0:
            os.close(stdin)
        self.running, self.exit, self.started_at = True, None, time.time()
        self._watch(self._process.pid)

    async def adopt(self) -> None:
        """Take over what an earlier agent left: the last attempt runs on, has ended, or was lost."""
        attempts = [int(p.name) for p in self.folder.iterdir() if p.name.isdigit()] if self.folder.exists() else []
        if not attempts:
            return
        self.attempt = max(attempts)
        if self.attempt and self.attempt - 1 in attempts:
            self.previous = self._read_exit(self.attempt - 1)
        folder = self.attempt_folder()
        with contextlib.suppress(OSError, ValueError):
            self._fallback_to_logs = bool(json.loads((folder / "spec.json").read_text()).get("fallback_to_logs"))
        for _ in range(20):  # the supervisor may have been started just as the agent died
            if (folder / "running.json").exists() or (folder / "exit.json").exists():
                break
            await asyncio.sleep(0.05)
        running = self._read("running.json")
        pid = int(running.get("supervisor", 0))
        self.started_at = running.get("startedAt", 0.0)
        alive = running.get("boot") == sandbox.boot_id() and sandbox.start_time(pid) == running.get("start")
        if alive and not (folder / "exit.json").exists():
            self.running = True
            self._open_stdin()
            try:
                self._watch(pid)
            except ProcessLookupError:
                self._ended()
        else:
            self.exit = self._read_exit(self.attempt)

    def _watch(self, pid: int) -> None:
        self._pidfd = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._ended)

    def _ended(self) -> None:
        self.release()
        if self._process is not None:
            self._process.wait()
            self._process = None
        self.running = False
        self.exit = self._read_exit(self.attempt)
        self._changed()

    def release(self) -> None:
        """Stop watching; the container runs on."""
        self.close_stdin()
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        if self._process is not None:
            self._process.returncode = self._process.poll() or 0  # else its destructor warns that it still runs

    # -- stdin, for containers that ask for one

    def _make_stdin(self) -> int:
        """The end that the container reads: open before anybody can attach, write and leave again."""
        path = self.attempt_folder() / "stdin"
        os.mkfifo(path, 0o600)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(reader, True)
        self._open_stdin()
        return reader

    def _open_stdin(self) -> None:
        """Held open, so that the container sees no end before somebody who attached has ended it."""
        path = self.attempt_folder() / "stdin"
        if path.exists():
            self._stdin = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    async def feed(self, data: bytes) -> None:
        """To the container's stdin, as fast as it reads."""
        while data and self._stdin >= 0:
            try:
                data = data[os.write(self._stdin, data) :]
            except BlockingIOError:
                await asyncio.sleep(_FEED_INTERVAL)

    def close_stdin(self) -> None:
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1

    # -- what is on disk

    def _read(self, name: str, attempt: int | None = None) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.attempt_folder(attempt) / name).read_text())
        except (OSError, ValueError):
            return {}
        return found

    def _read_exit(self, attempt: int) -> Exit:
        result = self._read("exit.json", attempt)
        if not result:
            started = self._read("running.json", attempt).get("startedAt", time.time())
            return Exit(137, started, time.time(), "ContainerStatusUnknown", _LOST)
        code = result["exitCode"]
        if result["error"]:
            return Exit(code, result["startedAt"], result["finishedAt"], "StartError", result["error"])
        reason = "Completed" if code == 0 else "Error"
        return Exit(code, result["startedAt"], result["finishedAt"], reason, self._message(attempt, code))

    def _message(self, attempt: int, code: int) -> str:
        try:
            with (self.attempt_folder(attempt) / "termination-log").open("rb") as file:
                data = file.read(_MESSAGE_LIMIT)
        except OSError:
            return ""
        if not data and code and self._fallback_to_logs:
            lines = self._log_tail(attempt)
            return "".join(line.split(" ", 3)[3] + "\n" for line in lines if line.count(" ") >= 3)[-2048:]
        return data.decode(errors="replace")

    def _log_tail(self, attempt: int) -> list[str]:
        try:
            with (self.attempt_folder(attempt) / "log").open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - 16384))
                return file.read().decode(errors="replace").splitlines()[-80:]
        except OSError:
            return []

    # -- signals and commands

    @property
    def init(self) -> int:
        """The process ID of the container's first process; 0 when there is none."""
        running = self._read("running.json") if self.running else {}
        pid = int(running.get("init", 0))
        return pid if pid and sandbox.start_time(pid) == running["initStart"] else 0

    def signal(self, number: signal.Signals) -> None:
        if pid := self.init:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    async def wait_ended(self, seconds: float) -> bool:
        """Whether it ended in that time."""
        deadline = time.monotonic() + seconds
        while self.running:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            try:
                descriptor = os.dup(self._pidfd)
            except OSError:
                return not self.running
            try:
                await _readable(descriptor, left)
            finally:
                os.close(descriptor)
            await asyncio.sleep(0)
        return True

    async def stop(self, grace: float) -> None:
        self.signal(signal.SIGTERM)
        if not await self.wait_ended(grace):
            while not await self.wait_ended(0.5):
                self.signal(signal.SIGKILL)
                if not (self.attempt_folder() / "running.json").exists():
                    continue

    async def begin(
        self,
        argv: list[str],
        *,
        stdin: int = asyncio.subprocess.PIPE,
        stdout: int = asyncio.subprocess.PIPE,
        stderr: int = asyncio.subprocess.PIPE,
    ) -> asyncio.subprocess.Process:
        """Start a command in the container's namespaces, which may just be being made."""
        for _ in range(_SET_UP_LOOKS):
            if not self.running or _is_set_up(self.init):
                break
            await asyncio.sleep(0.01)
        spec = str(self.attempt_folder() / "spec.json")
        return await asyncio.create_subprocess_exec(
            *_LAUNCHER, "enter", spec, *argv, stdin=stdin, stdout=stdout, stderr=stderr
        )

    async def execute(self, argv: list[str], seconds: float) -> tuple[int, str]:
        """Run a command inside; (exit code, output). 124 when it took too long."""
        process = await self.begin(argv, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.STDOUT)
        try:
            output, _ = await asyncio.wait_for(process.communicate(), seconds)
        except TimeoutError:
            process.kill()
            await process.wait()
            return 124, f"command timed out after {seconds:g}s"
        return process.returncode or 0, output.decode(errors="replace")[:2048]


def _is_set_up(init: int) -> bool:
    """Whether a container has its root and processes of its own, and the host's root has gone from it."""
    root = Path(f"/proc/{init}/root")
    try:
        (root / "proc/self").readlink()  # can be read by members of its namespace only
    except FileNotFoundError:
        return (root / "proc/1").exists() and not (root / ".host").exists()
    except OSError:
        return init != 0  # we may not look
    return False


async def _readable(descriptor: int, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, _settle, future)
    try:
        await asyncio.wait_for(future, seconds)
    except TimeoutError:
        return
    finally:
        loop.remove_reader(descriptor)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
