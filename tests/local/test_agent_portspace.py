"""Ports of pods: a wildcard address is the pod's own, and localhost is the pod. Linux only."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.local.test_agent_sandbox import container, finished, launch, log, log_has

POD, OTHER = "127.77.0.5", "127.77.0.6"
HOLD = (
    "import socket, time; s = socket.socket(); s.bind(('', 17007)); s.listen(); print('up', flush=True); time.sleep(60)"
)
CONNECT = "import socket; print(socket.create_connection(('127.0.0.1', 17007)).getpeername()[0])"
SERVE = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
server = socket.socket(family)
server.bind((sys.argv[1], int(sys.argv[2])))
server.listen()
host, port = server.getsockname()[:2]
print(host)
for client in sys.argv[3:]:
    try:
        socket.create_connection((client, port), 5).close()
        print("yes", client)
    except OSError as error:
        print("no", client, error.errno)
"""


async def serve(folder: Path, *arguments: str, ip: str = POD) -> list[str]:
    subject = await finished(
        folder, "", argv=[sys.executable, "-c", SERVE, *arguments], ip=ip, ports=str(folder / "ports")
    )
    return log(subject).split("\n")


@pytest.mark.parametrize("port", ["17001", "0"])
@pytest.mark.parametrize(("address", "bound"), [("0.0.0.0", POD), ("::", f"::ffff:{POD}")])
async def test_all_addresses_are_those_of_the_pod(tmp_path: Path, address: str, bound: str, port: str) -> None:
    said = await serve(tmp_path, address, port, POD, "127.0.0.1", "localhost", OTHER)
    assert said == [bound, f"yes {POD}", "yes 127.0.0.1", "yes localhost", f"no {OTHER} 111"]


async def test_localhost_is_the_pod(tmp_path: Path) -> None:
    assert await serve(tmp_path, "127.0.0.1", "17002", "127.0.0.1", POD) == [POD, "yes 127.0.0.1", f"yes {POD}"]


async def test_an_address_of_its_own_is_left_alone(tmp_path: Path) -> None:
    said = await serve(tmp_path, OTHER, "17003", OTHER, POD)
    assert said == [OTHER, f"yes {OTHER}", f"no {POD} 111"]


async def test_errors_are_the_callers(tmp_path: Path) -> None:
    script = """
    import errno, socket
    first, second, third = socket.socket(), socket.socket(), socket.socket(socket.AF_INET6)
    first.bind(("", 17004))
    first.listen()
    third.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    for subject, address in ((second, ("", 17004)), (first, ("", 17005)), (third, ("::", 17006))):
        try:
            subject.bind(address)
            print("bound")
        except OSError as error:
            print(errno.errorcode[error.errno])
    """
    lines = "\n".join(line[4:] for line in script.splitlines())
    subject = await finished(tmp_path, "", argv=[sys.executable, "-c", lines], ip=POD, ports=str(tmp_path / "ports"))
    assert log(subject).split("\n") == ["EADDRINUSE", "EINVAL", "EADDRNOTAVAIL"]


async def test_two_pods_have_the_same_port_and_containers_of_one_share_it(tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.mkdir()
    subject = container(first)
    ports = {"ip": POD, "ports": str(first / "ports")}
    subject.start(launch(first, "", argv=[sys.executable, "-c", HOLD], **ports), fallback_to_logs=False)
    try:
        await log_has(subject, "up")
        (tmp_path / "second").mkdir()
        assert (await serve(tmp_path / "second", "0.0.0.0", "17007", OTHER, ip=OTHER))[1:] == [f"yes {OTHER}"]
        assert await subject.execute([sys.executable, "-c", CONNECT], 10) == (0, f"{POD}\n")
    finally:
        await subject.stop(0)
