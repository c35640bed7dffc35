"""Starting without a cluster: the state folder, the settings, and errors that a person can act on."""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
from pathlib import Path

import pytest
from rich.console import Console

from mizzen_local.agent.sandbox import boot_id, start_time, write_json
from mizzen_local.chart import ChartError, find_chart, merged, parse_values
from mizzen_local.daemon import explain
from mizzen_local.progress import Progress
from mizzen_local.ranges import Ranges, claim
from mizzen_local.state import StartError, State, StateError, default_state
from mizzen_local.up import UpOptions, daemon_options, down, unheeded, up


def test_the_default_state_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MIZZEN_HOME", str(tmp_path))
    assert default_state() == tmp_path
    monkeypatch.delenv("MIZZEN_HOME")
    assert default_state().name == ".mizzen"


def test_only_a_living_process_counts_as_running(tmp_path: Path) -> None:
    state = State(tmp_path)
    assert state.running() is None
    state.note_running(1234)
    assert state.running() == os.getpid()
    write_json(str(state.record), {"pid": os.getpid(), "start": "0", "boot": boot_id(), "port": 1})
    assert state.running() is None  # the pid is another process's now
    write_json(str(state.record), {"pid": os.getpid(), "start": start_time(os.getpid()), "boot": "x", "port": 1})
    assert state.running() is None  # the machine was restarted


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(StartError, match=r"cannot write to .*file/state.*--state-dir"):
        State(blocker / "state").prepare()


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = argparse.Namespace(total=10, used=10, free=2**20)
    monkeypatch.setattr("shutil.disk_usage", lambda _: full)
    with pytest.raises(StartError, match="only 1 MiB are free"):
        State(tmp_path / "state").prepare()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EADDRINUSE, "in use"), "port 6443 is taken by another process"),
        (OSError(errno.ENOSPC, "no space"), "disk of /x is full"),
        (ExceptionGroup("g", [OSError(errno.EADDRINUSE, "in use")]), "port 6443"),
        (StateError("no such range"), "no such range"),
        (RuntimeError("boom"), "did not start: boom"),
    ],
)
def test_errors_are_explained(error: Exception, words: str) -> None:
    assert words in explain(error, argparse.Namespace(port=6443, state=Path("/x")))


def test_values_merge_and_later_ones_win(tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text("a: {b: 1, c: 2}\nd: [1]")
    assert parse_values([file], ["a.b=3", "e=x"]) == {"a": {"b": 3, "c": 2}, "d": [1], "e": "x"}
    assert merged({"a": {"b": 1}}, {"a": 2}) == {"a": 2}


@pytest.mark.parametrize(
    ("text", "setting", "words"),
    [
        ("a: 1", "novalue", '--set novalue: key "novalue" has no value'),
        ("a: [", "b=1", "values.yaml: while parsing"),
        ("[1]", "b=1", "values.yaml: values are a mapping"),
    ],
)
def test_values_that_cannot_be_read_are_named_before_anything_starts(
    tmp_path: Path, text: str, setting: str, words: str
) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(text)
    options = UpOptions(tmp_path / "state", value_files=[file], settings=[setting])
    with pytest.raises(ChartError, match=re.escape(words)):
        up(options, Progress(Console(quiet=True)))
    assert not options.state.exists()


def test_the_repositorys_chart_is_found_and_a_wrong_one_named(tmp_path: Path) -> None:
    assert (find_chart() / "Chart.yaml").exists()
    with pytest.raises(ChartError, match="no Helm chart"):
        find_chart(tmp_path)


def test_clusters_on_one_machine_keep_apart_and_keep_their_addresses(tmp_path: Path) -> None:
    first = claim(tmp_path / "a.json")
    second = claim(tmp_path / "b.json")
    try:
        assert first.ranges.pods != second.ranges.pods and first.ranges.services != second.ranges.services
    finally:
        second.release()
    again = claim(tmp_path / "b.json")
    again.release()
    first.release()
    assert again.ranges == second.ranges
    chosen = claim(tmp_path / "a.json", pods="127.99.0.0/16")
    chosen.release()
    assert chosen.ranges == Ranges(first.ranges.services, "127.99.0.0/16")


def test_addresses_that_another_cluster_took_meanwhile_are_not_shared(tmp_path: Path) -> None:
    mine = claim(tmp_path / "a.json")
    mine.release()
    other = claim(tmp_path / "b.json", services=mine.ranges.services, pods=mine.ranges.pods)
    try:
        with pytest.raises(StateError, match=f"another cluster on this machine uses {mine.ranges.services}"):
            claim(tmp_path / "a.json")
    finally:
        other.release()
    again = claim(tmp_path / "a.json")
    again.release()
    assert again.ranges == mine.ranges


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"pods": "lots"}, "'lots' is no range of addresses"),
        ({"pods": "127.30.0.1/16"}, "has host bits set"),
        ({"pods": "10.244.0.0/16"}, "is not within 127.0.0.0/8"),
        ({"services": "::1/128"}, "is no range of addresses"),
        ({"services": "127.0.0.0/16"}, "holds 127.0.0.1"),
        ({"services": "127.20.0.0/30"}, "is too small"),
        ({"pods": "127.20.0.0/16", "services": "127.20.1.0/24"}, "overlap"),
        ({"pods": "127.20.0.0/16"}, "overlap"),
    ],
)
def test_ranges_that_cannot_be_are_refused_and_not_recorded(tmp_path: Path, wanted: dict[str, str], words: str) -> None:
    record = tmp_path / "ranges.json"
    with pytest.raises(StateError, match=words):
        claim(record, **wanted)
    assert not record.exists()


