"""Compression of gradients: bytes cut and accuracy kept, and what it is worth on a slow link, against plain DDP.

The slow link is a pair of network namespaces with a token bucket (`tc tbf`) on both ends: it needs root.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import train_data
from harness import Options, Row

from mizzen.train.plan import TrainPlan
from mizzen_api.trainingjob_trainer import Compression

RANK = Path(__file__).with_name("train_compression_rank.py")
SEEDS = (1, 2, 3)
METHODS = ("int8", "int4", "topk", "powersgd")
CUT = {"int8": ("fp32", 0.75), "int4": ("bf16", 0.70), "topk": ("fp32", 0.95)}
WITHIN = 0.3  # points of accuracy
MBITS = 100
WORLD = 2


@dataclass(frozen=True)
class Network:
    """How the two ranks are started, and where they meet."""

    host: str = "127.0.0.1"
    interface: str = "lo"
    prefixes: tuple[tuple[str, ...], ...] = ((), ())


def plans() -> dict[str, TrainPlan]:
    images, texts = (str(version().folder) for version in (train_data.fashion, train_data.tweets))
    return {
        "Fashion-MNIST": TrainPlan("cnn", {"width": 8}, images, "", 4e-3, epochs=3, batch_size=256),
        "tweets": TrainPlan("text-bag", {}, texts, "", 4e-3, epochs=5, batch_size=256),
    }


def bytes_and_accuracy(options: Options) -> list[Row]:
    """Two ranks, all methods with their defaults, three seeds."""
    rows = []
    for data, plan in plans().items():
        if options.short and data == "Fashion-MNIST":
            continue
        seeds = SEEDS[:1] if options.short else SEEDS
        known = {method: accuracies(plan, method, seeds) for method in ("none", *METHODS)}
        plain = 100 * statistics.mean(one["accuracy"] for one in known["none"])
        for method in METHODS:
            found = known[method]
            points = 100 * statistics.mean(one["accuracy"] for one in found)
            rows += [cut_row(data, method, found), *([] if options.short else [kept_row(data, method, points, plain)])]
    return rows


def cut_row(data: str, method: str, found: Sequence[dict[str, Any]]) -> Row:
    against, target = CUT.get(method, ("fp32", None))
    sent, plain = sum(one["bytes_sent"] for one in found), sum(one["bytes_uncompressed"] for one in found)
    plain /= 2 if against == "bf16" else 1
    return Row(
        f"{data}: {method}: bytes cut, against {against}",
        "%",
        100 * (1 - sent / plain),
        100 * target if target else None,
        "min",
    )


def kept_row(data: str, method: str, points: float, plain: float) -> Row:
    """A gain is as good as none."""
    limit = WITHIN if method != "powersgd" else None
    return Row(
        f"{data}: {method}: accuracy lost ({points:.2f} %, plain {plain:.2f} %)", "points", plain - points, limit
    )


def accuracies(plan: TrainPlan, method: str, seeds: Sequence[int]) -> list[dict[str, Any]]:
    compression = Compression(method=method, when="always") if method != "none" else None
    return on_two_ranks([replace(plan, seed=seed, compression=compression) for seed in seeds], Network())


def through_a_slow_link(options: Options) -> list[Row]:
    """Seconds of a step of a model of five million values, plain, compressed, and as the gate decides."""
    steps = 3 if options.short else 12
    plan = TrainPlan(
        "text-bag", {"embedding_dim": 512}, str(train_data.tweets().folder), "", 1e-3, epochs=100, batch_size=256
    )
    settings = {"plain": None, **{method: Compression(method=method, when="always") for method in METHODS}}
    settings["auto"] = Compression(method="auto")
    all_plans = [replace(plan, compression=one) for one in settings.values()]
    with slow_link(MBITS) as network:
        slow = dict(zip(settings, on_two_ranks(all_plans, network, steps), strict=True))
    fast = dict(zip(settings, on_two_ranks(all_plans, Network(), steps), strict=True))
    values = slow["plain"]["values"] / 1e6
    rows = [
        Row(
            f"{MBITS} Mbit/s, {values:.1f} M values: {name}{chosen(found)}: times faster than plain DDP", "×",
            slow["plain"]["seconds"] / found["seconds"], 1.0, "min", samples=[found["seconds"]],
        )
        for name, found in slow.items() if name != "plain"
    ]  # fmt: skip
    loopback = fast["auto"]["seconds"] / fast["plain"]["seconds"]
    rows.append(Row(f"{MBITS} Mbit/s: a step of plain DDP", "s", slow["plain"]["seconds"]))
    rows.append(Row(f"loopback: auto{chosen(fast['auto'])}: step against plain DDP", "×", loopback, 1.1))
    rows += [
        Row(f"loopback: {name}: step against plain DDP", "×", fast[name]["seconds"] / fast["plain"]["seconds"])
        for name in METHODS
    ]
    return rows


def chosen(found: dict[str, Any]) -> str:
    return f" ({found['compression']})"


def on_two_ranks(wanted: Sequence[TrainPlan], network: Network, steps: int | None = None) -> list[dict[str, Any]]:
    """What rank 0 found for each plan."""
    settings = {
        "world": WORLD, "host": network.host, "port": free_port(), "interface": network.interface,
        "plans": [one.to_dict() for one in wanted], "steps": steps,
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [*network.prefixes[rank], sys.executable, str(RANK), json.dumps({**settings, "rank": rank})],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(WORLD)
    ]  # fmt: skip
    try:
        printed = [process.communicate()[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    if any(process.returncode for process in processes):
        raise SystemExit("a rank failed: see above")
    return [json.loads(line) for line in printed[0].splitlines()]


@contextlib.contextmanager
def slow_link(mbits: int) -> Iterator[Network]:
    """Two namespaces, a rank in each, and a link between them that carries so much each way. Gone afterwards."""
    if os.geteuid() != 0 or shutil.which("tc") is None:
        raise SystemExit("the slow link needs root, and iproute2's ip and tc")
    spaces = [f"mizzen-bench-{os.getpid()}-{rank}" for rank in range(WORLD)]
    try:
        for space in spaces:
            sh("ip", "netns", "add", space)
            sh("ip", "-n", space, "link", "set", "lo", "up")
        sh(
            "ip",
            "link",
            "add",
            "link0",
            "netns",
            spaces[0],
            "type",
            "veth",
            "peer",
            "name",
            "link0",
            "netns",
            spaces[1],
        )
        for rank, space in enumerate(spaces):
            sh("ip", "-n", space, "address", "add", f"10.77.0.{rank + 1}/30", "dev", "link0")
            sh("ip", "-n", space, "link", "set", "link0", "up")
            bucket = ("rate", f"{mbits}mbit", "burst", "64kb", "latency", "50ms")
            sh("tc", "-n", space, "qdisc", "add", "dev", "link0", "root", "tbf", *bucket)
        yield Network("10.77.0.1", "link0", tuple(("ip", "netns", "exec", space) for space in spaces))
    finally:
        for space in spaces:
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)


def sh(*command: str) -> None:
    subprocess.run(command, check=True)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
