"""Stores that fail: away, full, without permission, slow. Training goes on, and what can be written later is."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from mizzen.train.checkpoints.persister import Persister, PersistStatus
from mizzen.train.checkpoints.snapshots import IDLE_TAKES, MOST_SLOTS, Snapshot, Snapshots, clear
from mizzen.train.checkpoints.store import Store
from mizzen.train.checkpoints.writer import explained
from tests.runtime.data.buckets import free_ports, seaweed
from tests.runtime.train.trainee import TinyTrainee

UID = f"test-store-{os.getpid()}"
DEADLINE = 60.0  # seconds


@pytest.fixture(autouse=True)
def tidy() -> Iterator[None]:
    yield
    clear(UID)


@pytest.fixture
def trainee() -> TinyTrainee:
    return TinyTrainee(residual=True)


@pytest.fixture
def snapshots() -> Iterator[Snapshots]:
    snapshots = Snapshots(UID)
    yield snapshots
    snapshots.close()


def taken(snapshots: Snapshots, trainee: TinyTrainee) -> Snapshot:
    trainee.advance(1)
    snapshot = snapshots.take(trainee)
    assert snapshot is not None
    return snapshot


def until(persister: Persister, reached: Callable[[PersistStatus], bool]) -> PersistStatus:
    deadline = time.monotonic() + DEADLINE
    while not reached(persister.status()):
        assert time.monotonic() < deadline, persister.status()
        time.sleep(0.01)
    return persister.status()


def test_the_writing_process_needs_no_torch() -> None:
    code = (
        "import sys, mizzen.train.checkpoints.writer\nassert not {'torch', 'numpy', 'ray', 'polars'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_store_that_is_away_is_tried_again_and_the_newest_waits(
    tmp_path: Path, snapshots: Snapshots, trainee: TinyTrainee
) -> None:
    store = tmp_path / "store"
    store.write_text("a file where a folder should be: nothing can be written below")
    persister = Persister(str(store))
    try:
        persister.submit(taken(snapshots, trainee))
        status = until(persister, lambda status: status.error != "")
        assert f"{store} does not take the checkpoint" in status.error and not status.forbidden
        for _ in range(4):
            persister.submit(taken(snapshots, trainee))
        assert len(snapshots._slots) <= MOST_SLOTS + 1
        store.unlink()
        assert persister.flush(DEADLINE)
        status = persister.status()
        assert (status.written, status.whole, status.error) == (5, 5, "")
        newest = Store(str(store)).newest()
        assert newest is not None and newest.step == 5
        second = TinyTrainee(residual=True)
        newest.load().into(second)
        assert all(torch.equal(value, second.tensors()[name]) for name, value in trainee.tensors().items())
    finally:
        persister.close(1)


def test_one_waits_and_a_newer_one_takes_its_place(tmp_path: Path, snapshots: Snapshots, trainee: TinyTrainee) -> None:
    """A writer that is stopped stands for a slow store: nothing that it reads is written meanwhile."""
    persister = Persister(str(tmp_path))
    os.kill(persister.pid, 19)  # SIGSTOP
    try:
        first = taken(snapshots, trainee)
        before = bytes(first.slot.memory)
        persister.submit(first)
        for _ in range(6):
            persister.submit(taken(snapshots, trainee))
        status = persister.status()
        assert (status.running, status.pending, status.written) == (1, 7, -1)
        assert bytes(first.slot.memory) == before
        assert len(snapshots._slots) <= MOST_SLOTS
    finally:
        os.kill(persister.pid, 18)  # SIGCONT
    assert persister.flush(DEADLINE)
    assert sorted(found.step for found in Store(str(tmp_path)).checkpoints()) == [1, 7]
    for _ in range(IDLE_TAKES + 1):
        taken(snapshots, trainee)
    assert len(snapshots._slots) == 2, "what nobody needs any more goes"
    assert persister.close()


def test_a_stop_is_for_the_training_and_not_for_its_writer(
    tmp_path: Path, snapshots: Snapshots, trainee: TinyTrainee
) -> None:
    persister = Persister(str(tmp_path))
    persister.submit(taken(snapshots, trainee))
    assert persister.flush(DEADLINE)
    os.kill(persister.pid, 15)
    persister.submit(taken(snapshots, trainee))
    assert persister.close() and persister.status().whole == 2


@pytest.mark.parametrize(
    ("error", "said", "forbidden"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "is full", False),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "is full", False),
        (PermissionError(errno.EACCES, "Permission denied"), "may not be written", True),
        (OSError(errno.EROFS, "Read-only file system"), "may not be written", True),
        (OSError("When completing multiple part upload: AWS Error NETWORK_CONNECTION"), "does not take", False),
    ],
)
def test_what_is_wrong_with_a_store_is_told(error: Exception, said: str, forbidden: bool) -> None:
    text, refused = explained(error, "s3://bucket/run")
    assert f"the store s3://bucket/run {said}" in text and refused is forbidden


def test_a_full_disk_is_told_and_what_fits_later_is_written(
    tmp_path: Path, snapshots: Snapshots, trainee: TinyTrainee
) -> None:
    """The writer's limit on the size of files stands for the disk's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        persister = Persister(str(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    persister.submit(taken(snapshots, trainee))
    assert f"the store {tmp_path} is full" in until(persister, lambda status: status.error != "").error
    assert Store(str(tmp_path)).checkpoints() == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    trainee.advance(5)
    resource.prlimit(persister.pid, resource.RLIMIT_FSIZE, (soft, hard))
    assert persister.flush(DEADLINE) and persister.status().error == ""
    assert persister.close()


@pytest.mark.cluster
def test_checkpoints_lie_in_a_bucket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshots: Snapshots, trainee: TinyTrainee
) -> None:
    with seaweed(tmp_path) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mizzen")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-that-is-not-shown")
        store = Store("s3://raw/runs/x")
        assert store.newest() is None
        persister = Persister("s3://raw/runs/x", keep=2)
        for _ in range(3):
            persister.submit(taken(snapshots, trainee))
            assert persister.flush(DEADLINE), persister.status()
        assert persister.close()
        assert [found.step for found in store.checkpoints()] == [3, 2]
        newest = store.newest()
        assert newest is not None
        second = TinyTrainee(residual=True)
        newest.load().into(second)
        assert second.advance(50) == trainee.advance(50)

        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-one")
        with pytest.raises(PermissionError):
            Store("s3://raw/runs/x").newest()
        refused = Persister("s3://raw/runs/x")
        refused.submit(taken(snapshots, trainee))
        status = until(refused, lambda status: status.error != "")
        assert status.forbidden and "may not be written" in status.error and "wrong-one" not in status.error
        refused.close(0.1)
    (closed,) = free_ports(1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed}")
    with pytest.raises(OSError):
        Store("s3://raw/runs/x").newest()
