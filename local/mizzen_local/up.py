"""`mizzen up` and `mizzen down`: starts and ends the daemon that is the embedded cluster, and installs the chart."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mizzen_local import chart
from mizzen_local.agent import sandbox
from mizzen_local.agent.volumes import memory_folder
from mizzen_local.client import ApiError, Object
from mizzen_local.http_client import HttpClient
from mizzen_local.objects import is_true
from mizzen_local.progress import Progress
from mizzen_local.resources import NODES, PODS
from mizzen_local.state import NEEDED_BYTES, StartError, State
from mizzen_local.trouble import troubles

_START_SECONDS = 60.0
_STOP_SECONDS = 45.0


@dataclass(frozen=True)
class UpOptions:
    state: Path
    port: int = 6443
    node: str = "local"
    chart: Path | None = None
    with_chart: bool = True
    settings: list[str] = field(default_factory=list)
    value_files: list[Path] = field(default_factory=list)
    images: Path | None = None
    cpus: float | None = None
    memory: str | None = None
    extended: list[str] = field(default_factory=list)
    pod_range: str = ""  # empty: the first pair of ranges that no other cluster of this machine uses
    service_range: str = ""
    metrics_interval: float = 15.0
    timeout: int = 300


def up(options: UpOptions, progress: Progress) -> None:
    """Start what does not run, then see to the chart. Raises StateError or ChartError, each with one clear line."""
    state = State(options.state.resolve())
    path, values = _chart(options) if options.with_chart else (None, {})
    if state.running() is not None:
        progress.say(f"[green]✓[/green] already running  [dim]{state.root}[/dim]")
        if ignored := unheeded(state, options):
            progress.say(
                f"[yellow]![/yellow] {', '.join(ignored)}: no effect on a running cluster, only after `mizzen down`"
            )
    else:
        with progress.step("control plane and node") as step:
            state.prepare()
            _wait(state, _spawn(state, options))
            step.note(_server(state))
    if path is not None:
        with progress.step("chart mizzen in namespace mizzen-system") as step:
            asyncio.run(_definitions(state, path))
            try:
                what, revision = chart.install(state.kubeconfig, path, values, timeout=options.timeout)
            except chart.ChartError as error:
                raise chart.ChartError("\n".join([str(error), *asyncio.run(_troubles(state))])) from error
            step.note(f"{what}, revision {revision}")
    progress.say(f"\n  export KUBECONFIG={state.kubeconfig}\n  {_kubectl()} get pods -A\n")


def _kubectl() -> str:
    """As it can be typed: the one that came with us is not on everybody's PATH."""
    ours = Path(sys.executable).with_name("kubectl")
    return str(ours) if shutil.which("kubectl") is None and ours.exists() else "kubectl"


def _chart(options: UpOptions) -> tuple[Path, dict[str, Any]]:
    """Read before anything starts: what is wrong with it is told at once."""
    values = chart.parse_values(options.value_files, options.settings)
    return chart.find_chart(options.chart), chart.merged(chart.laptop_values(), values)


def unheeded(state: State, options: UpOptions) -> list[str]:
    """Options that the running daemon was started without; one that is left at its default asks for nothing."""
    try:
        started = json.loads(state.options.read_text())
    except (OSError, ValueError):
        return []
    wanted, default = daemon_options(options), daemon_options(UpOptions(options.state))
    return [f"--{name}" for name, value in wanted.items() if value != default[name] and value != started.get(name)]


async def _definitions(state: State, path: Path) -> None:
    async with HttpClient.from_kubeconfig(state.kubeconfig) as client:
        await chart.apply_definitions(client, path)


async def _troubles(state: State) -> list[str]:
    async with HttpClient.from_kubeconfig(state.kubeconfig) as client:
        try:
            return await troubles(client, chart.NAMESPACE)
        except ApiError as error:
            return [f"and the API server does not answer: {error}"]


def daemon_options(options: UpOptions) -> dict[str, list[str]]:
    """By the option's name, each of its values; what `mizzen up` and the daemon have in common."""
    names = ("port", "node", "images", "cpus", "memory", "pod_range", "service_range", "metrics_interval", "extended")
    found: dict[str, list[str]] = {}
    for name in names:
        value = getattr(options, name)
        values = value if isinstance(value, list) else [] if value in {None, ""} else [value]
        found[name.replace("_", "-")] = [str(each) for each in values]
    return found


