"""The embedded cluster's folder on disk: where each thing lies, who runs, and what stops us from starting."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from mizzen_local.agent.sandbox import boot_id, start_time, write_json

_NEEDED_BYTES = 200 * 2**20


class StartError(Exception):
    """The cluster cannot be started; the message says in one line what is wrong and what to do."""


def default_state() -> Path:
    return Path(os.environ.get("MIZZEN_HOME") or Path.home() / ".mizzen")


@dataclass(frozen=True)
class State:
    root: Path

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def log(self) -> Path:
        return self.root / "daemon.log"

    @property
    def record(self) -> Path:
        """Who runs, and whether all parts are up."""
        return self.root / "daemon.json"

    @property
    def error(self) -> Path:
        """The one line in which a daemon that could not start says why."""
        return self.root / "daemon.error"

    @property
    def node(self) -> Path:
        return self.root / "node"

    @property
    def volumes(self) -> Path:
        return self.root / "volumes"

    def prepare(self) -> None:
        """Make the folder, private to its owner; say clearly when that cannot be."""
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            probe = self.root / ".writable"
            probe.write_text("x")
            probe.unlink()
        except OSError as error:
            hint = "choose another folder with --state-dir"
            raise StartError(f"cannot write to {self.root}: {error.strerror}; {hint}") from error
        free = shutil.disk_usage(self.root).free
        if free < _NEEDED_BYTES:
            text = f"only {free // 2**20} MiB are free on the disk of {self.root}; {_NEEDED_BYTES // 2**20} are needed"
            raise StartError(f"{text}: free some, or choose another folder with --state-dir")

    def note_running(self, port: int) -> None:
        pid = os.getpid()
        write_json(str(self.record), {"pid": pid, "start": start_time(pid), "boot": boot_id(), "port": port})

    def running(self) -> int | None:
        """The daemon's pid, if it is alive; a pid that another process has since got does not count."""
        try:
            record = json.loads(self.record.read_text())
        except (OSError, ValueError):
            return None
        if record["boot"] != boot_id() or start_time(record["pid"]) != record["start"]:
            return None
        return int(record["pid"])

    def stop_daemon(self, seconds: float) -> bool:
        """Ask it to end and wait; answers whether there was one."""
        pid = self.running()
        if pid is None:
            return False
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while self.running() is not None and time.monotonic() < deadline:
            _reap(pid)
            time.sleep(0.05)
        if self.running() is not None:
            os.kill(pid, signal.SIGKILL)
        self.record.unlink(missing_ok=True)
        return True


def _reap(pid: int) -> None:
    """Where the caller started the daemon itself, it stays a zombie until it is waited for."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
