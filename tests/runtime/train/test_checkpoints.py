"""Snapshots and checkpoints: a run goes on from either as if nothing had been, and only whole ones are read."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mizzen.train.checkpoints import room
from mizzen.train.checkpoints.parts import read_table
from mizzen.train.checkpoints.persister import Persister
from mizzen.train.checkpoints.pieces import LOCAL, Piece, laid_out, share
from mizzen.train.checkpoints.restore import newest, newest_in_memory, snapshots_here
from mizzen.train.checkpoints.slots import View
from mizzen.train.checkpoints.snapshots import Snapshots, clear
from mizzen.train.checkpoints.store import MANIFEST, Origin, Store
from mizzen.train.seams import Place
from tests.runtime.train.trainee import TinyTrainee

UID = f"test-{os.getpid()}"


@pytest.fixture(autouse=True)
def tidy() -> Iterator[None]:
    yield
    clear(UID)


@pytest.fixture
def persister(tmp_path: Path) -> Iterator[Persister]:
    persister = Persister(str(tmp_path / "store"), keep=2)
    yield persister
    persister.close(10)


def undisturbed() -> tuple[list[float], TinyTrainee]:
    trainee = TinyTrainee(residual=True)
    return trainee.advance(trainee.total_steps), trainee


def same(one: TinyTrainee, other: TinyTrainee) -> bool:
    mine, its = one.tensors() | one.local_tensors(), other.tensors() | other.local_tensors()
    return mine.keys() == its.keys() and all(torch.equal(mine[name], its[name]) for name in mine)


def test_a_run_goes_on_from_memory_bit_by_bit() -> None:
    losses, whole = undisturbed()
    first = TinyTrainee(residual=True)
    snapshots = Snapshots(UID)
    before = first.advance(7)
    assert snapshots.take(first) is not None
    first.advance(3)  # lost
    snapshots.close(keep=True)

    restored = newest_in_memory(UID)
    assert restored is not None and restored.state.step == 7 and not restored.durable
    second = TinyTrainee(residual=True)
    restored.into(second)
    after = second.advance(second.total_steps)
    assert before + after == losses
    assert same(second, whole) and second.state == whole.state
    assert sorted(first.seen[: 7 * 6] + second.seen) == sorted(whole.seen)


def test_a_run_goes_on_from_the_store_bit_by_bit(tmp_path: Path, persister: Persister) -> None:
    losses, whole = undisturbed()
    first = TinyTrainee(residual=True)
    snapshots = Snapshots(UID)
    before = first.advance(13)
    snapshot = snapshots.take(first)
    assert snapshot is not None
    persister.submit(snapshot)
    assert persister.flush(30)
    status = persister.status()
    assert (status.written, status.whole, status.error) == (13, 13, "") and status.nbytes > 0
    snapshots.close()

    restored = newest(Store(str(tmp_path / "store")), UID)
    assert restored is not None and restored.durable
    second = TinyTrainee(residual=True)
    restored.into(second)
    assert before + second.advance(second.total_steps) == losses
    assert same(second, whole) and second.state == whole.state


def test_memory_wins_where_it_is_newer(tmp_path: Path, persister: Persister) -> None:
    trainee, snapshots = TinyTrainee(), Snapshots(UID)
    trainee.advance(2)
    persister.submit(snapshots.take(trainee))  # type: ignore[arg-type]
    assert persister.flush(30)
    trainee.advance(1)
    snapshots.take(trainee)
    store = Store(str(tmp_path / "store"))
    found = newest(store, UID)
    assert found is not None and found.state.step == 3 and not found.durable
    snapshots.close()
    found = newest(store, UID)
    assert found is not None and found.state.step == 2 and found.durable


def test_a_pair_of_slots_takes_turns_and_the_end_leaves_nothing() -> None:
    trainee, snapshots = TinyTrainee(), Snapshots(UID)
    for _ in range(5):
        trainee.advance(1)
        assert snapshots.take(trainee) is not None
    assert [found.header.step for found in snapshots_here(UID)] == [5, 4]
    folder = snapshots_here(UID)[0].view.path.parent
    assert folder.parent == room.MEMORY and folder.stat().st_mode & 0o777 == 0o700
    assert snapshots.bytes_held == sum(path.stat().st_size for path in folder.iterdir())
    snapshots.close()
    assert not folder.exists()


def test_a_copy_that_was_cut_short_leaves_the_older_one() -> None:
    trainee, snapshots = TinyTrainee(), Snapshots(UID)
    for _ in range(2):
        trainee.advance(1)
        snapshots.take(trainee)
    newest_slot = snapshots.newest()
    assert newest_slot is not None
    newest_slot.slot.begin()  # what a kill in the middle leaves
    found = newest_in_memory(UID)
    assert found is not None and found.state.step == 1


def test_bytes_that_changed_after_the_commit_are_noticed(caplog: pytest.LogCaptureFixture) -> None:
    trainee, snapshots = TinyTrainee(), Snapshots(UID)
    for _ in range(2):
        trainee.advance(1)
        snapshots.take(trainee)
    snapshot = snapshots.newest()
    assert snapshot is not None
    snapshot.slot.memory[snapshot.slot.data_start + 5] ^= 1
    found = newest_in_memory(UID)
    assert found is not None and found.state.step == 1
    assert "step 2 in memory is corrupted" in caplog.text


def test_a_layout_that_changes_gets_new_slots() -> None:
    trainee, snapshots = TinyTrainee(), Snapshots(UID)
    snapshots.take(trainee)  # the optimizer has no moments yet
    trainee.advance(4)
    snapshots.take(trainee)
    trainee.advance(1)
    snapshots.take(trainee)
    assert [found.header.step for found in snapshots_here(UID)] == [5, 4]
    second = TinyTrainee()
    restored = newest_in_memory(UID)
    assert restored is not None
    restored.into(second)
    assert same(second, trainee)


def test_where_memory_is_short_a_file_takes_the_snapshots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.mkdir()
    large.mkdir()
    free = room.free_bytes
    monkeypatch.setattr(room, "free_bytes", lambda root: 1000 if root == small else free(root))
    trainee = TinyTrainee()
    trainee.advance(1)
    snapshots = Snapshots(UID, roots=(small, large))
    assert snapshots.take(trainee) is not None
    assert f"{small} has no room" in snapshots.note and "/dev/shm" in snapshots.note
    restored = newest_in_memory(UID, (small, large))
    assert restored is not None and restored.state.step == 1

    snapshots = Snapshots(UID, roots=(small,))
    assert snapshots.take(trainee) is None and "no room" in snapshots.note


def test_what_a_dead_owner_left_goes_when_its_successor_has_two() -> None:
    code = (
        "from tests.runtime.train.trainee import TinyTrainee\n"
        "from mizzen.train.checkpoints.snapshots import Snapshots\n"
        f"trainee, snapshots = TinyTrainee(), Snapshots({UID!r})\n"
        "for _ in range(2):\n    trainee.advance(1)\n    snapshots.take(trainee)\nimport os\nos._exit(1)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 1
    assert [found.header.step for found in snapshots_here(UID)] == [2, 1]
    trainee, snapshots = TinyTrainee(), Snapshots(UID)
    restored = newest_in_memory(UID)
    assert restored is not None
    restored.into(trainee)
    for expected in ([3, 2, 1], [4, 3]):
        trainee.advance(1)
        snapshots.take(trainee)
        assert [found.header.step for found in snapshots_here(UID)] == expected


def test_only_the_newest_are_kept_and_readers_of_safetensors_can_open_them(
    tmp_path: Path, persister: Persister
) -> None:
    trainee, snapshots = TinyTrainee(), Snapshots(UID)
    for _ in range(4):
        trainee.advance(1)
        persister.submit(snapshots.take(trainee))  # type: ignore[arg-type]
        assert persister.flush(30)
    store = Store(str(tmp_path / "store"))
    assert [checkpoint.step for checkpoint in store.checkpoints()] == [4, 3]
    assert len(list((tmp_path / "store").iterdir())) == 2
    (part,) = (tmp_path / "store").glob("step-*4-0/*.safetensors")
    loaded = load_file(part)
    assert loaded.keys() == trainee.tensors().keys()
    assert all(torch.equal(loaded[name], value) for name, value in trainee.tensors().items())


def written_by(store: Store, trainees: list[TinyTrainee], group: str = "g", ranks: list[int] | None = None) -> None:
    """What the ranks of a group write, one after the other."""
    for rank in ranks if ranks is not None else range(len(trainees)):
        snapshots = Snapshots(UID, rank, len(trainees), group)
        snapshot = snapshots.take(trainees[rank])
        assert snapshot is not None
        view = View(snapshot.path)
        header = view.header()
        assert header is not None
        origin = Origin(header.step, rank, len(trainees), group, header.state["state"])
        with memoryview(view.memory) as whole, whole[header.data_start :] as data:
            store.write(origin, header.pieces, data, keep=3)
        snapshots.close()


def ranks_of(world: int, steps: int) -> list[TinyTrainee]:
    trainees = [TinyTrainee(residual=True) for _ in range(world)]
    for rank, trainee in enumerate(trainees):
        trainee.join(Place(rank, world))
        trainee.advance(steps)
    return trainees


def test_ranks_share_the_writing_and_others_than_those_can_read_it(tmp_path: Path) -> None:
    store, trainees = Store(tmp_path.as_uri()), ranks_of(3, 4)
    written_by(store, trainees)
    checkpoint = store.newest()
    assert checkpoint is not None and checkpoint.world == 3
    tables = [read_table(store.files, f"{checkpoint.folder}/{part.file}") for part in checkpoint.parts]
    rows = [{(piece.key, piece.offsets) for piece in table if piece.kind != LOCAL} for table in tables]
    assert all(rows) and not rows[0] & rows[1] and not rows[1] & rows[2]
    restored = checkpoint.load()
    alone = TinyTrainee(residual=True)
    restored.into(alone)
    assert all(torch.equal(value, alone.tensors()[name]) for name, value in trainees[0].tensors().items())
    expected = torch.stack([trainee.local_tensors()["residual"] for trainee in trainees]).mean(dim=0)
    assert torch.equal(alone.local_tensors()["residual"], expected) and expected.abs().sum() > 0


def test_half_of_a_checkpoint_is_none_and_two_formations_do_not_mix(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    written_by(store, ranks_of(2, 2), "old")
    written_by(store, ranks_of(2, 4), "old", ranks=[0])  # and the group broke
    found = store.newest()
    assert found is not None and found.step == 2
    written_by(store, ranks_of(2, 4), "new", ranks=[1])
    found = store.newest()
    assert found is not None and found.step == 2
    written_by(store, ranks_of(2, 4), "new", ranks=[0])
    found = store.newest()
    assert found is not None and (found.step, found.folder[-3:]) == (4, "new")
    written_by(store, ranks_of(2, 5), "new")
    assert not (tmp_path / "step-000000000004-old").exists()


@pytest.mark.parametrize("harm", ["flip", "cut", "remove", "manifest"])
def test_a_corrupted_checkpoint_is_set_aside_for_the_older_one(
    tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(str(tmp_path))
    for step in (3, 5):
        written_by(store, ranks_of(2, step))
    folder = tmp_path / "step-000000000005-g"
    part = folder / "rank-00001-of-00002.safetensors"
    raw = bytearray(part.read_bytes())
    if harm == "flip":
        raw[-3] ^= 4
        part.write_bytes(raw)
    elif harm == "cut":
        part.write_bytes(raw[:-1])
    elif harm == "remove":
        part.unlink()
    else:
        (folder / MANIFEST).write_text('{"step": 5')
    found = store.newest()
    assert found is not None and found.step == 3
    assert folder.name in caplog.text
    written_by(store, ranks_of(2, 4))  # which is newer than what is left, and must not be pruned for it
    found = store.newest()
    assert found is not None and found.step == 4


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_each_row_is_written_by_one_rank(world: int) -> None:
    shapes: list[tuple[int, ...]] = [(4, 3), (), (1,), (50, 2), (0, 3), (2, 1000), ()]
    pieces, _ = laid_out(
        Piece(f"t{number}", "F32", shape, (0,) * len(shape), shape) for number, shape in enumerate(shapes)
    )
    parts = [share(pieces, rank, world) for rank in range(world)]
    for piece in pieces:
        mine = sorted(
            (one.offsets[:1], one.size, one.start) for part in parts for one in part if one.name == piece.name
        )
        assert sum(size[0] if size else 1 for _, size, _ in mine) == (piece.size[0] if piece.size else 1)
        assert [start for _, _, start in mine] == sorted({start for _, _, start in mine})
    largest = max(sum(one.nbytes for one in part) for part in parts)
    assert largest <= sum(piece.nbytes for piece in pieces) / world + 4000
