"""What the trainer costs: against a loop by hand, on one worker; two workers against one; a checkpoint's stall.

Both loops train the same model on the same rows in the same order, a few steps each in turn, so that what else runs on
the machine slows both alike.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import train_data
from harness import Options, Row
from torch import nn
from torch.nn.functional import cross_entropy

from mizzen.train.group.keeping import Keeper, Keeping
from mizzen.train.loop import Loop
from mizzen.train.plan import TrainPlan
from mizzen.train.seams import Place

TURNS = 15
STEPS = 6  # of each loop in a turn
OVERHEAD = 1.03
SCALING = 1.8
STALL = 1.0


@dataclass(frozen=True)
class Work:
    name: str
    plan: TrainPlan
    data: Callable[[], object]


def works() -> list[Work]:
    images = TrainPlan("resnet", {"depth": 10, "width": 16}, "", "", 1e-3, batch_size=128, threads=2)
    texts = TrainPlan("text-transformer", {}, "", "", 1e-3, batch_size=256, threads=2)
    small = TrainPlan("text-bag", {}, "", "", 1e-3, batch_size=256, threads=2)
    return [
        Work("ResNet-10 on Fashion-MNIST", images, train_data.fashion),
        Work("transformer on tweets", texts, train_data.tweets),
        Work("bag of words on tweets", small, train_data.tweets),
    ]


def overhead(options: Options) -> list[Row]:
    """Steps of the trainer over steps by hand; the smallest model shows the most."""
    turns = 4 if options.short else TURNS
    rows = []
    for work in works():
        ours, theirs = _in_turns(work, turns)
        mine, its = statistics.median(ours), statistics.median(theirs)
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        rows.append(Row(f"{work.name}: a step", "ms", 1000 * mine, peer=1000 * its, peer_name="by hand"))
        limit = None if work.name.startswith("bag") else OVERHEAD
        rows.append(Row(f"{work.name}: trainer against by hand", "×", ratio, limit))
    return rows


def _in_turns(work: Work, turns: int) -> tuple[list[float], list[float]]:
    """Seconds a step of each turn, the trainer's and the other's. Each turn begins with the other one."""
    loop = Loop(work.plan, dataset=work.data())  # type: ignore[arg-type]
    steps, other = loop.steps(), by_hand(work)
    for _ in range(3):
        next(steps), next(other)
    ours: list[float] = []
    theirs: list[float] = []
    for turn in range(turns):
        both = [(ours, steps), (theirs, other)]
        for found, contestant in both if turn % 2 else reversed(both):
            began = time.perf_counter()
            for _ in range(STEPS):
                next(contestant)  # type: ignore[call-overload]
            found.append((time.perf_counter() - began) / STEPS)
    return ours, theirs


def by_hand(work: Work) -> Iterator[float]:
    """What one would write: tensors in memory, AdamW, clipping, a cosine; the loss of each step is looked at."""
    plan = work.plan
    loop = Loop(plan, dataset=work.data())  # type: ignore[arg-type]  # for its fresh module and the order of rows
    module, total = loop.module, loop.total_steps
    part = loop.train_part
    rate = plan.learning_rate
    optimizer = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=plan.weight_decay, fused=True)
    warm = round(0.1 * total)
    falling = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: (n + 1) / warm if n < warm else 0.5 * (1 + math.cos(math.pi * (n - warm) / (total - warm)))
    )
    module.train()
    order = torch.from_numpy(loop.rows())
    for start in range(0, len(order), plan.batch_size):
        rows = order[start : start + plan.batch_size]
        targets = part.targets[rows]
        if "image" in part.columns:
            inputs: tuple[torch.Tensor, ...] = (part.columns["image"][rows].float() / 255,)
        else:
            lengths = part.columns["lengths"][rows]
            inputs = (part.columns["ids"][rows, : int(lengths.max())].long(), lengths)
        loss = cross_entropy(module(*inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), plan.max_gradient_norm)
        optimizer.step()
        falling.step()
        yield loss.item()


def stall(options: Options) -> list[Row]:
    """What snapshots every ten steps, each made durable, take from the steps."""
    plan = works()[0].plan
    steps = 30 if options.short else 120
    with tempfile.TemporaryDirectory(prefix="mizzen-bench-") as folder:
        keeping = Keeping(uuid.uuid4().hex, Path(folder).as_uri(), snapshot_every=10, checkpoint_every=10)
        loop, keeper = Loop(plan, dataset=train_data.fashion()), Keeper(keeping)
        keeper.regroup(Place(), "bench")
        going, kept = [], []
        for _ in itertools.islice(loop.steps(), steps):
            began = time.perf_counter()
            keeper.after_step(loop)
            kept.append(time.perf_counter() - began)
            going.append(began)
        keeper.close(keep=False)
    step = statistics.median(b - a for a, b in itertools.pairwise(going))
    each = [sum(kept[at : at + 10]) for at in range(10, steps, 10)]
    return [
        Row("a snapshot, made durable in the background", "ms", 1000 * statistics.median(each)),
        Row("its part of ten steps", "%", 100 * statistics.median(each) / (10 * step), STALL),
    ]


def scaling(options: Options) -> list[Row]:
    """Two ranks of one thread each against one rank of one thread, in the same minute."""
    plan = replace(works()[0].plan, threads=1, batch_size=256)
    steps = 6 if options.short else 20
    speeds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(1 if options.short else 3):
        for world, found in speeds.items():
            found.append(_rate(plan, world, steps))
    one, two = statistics.median(speeds[1]), statistics.median(speeds[2])
    return [
        Row("one worker of one core", "rows/s", one, samples=speeds[1]),
        Row("two workers of one core each", "rows/s", two, samples=speeds[2]),
        Row("two workers against one", "×", two / one, None if options.short else SCALING, "min"),
    ]


def _rate(plan: TrainPlan, world: int, steps: int) -> float:
    """Rows a second of `world` ranks, each a process of its own."""
    command = [sys.executable, __file__, json.dumps(plan.to_dict()), str(world), str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return float(done.stdout.splitlines()[-1])


def _rank(rank: int, world: int, plan: TrainPlan, steps: int, port: int) -> None:
    import torch.distributed as dist

    if world > 1:
        dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    going = Loop(plan, rank, world, train_data.fashion()).steps()
    for _ in range(2):
        next(going)
    seconds = []
    for _ in range(steps):
        began = time.perf_counter()
        next(going)
        seconds.append(time.perf_counter() - began)
    if rank == 0:
        print(plan.batch_size / statistics.median(seconds))
    if world > 1:
        dist.destroy_process_group()


def main() -> None:
    import socket

    import torch.multiprocessing as processes

    plan, world, steps = TrainPlan.from_dict(json.loads(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
    train_data.fashion()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes.spawn(_rank, (world, plan, steps, port), nprocs=world)


if __name__ == "__main__":
    main()
