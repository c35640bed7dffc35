"""Hands snapshots to the writing process and hears how it goes. Nothing here waits for a store."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import mizzen
from mizzen.train.checkpoints.jobs import FAILED, WAITING, WRITTEN, Job, Report
from mizzen.train.checkpoints.snapshots import Snapshot

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PersistStatus:
    """How a rank's durable writing stands. Steps are -1 where there is none."""

    written: int = -1  # the newest step whose part this rank has written
    whole: int = -1  # the newest checkpoint that this rank saw whole; the greatest of all ranks is the run's
    running: int = -1
    pending: int = -1
    nbytes: int = 0  # of the last part
    seconds: float = 0.0  # that it took
    error: str = ""  # why the one that runs now does not get on; empty when all is well
    forbidden: bool = False  # the store refuses: a person must give permission


class Persister:
    """One writing process, for the life of a rank. One snapshot is written, one waits; a newer one replaces that."""

    def __init__(self, store: str, keep: int = 3) -> None:
        self.store, self.keep = store, keep
        self._status = PersistStatus()
        self._running: Snapshot | None = None
        self._pending: Snapshot | None = None
        self._superseded: Snapshot | None = None  # until the writing process lets it go
        self._changed = threading.Condition()
        self._process = self._start()

    def submit(self, snapshot: Snapshot) -> None:
        """Returns at once. The snapshot is held until it is written or a newer one takes its place."""
        with self._changed:
            if snapshot in (self._running, self._pending):
                return
            snapshot.hold(self)
            if self._process.poll() is not None:
                self._lost()
                _pipe(self._process.stdin).close()
                self._process = self._start()
            if self._running is None:
                self._send(snapshot)
            else:
                self._drop(self._pending)
                self._pending = snapshot
            self._note()

    def status(self) -> PersistStatus:
        with self._changed:
            return self._status

    @property
    def pid(self) -> int:
        """Of the writing process."""
        return self._process.pid

    def flush(self, timeout: float) -> bool:
        """Wait until all that was submitted is written: whether it is, after `timeout` seconds at most."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while self._running is not None:
                left = deadline - time.monotonic()
                if left <= 0 or self._process.poll() is not None:
                    return False
                self._changed.wait(min(left, 1.0))
            return not self._status.error

    def close(self, timeout: float = 60.0) -> bool:
        """Write what was submitted, and end the process: whether all was written within `timeout` seconds."""
        done = self.flush(timeout)
        with contextlib.suppress(OSError):
            _pipe(self._process.stdin).close()
        try:
            self._process.wait(timeout=5.0 if done else 0.1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join()
        return done

    def _start(self) -> subprocess.Popen[bytes]:
        """By file name and not by fork or multiprocessing: neither this process's threads nor its imports go along."""
        home = str(Path(mizzen.__file__).parents[1])
        process = subprocess.Popen(
            [sys.executable, "-m", "mizzen.train.checkpoints.writer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])},
            start_new_session=True,
        )
        self._listener = threading.Thread(target=self._listen, args=(process,), name="checkpoints", daemon=True)
        self._listener.start()
        return process

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        with _pipe(process.stdout) as reports:
            for line in reports:
                with self._changed:
                    self._heard(Report.decode(line))
        with self._changed:
            if process is self._process:
                self._lost()

    def _lost(self) -> None:
        """The process ended: by itself after `close`, else by somebody's hand."""
        if self._running is not None:
            self._status = replace(self._status, error="the process that writes checkpoints ended")
            log.warning("%s: the next checkpoint starts another", self._status.error)
        for snapshot in (self._running, self._pending, self._superseded):
            self._drop(snapshot)
        self._running = self._pending = self._superseded = None
        self._note()

    def _heard(self, report: Report) -> None:
        if self._superseded is not None and report.step == self._superseded.step and report.kind != WAITING:
            self._drop(self._superseded)
            self._superseded = None
        if self._running is None or report.step != self._running.step:
            return
        if report.kind in (WAITING, FAILED) and report.error != self._status.error:
            log.warning("checkpoint of step %d: %s", report.step, report.error)
        if report.kind == WAITING:
            self._status = replace(self._status, error=report.error, forbidden=report.forbidden)
            if self._pending is not None:
                # It listens between two tries, and says when it has let go of the old one: not before may that be
                # written anew.
                self._superseded, newer, self._pending = self._running, self._pending, None
                self._send(newer)
        else:
            self._ended(report)
        self._note()

    def _ended(self, report: Report) -> None:
        if report.kind == WRITTEN:
            whole = report.step if report.whole else self._status.whole
            known = replace(self._status, written=report.step, whole=whole, error="", forbidden=False)
            self._status = replace(known, nbytes=report.nbytes, seconds=report.seconds)
        else:
            self._status = replace(self._status, error=report.error, forbidden=report.forbidden)
        self._drop(self._running)
        self._running, following, self._pending = None, self._pending, None
        if following is not None:
            self._send(following)

    def _send(self, snapshot: Snapshot) -> None:
        self._running = snapshot
        job = Job(str(snapshot.path.absolute()), snapshot.step, self.store, self.keep)
        with contextlib.suppress(OSError):  # it ended: the listener says so
            _pipe(self._process.stdin).write(job.encode())

    def _drop(self, snapshot: Snapshot | None) -> None:
        if snapshot is not None:
            snapshot.release(self)

    def _note(self) -> None:
        running, pending = (one.step if one is not None else -1 for one in (self._running, self._pending))
        self._status = replace(self._status, running=running, pending=pending)
        self._changed.notify_all()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe
