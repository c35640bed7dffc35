"""The whole platform on the embedded cluster, for tests: start it, talk to it, kill parts of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml

BIN = Path(sys.executable).parent
T = TypeVar("T")


class Platform:
    """`mizzen up` in a folder of its own, with kubectl and the means to kill things."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.kubeconfig = state / "kubeconfig"

    def mizzen(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [str(BIN / "mizzen"), *args, "--state-dir", str(self.state)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if check:
            assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}\n{self.log()}"
        return done

    def log(self) -> str:
        return "\n".join(p.read_text(errors="replace")[-4000:] for p in self.state.glob("*.log"))

    def kubectl(self, *args: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [str(BIN / "kubectl"), "--kubeconfig", str(self.kubeconfig), *args]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False)
        if check:
            assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
        return done

    def apply(self, *objects: dict[str, Any], check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects), check=check)

    def get(self, *args: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", *args, "-o", "json").stdout)
        return found

    def condition(self, resource: str, kind: str) -> dict[str, Any]:
        done = self.kubectl("get", resource, "-o", "json", check=False)
        conditions = json.loads(done.stdout or "{}").get("status", {}).get("conditions", []) if done.stdout else []
        return next((c for c in conditions if c["type"] == kind), {"status": "", "reason": "", "message": ""})

    def wait(self, resource: str, kind: str, *, status: str = "True", timeout: float = 240) -> dict[str, Any]:
        """Until the condition has the status; the last condition, pods and logs are in the failure."""

        def reached() -> dict[str, Any] | None:
            found = self.condition(resource, kind)
            return found if found["status"] == status else None

        try:
            return until(reached, timeout)
        except AssertionError:
            pods = self.kubectl("get", "pods,events", "-A", check=False).stdout
            raise AssertionError(
                f"{resource} is {self.condition(resource, kind)}, not {kind}={status}\n{pods}"
            ) from None

    def pods(self, selector: str, namespace: str = "default") -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.get("pods", "-n", namespace, "-l", selector)["items"]
        return items

    def kill_pod(self, selector: str, namespace: str = "default") -> str:
        """SIGKILL for every process of one running pod; returns the pod's name."""

        def running() -> dict[str, Any] | None:
            return next((p for p in self.pods(selector, namespace) if p["status"].get("phase") == "Running"), None)

        pod = until(running, 120)
        marker = f"MIZZEN_POD_IP={pod['status']['podIP']}".encode()
        killed = [pid for pid in processes() if marker in environment(pid) and kill(pid)]
        assert killed, f"no process of {pod['metadata']['name']} found"
        return str(pod["metadata"]["name"])

    def kill_control_plane(self) -> None:
        """SIGKILL for the API server with all that lives in its processes, as a crash of the machine would."""
        state = str(self.state).encode()
        victims = [
            pid for pid in processes() if b"mizzen_local.daemon" in command_line(pid) and state in command_line(pid)
        ]
        assert victims, "no daemon of this state directory runs"
        for pid in victims:
            kill(pid)

    def exposed(self) -> set[str]:
        """Command lines of the platform's processes that listen beyond loopback."""
        sockets = {f"socket:[{inode}]" for inode in listening_beyond_loopback()}
        state = str(self.state).encode()
        found = set()
        for pid in processes():
            of_a_pod = any(variable.startswith(b"MIZZEN_POD_IP=") for variable in environment(pid))
            if (of_a_pod or state in command_line(pid)) and sockets & open_files(pid):
                found.add(command_line(pid).decode(errors="replace"))
        return found


def until(probe: Callable[[], T | None], timeout: float, interval: float = 0.5) -> T:
    """Poll until `probe` answers with something true."""
    deadline = time.monotonic() + timeout
    while True:
        found = probe()
        if found:
            return found
        assert time.monotonic() < deadline, f"nothing within {timeout} s: {probe}"
        time.sleep(interval)


def processes() -> list[int]:
    return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and int(p.name) != os.getpid()]


def environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        return b""


def open_files(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(entry.readlink()))
    return found


def listening_beyond_loopback() -> list[str]:
    """Inodes of listening TCP sockets; addresses are hexadecimal, in the order of the machine's bytes."""
    inodes = []
    for table, loopback in (("tcp", "7F"), ("tcp6", "00000000000000000000FFFF7F")):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            words = fields[1].partition(":")[0]
            address = "".join(bytes.fromhex(words[i : i + 8])[::-1].hex().upper() for i in range(0, len(words), 8))
            if fields[3] == "0A" and not address.startswith(loopback) and address != "0" * 31 + "1":
                inodes.append(fields[9])
    return inodes


def kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def post(url: str, body: dict[str, Any], timeout: float = 10) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Status, headers in lower case, and the JSON answer; errors of the connection are status 0."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, {k.lower(): v for k, v in answer.headers.items()}, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, {}, {"error": error.read().decode(errors="replace")}
    except OSError as error:
        return 0, {}, {"error": str(error)}
