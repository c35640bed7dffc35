"""One rank of the compression benchmarks: `python train_compression_rank.py JSON`, on whatever network it is put."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from typing import Any

import torch
import torch.distributed as dist

from mizzen.train.loop import Loop
from mizzen.train.plan import TrainPlan
from mizzen_api.contract import SPLITS

WARM_STEPS = 5  # the first ones form buckets anew and take memory


def main(settings: dict[str, Any]) -> None:
    """Prints a JSON line for each plan: accuracy after all epochs, or seconds of a step where `steps` are given."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = settings["interface"]
    rank, world = settings["rank"], settings["world"]
    where = f"tcp://{settings['host']}:{settings['port']}"
    dist.init_process_group("gloo", init_method=where, rank=rank, world_size=world)
    for values in settings["plans"]:
        found = run(TrainPlan.from_dict(values), rank, world, settings.get("steps"))
        if rank == 0:
            print(json.dumps(found), flush=True)
    dist.destroy_process_group()


def run(plan: TrainPlan, rank: int, world: int, steps: int | None) -> dict[str, Any]:
    loop = Loop(plan, rank, world)
    took, losses = list[float](), list[float]()
    since = time.perf_counter()
    for result in loop.steps():
        losses.append(result.loss)
        took.append(time.perf_counter() - since)
        if steps is not None and len(took) >= steps + WARM_STEPS:
            break
        since = time.perf_counter()
    accuracy = loop.evaluate(SPLITS[2])["accuracy"] if steps is None else None
    dist.barrier()
    found = {
        "accuracy": accuracy,
        "loss": statistics.mean(losses[-20:]),
        "seconds": statistics.median(took[WARM_STEPS:]),
        "values": sum(parameter.numel() for parameter in loop.module.parameters()),
        "notes": loop.notes,
        **loop.counters(),
    }
    loop.crew.strategy.close()
    return found


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
