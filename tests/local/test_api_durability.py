"""`kill -9` at any moment loses no acknowledged write: 200 deaths of a process that writes to one store."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from mizzen_local.api.store import Store

DEATHS = 200
BUCKET, NAMESPACE = "configmaps", "default"
Contents = dict[str, int]  # name to the number that was written last


def write_forever(path: Path, seed: int, told: Connection) -> None:
    """Announce each write, commit it, acknowledge it; the other end kills this process whenever it likes."""
    store, chance = Store(path), random.Random(seed)
    while True:
        name, value = f"m{chance.randrange(20)}", chance.randrange(10**6)
        exists = store.get(BUCKET, NAMESPACE, name) is not None
        remove = exists and chance.random() < 0.3
        told.send_bytes(json.dumps(["will", name, None if remove else value]).encode())
        if remove:
            store.remove(BUCKET, NAMESPACE, name)
        else:
            store.put(BUCKET, NAMESPACE, name, {"metadata": {"name": name}, "value": value})
        told.send_bytes(json.dumps(["done", name, store.rv]).encode())


def contents(path: Path) -> tuple[Contents, int]:
    store = Store(path)
    try:
        return {e.obj["metadata"]["name"]: e.obj["value"] for e in store.entries(BUCKET)}, store.rv
    finally:
        store.close()


def changed(before: Contents, name: str, value: int | None) -> Contents:
    after = {key: kept for key, kept in before.items() if key != name}
    return after if value is None else {**after, name: value}


@pytest.mark.slow
def test_no_acknowledged_write_is_lost(tmp_path: Path) -> None:
    path, chance = tmp_path / "state.db", random.Random(1)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mizzen_local.api.store"])
    known: Contents = {}
    version = writes = interrupted = 0
    for death in range(DEATHS):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=write_forever, args=(path, death, theirs))
        process.start()
        theirs.close()
        lifetime = chance.randrange(1, 60)
        pending: tuple[str, int | None] | None = None
        messages = 0
        while True:
            try:
                kind, name, value = json.loads(ours.recv_bytes())
            except EOFError:
                break
            messages += 1
            if kind == "will":
                pending = (name, value)
            elif pending is not None:
                known, version, pending, writes = changed(known, *pending), value, None, writes + 1
            if messages == lifetime and process.pid:
                os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        found, rv = contents(path)
        assert rv >= version, "resource versions never go back"
        if pending and found == changed(known, *pending):  # committed, and killed before it could say so
            interrupted += found != known
            known = found
        assert found == known, f"after death {death}"
    assert writes > 10 * DEATHS
    assert interrupted > 0, "some deaths fell between commit and acknowledgement"
