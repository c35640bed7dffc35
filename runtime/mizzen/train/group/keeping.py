"""What a member keeps of the run as it goes: snapshots in memory every few steps, durable checkpoints less often."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mizzen.errors import UserError
from mizzen.train.checkpoints.persister import Persister
from mizzen.train.checkpoints.restore import Found, Restored, newest_in_memory, snapshots_here
from mizzen.train.checkpoints.snapshots import Snapshots
from mizzen.train.checkpoints.store import Checkpoint, Store
from mizzen.train.group.station import Kept
from mizzen.train.seams import Place
from mizzen_api.conditions import Reason

if TYPE_CHECKING:
    from mizzen.train.seams import Trainee

log = logging.getLogger(__name__)

FLUSH_SECONDS = 60.0  # that a checkpoint just in time may take; pods have two minutes
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0

T = TypeVar("T")


@dataclass(frozen=True)
class Keeping:
    """Where and how often. `memory` are folders for snapshots; empty: shared memory, then the temporary folder."""

    run_uid: str
    store: str  # URI of the checkpoints; empty: none are durable
    keep: int = 2
    snapshot_every: int = 10
    checkpoint_every: int = 100
    memory: tuple[str, ...] = ()

    @property
    def roots(self) -> list[Path] | None:
        return [Path(folder) for folder in self.memory] or None


class Keeper:
    """One member's. Used by its training thread alone."""

    def __init__(self, keeping: Keeping) -> None:
        self.keeping = keeping
        self.store = Store(keeping.store) if keeping.store else None
        self._snapshots = Snapshots(keeping.run_uid, roots=keeping.roots)
        self._persister = Persister(keeping.store, keeping.keep) if keeping.store else None

    def regroup(self, place: Place, name: str) -> None:
        self._snapshots.regroup(place, name)

    def after_step(self, trainee: Trainee) -> None:
        """Every rank keeps the same steps. UserError where the store refuses: no patience gives a permission."""
        self._check_permission()
        step, keeping = trainee.state.step, self.keeping
        durable = step % keeping.checkpoint_every == 0 and self._persister is not None
        if durable or step % keeping.snapshot_every == 0:
            self.take(trainee, durable=durable)

    def save(self, trainee: Trainee) -> bool:
        """Keep this very step before anything else, durable where there is a store: whether it is."""
        step, newest = trainee.state.step, self._snapshots.newest()
        if self._persister is None:
            if newest is None or newest.step != step:
                self.take(trainee, durable=False)
            return True
        if self._persister.status().written != step:
            self.take(trainee, durable=True)
            if not self._flushed(self._persister):
                log.warning("step %d could not be made durable in time", step)
                return False
        return True

    def _flushed(self, persister: Persister) -> bool:
        """Whether all is written in time; a store that refuses is not waited for."""
        deadline = time.monotonic() + FLUSH_SECONDS
        while not persister.flush(1.0):
            if time.monotonic() > deadline or persister.status().forbidden:
                return False
        return True

    def _check_permission(self) -> None:
        status = self._persister.status() if self._persister is not None else None
        if status is not None and status.forbidden:
            raise UserError(
                Reason.ARTIFACTS_FORBIDDEN,
                f"no checkpoint can be written: {status.error}: let user {os.getuid()} write to the volume or the "
                "bucket of the artifacts",
            )

    def take(self, trainee: Trainee, *, durable: bool) -> None:
        """A snapshot of this very step."""
        snapshot = self._snapshots.take(trainee)
        if snapshot is not None and durable and self._persister is not None:
            self._persister.submit(snapshot)

    @property
    def kept(self) -> Kept:
        newest = self._snapshots.newest()
        status = self._persister.status() if self._persister is not None else None
        return Kept(
            newest.step if newest is not None else -1,
            status.whole if status is not None else -1,
            (status.error if status is not None else "") or self._snapshots.note,
        )

    def in_memory(self) -> Restored | None:
        """What this host has of the run, from whatever process."""
        return newest_in_memory(self.keeping.run_uid, self.keeping.roots)

    def snapshots(self) -> list[Found]:
        """All whole ones of this host, newest first."""
        return snapshots_here(self.keeping.run_uid, self.keeping.roots)

    def durable(self, say: Callable[[str], None]) -> Checkpoint | None:
        """The newest; waits for a store that is away."""
        store = self.store
        return patiently(store.newest, say) if store is not None else None

    def open(self, folder: str) -> Checkpoint:
        assert self.store is not None
        found = self.store.open(folder)
        assert found is not None, f"{folder} was whole a moment ago"
        return found

    def close(self, *, keep: bool) -> None:
        """Snapshots go with a run that is over, and what is still written is needed no more."""
        if self._persister is not None:
            self._persister.close(timeout=FLUSH_SECONDS if keep else 0.0)
        self._snapshots.close(keep=keep)


def patiently(ask: Callable[[], T], say: Callable[[str], None]) -> T:
    """Ask an object store until it answers, less and less often. PermissionError passes: a person must act."""
    wait = _FIRST_WAIT
    while True:
        try:
            return ask()
        except PermissionError:
            raise
        except OSError as error:
            say(f"the artifact store does not answer: {error}")
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)
