"""The writing process: reads snapshots in memory and writes them to the store. `python -m` of this file, jobs on stdin.

A process of its own, so that training never waits for a store, a hash or Python's lock. It imports no torch and starts
in a quarter of a second. It outlives its training by what it has in hand: a snapshot that was handed over gets written.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import sys
import time
from pathlib import Path

from mizzen.train.checkpoints.jobs import DROPPED, FAILED, WAITING, WRITTEN, Job, Report
from mizzen.train.checkpoints.slots import Header, View
from mizzen.train.checkpoints.store import Origin, Store

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds between tries
LAST_TRIES = 60.0  # seconds that are left for tries when the training is gone
COMMIT_SECONDS = 60.0  # a snapshot may be handed over while a device still fills it
_NICE = 10
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


class Inbox:
    """Jobs from a pipe. Of several that wait, the newest counts."""

    def __init__(self, file: int) -> None:
        self._file, self._rest = file, b""
        self.ended = False

    def next(self, timeout: float | None) -> Job | None:
        """None after `timeout` seconds, or when no job can come any more."""
        until = None if timeout is None else time.monotonic() + timeout
        while not self.ended:
            left = None if until is None else max(until - time.monotonic(), 0.0)
            if not select.select([self._file], [], [], left)[0]:
                return None
            received = os.read(self._file, 65536)
            self.ended = not received
            *lines, self._rest = (self._rest + received).split(b"\n")
            if lines:
                jobs = [Job.decode(line) for line in lines]
                for job in jobs[:-1]:
                    tell(Report(DROPPED, job.step))
                return jobs[-1]
        if until is not None:
            time.sleep(max(until - time.monotonic(), 0.0))
        return None


class SnapshotLostError(Exception):
    """The snapshot is not there any more, or was never whole."""


def write(job: Job, store: Store) -> Report:
    """OSError where the store does not take it."""
    began = time.monotonic()
    view, header = _committed(job)
    if not view.is_sound(header):
        raise SnapshotLostError(f"the snapshot of step {job.step} in memory is corrupted")
    origin = Origin(job.step, header.state["rank"], header.state["world"], header.state["group"], header.state["state"])
    with memoryview(view.memory) as whole, whole[header.data_start :] as data:
        complete, nbytes = store.write(origin, header.pieces, data, job.keep)
    return Report(WRITTEN, job.step, complete, nbytes, time.monotonic() - began)


def work(inbox: Inbox) -> None:
    """Until the training ends, and what is in hand is written or hopeless."""
    stores: dict[str, Store] = {}
    job = inbox.next(None)
    while job is not None:
        stores.setdefault(job.store, Store(job.store))
        job = _until_written(job, stores[job.store], inbox) or inbox.next(None)


def _until_written(job: Job, store: Store, inbox: Inbox) -> Job | None:
    """Try, with longer and longer pauses, until it is written or a newer job comes, which is returned."""
    pause, deadline = FIRST_PAUSE, None
    while True:
        try:
            tell(write(job, store))
            return None
        except SnapshotLostError as error:
            tell(Report(FAILED, job.step, error=str(error)))
            return None
        except Exception as error:  # of whatever library reaches the store
            text, forbidden = explained(error, job.store)
            if inbox.ended:
                deadline = deadline or time.monotonic() + LAST_TRIES
                if time.monotonic() > deadline:
                    tell(Report(FAILED, job.step, error=text, forbidden=forbidden))
                    return None
            tell(Report(WAITING, job.step, error=f"{text}; trying again", forbidden=forbidden))
        newer = inbox.next(pause)
        if newer is not None:
            tell(Report(DROPPED, job.step))
            return newer
        pause = min(2 * pause, LONGEST_PAUSE)


def explained(error: Exception, store: str) -> tuple[str, bool]:
    """For a person: what it is with the store, and whether it refuses."""
    code = error.errno if isinstance(error, OSError) else None
    if code in _FULL:
        return f"the store {store} is full: no checkpoint is written until there is room", False
    if isinstance(error, PermissionError) or code in _REFUSED:
        return f"the store {store} may not be written: {error}", True
    return f"the store {store} does not take the checkpoint: {type(error).__name__}: {error}"[:500], False


def _committed(job: Job) -> tuple[View, Header]:
    """The slot, when it is whole."""
    deadline = time.monotonic() + COMMIT_SECONDS
    while True:
        try:
            view = View(Path(job.path))
        except OSError as error:
            raise SnapshotLostError(f"the snapshot of step {job.step} is gone: {error}") from error
        header = view.header()
        if header is not None:
            if header.step != job.step:
                raise SnapshotLostError(
                    f"the snapshot of step {job.step} was overwritten by that of step {header.step}"
                )
            return view, header
        if time.monotonic() > deadline:
            raise SnapshotLostError(f"the snapshot of step {job.step} did not become whole")
        time.sleep(0.005)


def tell(report: Report) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        os.write(sys.stdout.fileno(), report.encode())


def main() -> None:
    # A stop is for the training, which then hands over its last snapshot; this process ends with the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    work(Inbox(sys.stdin.fileno()))


if __name__ == "__main__":
    main()