def daemon_command(state: State, options: UpOptions) -> list[str]:
    command = [sys.executable, "-m", "mizzen_local.daemon", "--state", str(state.root)]
    for name, values in daemon_options(options).items():
        for value in values:
            command += [f"--{name}", value]
    return command


def _spawn(state: State, options: UpOptions) -> subprocess.Popen[bytes]:
    state.error.unlink(missing_ok=True)
    state.record.unlink(missing_ok=True)
    sandbox.write_json(str(state.options), daemon_options(options))
    with state.log.open("ab") as log:
        return subprocess.Popen(
            daemon_command(state, options),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )


def _wait(state: State, process: subprocess.Popen[bytes]) -> None:
    """Until the daemon says that all its parts are up, or why it ended."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if state.running() is not None:
            process.returncode = 0  # it is a daemon now: not ours to wait for
            return
        if process.poll() is not None:
            raise StartError(_why(state))
        time.sleep(0.03)
    process.kill()
    process.wait()
    raise StartError(f"the cluster did not come up within {_START_SECONDS:.0f} s; see {state.log}")


def _why(state: State) -> str:
    with contextlib.suppress(OSError):
        if text := state.error.read_text().strip():
            return text
    lines = state.log.read_text(errors="replace").strip().splitlines()
    return f"the cluster did not start: {lines[-1] if lines else 'no output'}; see {state.log}"


def _server(state: State) -> str:
    from mizzen_local.http_client import Kubeconfig

    return Kubeconfig.load(state.kubeconfig).server


def down(root: Path, progress: Progress, *, purge: bool = False) -> None:
    """End all pods, then the daemon; with `purge` delete everything that was kept. StateError before anything ends."""
    state = State(root.resolve())
    if purge:
        state.check_purge()
    with progress.step("stopping pods, node and control plane") as step:
        was_there = state.stop_daemon(_STOP_SECONDS)
        left = _kill_leftovers(state)
        if not was_there:
            step.note("it was not running" + (f"; ended {left} containers it had left" if left else ""))
    if purge and state.root.exists():
        with progress.step(f"deleting {state.root}") as step:
            for pod in state.node.glob("pods/*"):
                shutil.rmtree(memory_folder(pod.name), ignore_errors=True)
            if foreign := state.purge():
                step.note(f"what is not the cluster's stays: {', '.join(foreign)}")


def _kill_leftovers(state: State) -> int:
    """Containers whose daemon was killed: they live on until somebody ends them."""
    count = 0
    for path in state.node.glob("pods/*/containers/*/*/running.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            running = json.loads(path.read_text())
            pid = int(running["init"])
            if running["boot"] == sandbox.boot_id() and sandbox.start_time(pid) == running["initStart"]:
                os.kill(pid, signal.SIGKILL)
                count += 1
    return count


def status(root: Path) -> Object:
    """What runs: `{"running": bool, "server": url, "kubeconfig": path, "nodes": {...}, "pods": {phase: count}}`."""
    state = State(root.resolve())
    pid = state.running()
    if pid is None:
        return {"running": False, "state": str(state.root)}
    return {
        "running": True,
        "pid": pid,
        "state": str(state.root),
        "kubeconfig": str(state.kubeconfig),
        "server": _server(state),
        **_disk(state),
        **asyncio.run(_look(state)),
    }


def _disk(state: State) -> Object:
    free = state.free
    low = f"the disk of {state.root} is nearly full: free some space, or writes will fail soon"
    return {"freeMiB": free // 2**20, **({"warning": low} if free < NEEDED_BYTES else {})}


async def _look(state: State) -> Object:
    async with HttpClient.from_kubeconfig(state.kubeconfig) as client:
        try:
            nodes = (await client.list(NODES))["items"]
            pods = (await client.list(PODS))["items"]
        except ApiError as error:
            return {"error": str(error)}
    phases: dict[str, int] = {}
    for pod in pods:
        phase = (pod.get("status") or {}).get("phase", "Pending")
        phases[phase] = phases.get(phase, 0) + 1
    names = {n["metadata"]["name"]: "Ready" if is_true(n, "Ready") else "NotReady" for n in nodes}
    return {"nodes": names, "pods": phases}
