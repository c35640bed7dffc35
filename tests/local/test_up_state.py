"""Starting without a cluster: the state folder, the settings, and errors that a person can act on."""

from __future__ import annotations

import argparse
import errno
import os
from pathlib import Path

import pytest

from mizzen_local.agent.sandbox import boot_id, start_time, write_json
from mizzen_local.chart import ChartError, find_chart, merged, parse_values
from mizzen_local.daemon import explain
from mizzen_local.ranges import Ranges, claim
from mizzen_local.state import StartError, State, default_state


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
