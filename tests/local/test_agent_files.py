"""What a pod's volumes hold, whom its containers are, and how the node tells of gates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mizzen_local.agent import atomic_files
from mizzen_local.agent.environment import ConfigError
from mizzen_local.agent.images import Image
from mizzen_local.agent.lifecycle import Decision, View
from mizzen_local.agent.logs import LogQuery, batches, printed
from mizzen_local.agent.security import Identity, accounts, identity
from mizzen_local.agent.status import pod_status
from mizzen_local.client import Object

META = {"name": "p", "namespace": "ns", "uid": "u"}


def test_files_change_all_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "volume"
    assert atomic_files.write(folder, {"a": (b"1", 0o644), "b/c": (b"2", 0o400)})
    assert (folder / "a").is_symlink() and (folder / "b" / "c").read_bytes() == b"2"
    assert (folder / "b" / "c").stat().st_mode & 0o777 == 0o400
    before = (folder / "..data").resolve()
    assert not atomic_files.write(folder, {"a": (b"1", 0o644), "b/c": (b"2", 0o400)})
    held = (folder / "a").open("rb")
    with held:
        assert atomic_files.write(folder, {"a": (b"new", 0o644)})
        assert held.read() == b"1"  # who has the old file open reads the old file
    assert (folder / "a").read_bytes() == b"new" and not (folder / "b").is_symlink()
    assert not before.exists() and len(list(folder.iterdir())) == 3


def test_an_empty_source_makes_an_empty_folder(tmp_path: Path) -> None:
    atomic_files.write(tmp_path / "volume", {})
    assert [entry.name for entry in (tmp_path / "volume").iterdir() if not entry.name.startswith("..")] == []


def subject(pod: Object | None = None, container: Object | None = None, image: int = 0) -> Identity:
    spec = {"securityContext": pod or {}}
    given = {"name": "c", "securityContext": container or {}}
    return identity({"metadata": META, "spec": spec}, given, Image(user=image))


def test_the_container_decides_before_the_pod_and_the_pod_before_the_image() -> None:
    assert subject() == Identity(0, 0) and subject(image=7) == Identity(7, 7)
    assert subject({"runAsUser": 5}, image=7) == Identity(5, 0)
    assert subject({"runAsUser": 5, "runAsGroup": 6}, {"runAsUser": 8}) == Identity(8, 6)
    assert subject({"runAsNonRoot": True}, image=7) == Identity(7, 7)


@pytest.mark.parametrize(
    ("pod", "why"),
    [
        ({"runAsNonRoot": True}, r'image will run as root \(pod: "p_ns\(u\)", container: c\)'),
        ({"runAsNonRoot": True, "runAsUser": 0}, "container's runAsUser breaks non-root policy"),
    ],
)
def test_who_must_not_be_root(pod: Object, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        subject(pod)


def test_an_image_knows_its_own_user_by_name(tmp_path: Path) -> None:
    image = Image(user=65532)
    (mount,) = accounts(tmp_path, Identity(65532, 65532), image)
    assert mount.target == "/etc/passwd" and "nonroot:x:65532:" in Path(mount.source).read_text()
    assert accounts(tmp_path, Identity(1234, 0), image) == []


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ([], 'corresponding condition of pod readiness gate "x/gate" does not exist.'),
        ([{"type": "x/gate", "status": "False"}], 'the status of pod readiness gate "x/gate" is not "True", but False'),
        ([{"type": "x/gate", "status": "True"}], None),
    ],
)
def test_readiness_gates(known: list[Object], message: str | None) -> None:
    pod = {
        "metadata": META,
        "spec": {"containers": [{"name": "c"}], "readinessGates": [{"conditionType": "x/gate"}]},
        "status": {"conditions": known},
    }
    view = replace(View("c"), attempt=0, running=True, started=True, ready=True)
    status = pod_status(pod, {"c": view}, Decision("Running", initialized=True), {}, 0.0)
    found = {condition["type"]: condition for condition in status["conditions"]}
    assert found["ContainersReady"]["status"] == "True" and "x/gate" not in found
    assert found["Ready"].get("message") == message and found["Ready"]["status"] == str(message is None)


async def test_a_log_is_read_to_its_end_though_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"2026-01-01T00:00:01.000000000Z stdout F one\n")
    looks = iter([True, False])
    pieces = []
    async for lines in batches(path, lambda: next(looks)):
        pieces.append(lines)
        if len(pieces) == 1:
            with path.open("ab") as file:
                file.write(b"2026-01-01T00:00:02.000000000Z stdout F two\n")
            path.unlink()
    assert [line.split()[-1] for lines in pieces for line in lines] == [b"one", b"two"]


async def test_a_limit_cuts_what_is_printed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"2026-01-01T00:00:01.000000000Z stdout F one\n" * 3)
    query = LogQuery.parse({"tailLines": "2", "limitBytes": "6"})
    assert b"".join([piece async for piece in printed(path, query, lambda: False)]) == b"one\non"
    with pytest.raises(ValueError, match="invalid literal"):
        LogQuery.parse({"tailLines": "many"})
