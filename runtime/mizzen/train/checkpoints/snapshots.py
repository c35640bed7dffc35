"""A rank's snapshots in memory: copied between two steps, whole at any moment, and there after the process is gone.

Upstream: any seams.Trainee. Downstream: persister.py writes them to a store, restore.py reads them after a crash.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mizzen.train.checkpoints import room
from mizzen.train.checkpoints.slots import Slot, View, is_owned
from mizzen.train.seams import Place

if TYPE_CHECKING:
    from mizzen.train.checkpoints.copying import Copier
    from mizzen.train.seams import Trainee, TrainState

log = logging.getLogger(__name__)

STATE_ROOM = 64 * 1024  # bytes, at least
MOST_SLOTS = 4
IDLE_TAKES = 8  # snapshots after which a slot that none of them needed goes


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A step of a run in memory. Whoever reads it in this process's lifetime holds it, so that it is not written."""

    path: Path
    step: int
    nbytes: int
    slot: Slot

    def hold(self, holder: object) -> None:
        self.slot.holders.add(holder)

    def release(self, holder: object) -> None:
        self.slot.holders.discard(holder)


class Snapshots:
    """The snapshots that one process takes. Two slots take turns; a slot that is still read is left alone.

    `group` names the formation of the group: all ranks of it share the name, no other formation has it. `bytes_held`
    is twice a rank's tensors, and where the store is slow up to five times: what is written, what waits, and what has
    just been replaced stay as they are. Further slots are made ahead in the background, for a large one takes a second.
    """

    def __init__(
        self, run_uid: str, rank: int = 0, world: int = 1, group: str = "0", roots: Sequence[Path] | None = None
    ) -> None:
        self.run_uid, self.note = run_uid, ""  # what a person should know of where the snapshots lie
        self._roots = tuple(roots) if roots is not None else room.roots()
        self._owner = f"rank-{rank:05d}-{os.getpid()}-{secrets.token_hex(3)}"
        self._slots: list[Slot] = []
        self._newest: Snapshot | None = None
        self._copier: Copier | None = None
        self._coming: threading.Thread | None = None  # makes the last snapshot whole
        self._making: threading.Thread | None = None  # makes a slot for the next one
        self._taken = self._made = self._idle = 0
        self.regroup(Place(rank, world), group)
        for root in self._roots:
            with contextlib.suppress(OSError):
                room.sweep(root, room.run_folder(root, run_uid))

    def regroup(self, place: Place, group: str) -> None:
        """Later snapshots are of this place in the group that stands now."""
        self.settle()
        self._made_ahead()
        self.place, self.group, self._taken_here = place, group, 0
        self._forget_layout()  # shards of another group are other pieces

    def take(self, trainee: Trainee) -> Snapshot | None:
        """Copy what `trainee` is now. None where there is no room, with `note` saying so: training goes on without."""
        from mizzen.train.checkpoints.copying import Copier

        self.settle()
        tensors, local = trainee.tensors(), trainee.local_tensors()
        state = self._state(trainee.state)
        if self._copier is None or not self._copier.fits(tensors, local):
            self._made_ahead()
            self._forget_layout()
            self._copier = Copier(tensors, local)
        slot = self._slot(self._copier, state)
        if slot is None:
            return None
        self._taken += 1
        self._taken_here += 1
        slot.begin()
        arrive = self._copier.copy(slot, tensors, local)
        snapshot = Snapshot(slot.path, trainee.state.step, slot.data_bytes, slot)
        if arrive is None:
            self._commit(snapshot, self._taken, state)
        else:
            self._coming = threading.Thread(target=self._await, args=(arrive, snapshot, self._taken, state))
            self._coming.start()
        return snapshot

    def settle(self) -> None:
        """Wait until the snapshot that was taken last is whole, where a device still sends it."""
        if self._coming is not None:
            self._coming.join()
            self._coming = None

    def _await(self, arrive: Callable[[], None], snapshot: Snapshot, number: int, state: bytes) -> None:
        try:
            arrive()
        except Exception as error:
            log.warning("the snapshot of step %d did not reach memory: %s", snapshot.step, error)
            return
        self._commit(snapshot, number, state)

    def _commit(self, snapshot: Snapshot, number: int, state: bytes) -> None:
        snapshot.slot.commit(snapshot.step, number, state)
        self._newest = snapshot
        self._tidy()

    def newest(self) -> Snapshot | None:
        """The last one that this process took, as soon as it is whole."""
        return self._newest

    @property
    def bytes_held(self) -> int:
        return sum(len(slot.memory) for slot in self._slots)

    def close(self, *, keep: bool = False) -> None:
        """End. A run that is over keeps nothing; one that shall go on in another process keeps its slots."""
        self.settle()
        self._made_ahead()
        self._forget_layout()
        for slot in self._slots:
            slot.close(keep=keep)
        self._slots, self._newest = [], None
        if not keep:
            for root in self._roots:
                with contextlib.suppress(OSError):  # others of this host are still there, or it was never made
                    room.run_folder(root, self.run_uid).rmdir()

    def _forget_layout(self) -> None:
        if self._copier is not None:
            self._copier.close()
        self._copier = None

    def _state(self, state: TrainState) -> bytes:
        place = {"rank": self.place.rank, "world": self.place.world, "group": self.group}
        return json.dumps({**place, "state": asdict(state)}).encode()

    def _slot(self, copier: Copier, state: bytes) -> Slot | None:
        """One to write into: a free one, or the one that is made, or a new one."""
        if not self._free():
            self._made_ahead()
        for slot in self._free():
            if slot.fits(state):
                return slot
        return self._new_slot(copier, max(STATE_ROOM, 2 * len(state)))

    def _free(self) -> list[Slot]:
        """Of the present layout, read by nobody, and not the newest."""
        newest = self._newest.slot if self._newest else None
        copier = self._copier
        return [
            slot
            for slot in list(self._slots)
            if slot is not newest and not slot.holders and copier is not None and copier.laid_out_as(slot)
        ]

    def _make_ahead(self) -> None:
        """So that the next snapshot finds a free slot."""
        copier = self._copier
        made = self._making is None or not self._making.is_alive()
        if copier is None or not made or self._free() or len(self._slots) >= MOST_SLOTS:
            return
        self._making = threading.Thread(target=self._new_slot, args=(copier, STATE_ROOM), daemon=True)
        self._making.start()

    def _made_ahead(self) -> None:
        if self._making is not None:
            self._making.join()
            self._making = None

    def _new_slot(self, copier: Copier, state_room: int) -> Slot | None:
        """In the first place that has room for all slots of a pair that are not there yet."""
        wanted = (copier.data_bytes + state_room) * (1 if self._slots else 2)
        for root in self._roots:
            if room.free_bytes(root) < wanted:
                self._drop_dead(root)
            try:
                if room.free_bytes(root) >= wanted:
                    self._made += 1
                    path = room.slot_file(room.make_run_folder(root, self.run_uid), self._owner, self._made)
                    slot = Slot(path, copier.pieces, copier.data_bytes, state_room)
                    copier.prepare(slot)
                    self._slots.append(slot)
                    self._tell_place(root, wanted)
                    return slot
            except OSError as error:
                log.warning("snapshots cannot lie in %s: %s", root, error)
        self._say(f"no room for snapshots of {wanted / 1e6:.0f} MB in {' or '.join(map(str, self._roots))}")
        return None

    def _tell_place(self, root: Path, wanted: int) -> None:
        if root != self._roots[0]:
            self._say(
                f"{self._roots[0]} has no room for snapshots of {wanted / 1e6:.0f} MB: they lie in {root}; "
                "give the pod more memory, or a larger /dev/shm"
            )

    def _say(self, note: str) -> None:
        if note != self.note:
            self.note = note
            log.warning("%s", note)

    def _tidy(self) -> None:
        """Keep a pair and what is held. Slots of dead owners go when all ranks of this group must have newer ones."""
        free = self._free()
        self._idle = self._idle + 1 if len(free) > 1 else 0
        spare = free[1:] if self._idle >= IDLE_TAKES else []
        newest = self._newest.slot if self._newest else None
        for slot in list(self._slots):
            if slot in spare or (slot is not newest and not slot.holders and slot not in free):
                self._slots.remove(slot)
                if self._copier is not None:
                    self._copier.forget(slot)
                slot.close(keep=False)
        self._make_ahead()
        if self._taken_here == 2:
            for root in self._roots:
                self._drop_dead(root, newest_too=True)

    def _drop_dead(self, root: Path, *, newest_too: bool = False) -> None:
        """Remove slots whose owners are gone: all, or those that are not the newest of their owner."""
        steps: dict[Path, int] = {}
        for path in room.slot_files(room.run_folder(root, self.run_uid)):
            if not is_owned(path):
                with contextlib.suppress(OSError, ValueError):
                    header = View(path).header()
                    steps[path] = header.step if header is not None else -1
        for path, step in steps.items():
            rivals = [other for key, other in steps.items() if _owner(key) == _owner(path)]
            if newest_too or step < max(rivals):
                path.unlink(missing_ok=True)


def clear(run_uid: str, roots: Sequence[Path] | None = None) -> None:
    """Remove all that a run has left in the memory of this host."""
    for root in roots if roots is not None else room.roots():
        folder = room.run_folder(root, run_uid)
        for path in room.slot_files(folder):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()


def _owner(path: Path) -> str:
    return path.name.rpartition("-")[0]