@pytest.mark.parametrize("text", ['{"services": "127.20.0.0/16", "pods": "10.0.0.0/8"}', '{"pod": 1}', "{", "[]"])
def test_a_record_of_ranges_that_cannot_be_used_is_written_anew(tmp_path: Path, text: str) -> None:
    record = tmp_path / "ranges.json"
    record.write_text(text)
    found = claim(record)
    found.release()
    assert json.loads(record.read_text()) == {"services": found.ranges.services, "pods": found.ranges.pods}


def test_options_that_a_running_cluster_does_not_heed_are_told(tmp_path: Path) -> None:
    state = State(tmp_path)
    started = UpOptions(tmp_path, port=7000, cpus=4.0, extended=["nvidia.com/gpu=1"])
    assert unheeded(state, started) == []  # nobody knows what it was started with
    write_json(str(state.options), daemon_options(started))
    assert unheeded(state, started) == []
    assert unheeded(state, UpOptions(tmp_path)) == []
    other = UpOptions(
        tmp_path, port=7000, cpus=2.0, memory="8Gi", extended=["nvidia.com/gpu=2"], pod_range="127.9.0.0/16"
    )
    assert unheeded(state, other) == ["--cpus", "--memory", "--pod-range", "--extended"]


def prepared(root: Path) -> State:
    """A folder as it looks after a cluster ran in it."""
    state = State(root)
    state.prepare()
    for name in ("pki", "node/pods", "volumes/default"):
        (root / name).mkdir(parents=True)
    for name in (
        "kubeconfig",
        "lock",
        "state.db-wal",
        "ranges.json",
        "ranges.json.123",
        "admin.token",
        "volumes/default/f",
    ):
        (root / name).write_text("x")
    return state


def test_purging_deletes_what_the_cluster_keeps_and_then_the_folder(tmp_path: Path) -> None:
    state = prepared(tmp_path / "state")
    assert state.purge() == []
    assert not state.root.exists()
    assert state.purge() == []


def test_purging_leaves_what_is_not_the_clusters(tmp_path: Path) -> None:
    state = prepared(tmp_path / "state")
    (state.root / "thesis.txt").write_text("mine")
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("mine")
    (state.root / "nodes").symlink_to(precious)
    assert state.purge() == ["thesis.txt"]
    assert sorted(path.name for path in state.root.iterdir()) == ["mizzen-state", "thesis.txt"]
    state.prepare()  # it is still the cluster's
    assert (precious / "file").exists()


def test_a_folder_that_no_cluster_made_is_not_purged(tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    with pytest.raises(StateError, match="is not deleted: no embedded cluster made it"):
        State(tmp_path).purge()
    assert (tmp_path / "node").is_dir()


def test_home_root_and_working_folder_are_never_purged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = prepared(tmp_path / "state")
    monkeypatch.chdir(state.root)
    for root in (state.root, Path("/")):
        with pytest.raises(StateError, match="is not deleted: it is your working folder, your home or the root of all"):
            State(root).check_purge()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(state.root))
    for call in (state.check_purge, state.purge):
        with pytest.raises(StateError, match="your home"):
            call()
    with pytest.raises(StartError, match="cannot be the cluster's own folder"):
        state.prepare()
    assert state.kubeconfig.exists()


def test_nothing_ends_when_a_purge_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(State, "stop_daemon", lambda *_: pytest.fail("stopped"))
    with pytest.raises(StateError):
        down(tmp_path, Progress(Console(quiet=True)), purge=True)


def test_a_folder_with_other_things_in_it_is_not_taken(tmp_path: Path) -> None:
    for name in ("b", "a", "d", "c", "node"):
        (tmp_path / name).mkdir()
    with pytest.raises(StartError, match=r"is not empty \(a, b, c and 1 more\): choose another folder"):
        State(tmp_path).prepare()
    assert not (tmp_path / "state.db").exists()


def test_a_folder_older_than_the_marker_is_still_the_clusters(tmp_path: Path) -> None:
    state = prepared(tmp_path / "state")
    (state.root / "mizzen-state").unlink()
    (state.root / "note").write_text("")
    state.prepare()
    assert (state.root / "mizzen-state").exists()


def test_the_folder_becomes_private_even_if_it_was_there_before(tmp_path: Path) -> None:
    root = tmp_path / "state"
    root.mkdir(mode=0o755)
    state = State(root)
    state.prepare()
    assert root.stat().st_mode & 0o777 == 0o700
    assert state.database.stat().st_mode & 0o777 == 0o600
    state.database.chmod(0o644)
    state.prepare()
    assert state.database.stat().st_mode & 0o777 == 0o600
    assert state.log.stat().st_mode & 0o777 == 0o600
