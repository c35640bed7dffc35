"""The embedded cluster's folder on disk: where each thing lies, who runs, and what stops us from starting."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from mizzen_local.agent.sandbox import boot_id, start_time, write_json

NEEDED_BYTES = 200 * 2**20
_MARKER = "mizzen-state"
_MARKER_TEXT = "This folder is an embedded cluster's; `mizzen down --purge` deletes what the cluster keeps in it.\n"
# All that the cluster ever puts into its folder. What is not here is never deleted.
_OWN = re.compile(
    r"(state\.db(-wal|-shm|-journal)?|kubeconfig|admin\.token|kubelet-token|lock|ranges\.json|options\.json"
    r"|daemon\.(log|json|error)|pki|node|nodes|volumes|\.writable|mizzen-state)(\.[0-9]+)?"
)
_SHOWN = 3


class StateError(Exception):
    """The folder cannot be used as asked; the message says in one line what is wrong and what to do."""


class StartError(StateError):
    """The cluster cannot be started."""


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

    @property
    def options(self) -> Path:
        """What the daemon was started with."""
        return self.root / "options.json"

    @property
    def database(self) -> Path:
        return self.root / "state.db"

    @property
    def free(self) -> int:
        """Bytes that are free on the folder's disk."""
        return shutil.disk_usage(self.root).free

    def prepare(self) -> None:
        """Make the folder, private to its owner; say clearly when that cannot be."""
        hint = "choose another folder with --state-dir"
        if self._is_everybodys():
            raise StartError(f"{self.root} cannot be the cluster's own folder: {hint}")
        try:
            if foreign := self._foreign():
                raise StartError(f"{self.root} is not empty ({_listed(foreign)}): {hint}")
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.root.chmod(0o700)  # it may have been there before, open to all
            probe = self.root / ".writable"
            probe.write_text("x")
            probe.unlink()
            (self.root / _MARKER).write_text(_MARKER_TEXT)
            for path in (self.database, self.log):  # Secrets are in the one, and may be in the other
                path.touch(mode=0o600)
                path.chmod(0o600)
        except OSError as error:
            raise StartError(f"cannot write to {self.root}: {error.strerror}; {hint}") from error
        if self.free < NEEDED_BYTES:
            text = (
                f"only {self.free // 2**20} MiB are free on the disk of {self.root}; {NEEDED_BYTES // 2**20} are needed"
            )
            raise StartError(f"{text}: free some, or {hint}")

    def check_purge(self) -> None:
        """StateError where deleting would take what is not the cluster's."""
        if self._is_everybodys() or self.root == Path.cwd():
            raise StateError(f"{self.root} is not deleted: it is your working folder, your home or the root of all")
        if self.root.exists() and not self._owned():
            raise StateError(
                f"{self.root} is not deleted: no embedded cluster made it (it has no file {_MARKER}); check --state-dir"
            )

    def purge(self) -> list[str]:
        """Delete what the cluster keeps here, and the folder if nothing else is in it; answers what else there is."""
        self.check_purge()
        if not self.root.exists():
            return []
        marker = self.root / _MARKER
        try:
            left = []
            for path in sorted(self.root.iterdir()):
                if not _OWN.fullmatch(path.name):
                    left.append(path.name)
                elif path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path != marker:
                    path.unlink()
            if not left:  # else it stays the cluster's, and `up` takes it again
                marker.unlink(missing_ok=True)
                self.root.rmdir()
        except OSError as error:
            raise StateError(f"cannot delete {error.filename or self.root}: {error.strerror}") from error
        return left

    def _owned(self) -> bool:
        """The second is how folders look that are older than the marker."""
        return (self.root / _MARKER).is_file() or (self.database.is_file() and (self.root / "pki").is_dir())

    def _foreign(self) -> list[str]:
        """What somebody else keeps in a folder that is not the cluster's."""
        if not self.root.is_dir() or self._owned():
            return []
        return sorted(path.name for path in self.root.iterdir() if not _OWN.fullmatch(path.name))

    def _is_everybodys(self) -> bool:
        return self.root in {Path(self.root.anchor), Path.home()}

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


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _reap(pid: int) -> None:
    """Where the caller started the daemon itself, it stays a zombie until it is waited for."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
