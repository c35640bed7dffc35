"""A full disk: writes are refused in words for its owner, nothing is half-done, and what is there can be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from mizzen_local.api.store import Store
from mizzen_local.client import ApiError

BUCKET, NAMESPACE = "configmaps", "default"


def config(name: str, size: int = 0) -> dict[str, object]:
    return {"metadata": {"name": name}, "data": {"k": "x" * size}}


def test_a_full_disk_is_told_with_folder_and_mend(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.db")
    try:
        store.put(BUCKET, NAMESPACE, "a", config("a"))
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count={pages}")  # SQLite's own error of a full disk
        version = store.rv
        with pytest.raises(ApiError, match=f"the disk of {tmp_path} is full: free some space, then try again") as error:
            store.put(BUCKET, NAMESPACE, "b", config("b", 10**6))
        assert (error.value.code, error.value.reason) == (507, "InsufficientStorage")
        assert store.rv == version
        assert store.get(BUCKET, NAMESPACE, "b") is None
        assert [entry.obj["metadata"]["name"] for entry in store.entries(BUCKET)] == ["a"]
        store._db.execute("PRAGMA max_page_count=1000000")
        store.put(BUCKET, NAMESPACE, "b", config("b", 10**6))
        store.remove(BUCKET, NAMESPACE, "a")
    finally:
        store.close()
    again = Store(tmp_path / "state.db")
    try:
        assert [entry.obj["metadata"]["name"] for entry in again.entries(BUCKET)] == ["b"]
    finally:
        again.close()


def test_a_removal_on_a_full_disk_is_not_done_by_half(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.db")
    try:
        store.put(BUCKET, NAMESPACE, "a", config("a"))
        store._db.execute("CREATE TRIGGER full BEFORE INSERT ON versions BEGIN SELECT RAISE(ROLLBACK, 'gone'); END")
        with pytest.raises(Exception, match="gone"):  # rolled back already, as SQLite does when the disk is full
            store.remove(BUCKET, NAMESPACE, "a")
        assert store.get(BUCKET, NAMESPACE, "a") is not None
        store._db.execute("DROP TRIGGER full")
        store.remove(BUCKET, NAMESPACE, "a")
    finally:
        store.close()
