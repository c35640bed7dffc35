"""Containers as processes: what they see, how they end, and that they outlive the agent. Linux only."""

# ruff: noqa: ASYNC110, ASYNC240 - tests wait for other processes: by looking, with a deadline

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from mizzen_local.agent.containers import Container
from mizzen_local.agent.launch import python_mounts
from mizzen_local.agent.sandbox import start_time

SECONDS = 10.0


def launch(folder: Path, script: str, **more: Any) -> dict[str, Any]:
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    kept = [mount.json() for mount in python_mounts()]
    mounts = [{"source": str(temporary), "target": "/tmp"}, *kept, *more.pop("mounts", [])]
    return {
        "argv": ["sh", "-c", script],
        "env": {"PATH": "/usr/bin:/bin"},
        "cwd": "/",
        "hostname": "pod-1",
        "hide": [str(folder)],
        "mounts": mounts,
        "termination_path": "/dev/termination-log",
        **more,
    }


def container(folder: Path) -> Container:
    return Container(folder, "c", lambda: None)


def log(subject: Container) -> str:
    text = (subject.attempt_folder() / "log").read_text()
    return "\n".join(line.split(" ", 3)[3] for line in text.splitlines())


def begin(subject: Container, folder: Path, script: str) -> None:
    subject.start(launch(folder, script), fallback_to_logs=False)


async def finished(folder: Path, script: str, **more: Any) -> Container:
    subject = container(folder)
    subject.start(launch(folder, script, **more), fallback_to_logs=True)
    assert await subject.wait_ended(SECONDS)
    return subject


async def test_a_container_has_its_own_world_and_leaves_no_trace(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "key").write_text("from the volume")
    mounts = [
        {"source": str(volume), "target": "/etc/mizzen", "read_only": True},
        {"source": str(volume), "target": "/var/run/secrets/mizzen.test/x"},
    ]
    script = """
    hostname; cat /etc/mizzen/key; echo; ls /var/run/secrets/mizzen.test/x
    touch /etc/mizzen/no 2>/dev/null || echo read-only
    echo trace > /usr/mizzen-trace && echo written
    echo 1 > /tmp/file; test $(ls -d /proc/[0-9]* | wc -l) -lt 8 && echo alone
    """
    subject = await finished(tmp_path, script, mounts=mounts)
    expected = ["pod-1", "from the volume", "key", "read-only", "written", "alone"]
    assert log(subject).split("\n") == expected
    assert not Path("/usr/mizzen-trace").exists() and not Path("/etc/mizzen").exists()
    assert (tmp_path / "tmp" / "file").exists()


async def test_a_read_only_root_stays_as_it_is(tmp_path: Path) -> None:
    subject = await finished(
        tmp_path, "touch /usr/x 2>/dev/null || echo no; touch /tmp/x && echo yes", read_only_root=True
    )
    assert log(subject) == "no\nyes"


@pytest.mark.parametrize(
    ("script", "code", "reason", "message"),
    [
        ("exit 0", 0, "Completed", ""),
        ("echo words; exit 7", 7, "Error", "words\n"),
        ("echo told > /dev/termination-log; exit 1", 1, "Error", "told\n"),
        ("kill -9 $$", 137, "Error", ""),
    ],
)
async def test_how_it_ended(tmp_path: Path, script: str, code: int, reason: str, message: str) -> None:
    subject = await finished(tmp_path, script)
    assert subject.exit is not None
    assert (subject.exit.code, subject.exit.reason, subject.exit.message) == (code, reason, message)


async def test_a_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    subject = await finished(tmp_path, "", argv=["no-such-command"])
    assert subject.exit is not None and subject.exit.reason == "StartError"
    assert 'exec: "no-such-command": executable file not found' in subject.exit.message


async def test_stopping_is_gentle_first_and_ends_every_process(tmp_path: Path) -> None:
    gentle = container(tmp_path / "a")
    (tmp_path / "a").mkdir()
    gentle.start(
        launch(tmp_path / "a", "trap 'echo bye; exit 5' TERM; echo up; sleep 60 & wait"), fallback_to_logs=False
    )
    await log_has(gentle, "up")
    await gentle.stop(SECONDS)
    assert gentle.exit is not None and gentle.exit.code == 5 and "bye" in log(gentle)
    (tmp_path / "b").mkdir()
    stubborn = container(tmp_path / "b")
    begin(stubborn, tmp_path / "b", "trap '' TERM; setsid sleep 60 & echo up; sleep 60")
    await log_has(stubborn, "up")
    await stubborn.stop(0.2)
    assert stubborn.exit is not None and stubborn.exit.code == 137


async def log_has(subject: Container, text: str) -> None:
    path = subject.attempt_folder() / "log"
    async with asyncio.timeout(SECONDS):
        while not path.exists() or text not in path.read_text():
            await asyncio.sleep(0.01)


@pytest.mark.slow
async def test_a_command_can_be_run_inside(tmp_path: Path) -> None:
    subject = container(tmp_path)
    begin(subject, tmp_path, "echo 1 > /usr/mark; echo up; sleep 60")
    await log_has(subject, "up")
    assert await subject.execute(["sh", "-c", "cat /usr/mark; hostname; exit 4"], SECONDS) == (4, "1\npod-1\n")
    assert (await subject.execute(["sleep", "60"], 0.2))[0] == 124
    await subject.stop(0)


async def test_containers_outlive_the_agent_and_are_adopted(tmp_path: Path) -> None:
    before = container(tmp_path)
    before.start(
        launch(tmp_path, "echo up; while ! test -e /tmp/go; do sleep 0.02; done; exit 9"), fallback_to_logs=False
    )
    await log_has(before, "up")
    before.release()  # as if the agent had died
    after = container(tmp_path)
    await after.adopt()
    assert after.running and after.restarts == 0
    (tmp_path / "tmp" / "go").touch()
    assert await after.wait_ended(SECONDS)
    later = container(tmp_path)
    await later.adopt()
    assert later.exit == after.exit and later.exit is not None and later.exit.code == 9


async def test_nothing_is_adopted_falsely(tmp_path: Path) -> None:
    subject = container(tmp_path)
    begin(subject, tmp_path, "echo up; sleep 60")
    await log_has(subject, "up")
    running = subject._read("running.json")
    os.kill(running["supervisor"], signal.SIGKILL)
    async with asyncio.timeout(SECONDS):
        while start_time(running["init"]) == running["initStart"]:  # init dies with its supervisor
            await asyncio.sleep(0.01)
    assert await subject.wait_ended(SECONDS)
    found = container(tmp_path)
    await found.adopt()
    assert not found.running and found.exit is not None and found.exit.reason == "ContainerStatusUnknown"
