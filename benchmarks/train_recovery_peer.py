"""Plain Ray Train on the nodes that benchmarks/train_recovery.py starts: `... ADDRESS IP fixed|elastic LOG FOLDER`.

The loop of Ray's own guide: `prepare_model`, a checkpoint every ten steps. Rank 0 writes a line for each step.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train.torch import TorchConfig, TorchTrainer

STEP_SECONDS, CHECKPOINT_EVERY, STEPS = 0.5, 10, 10_000


def train(config: dict[str, Any]) -> None:
    model = ray.train.torch.prepare_model(torch.nn.Linear(64, 64))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    step, newest = 0, ray.train.get_checkpoint()
    if newest is not None:
        with newest.as_directory() as folder:
            step = json.loads((Path(folder) / "step").read_text())
    context = ray.train.get_context()
    while step < STEPS:
        time.sleep(STEP_SECONDS)
        model(torch.randn(8, 64)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if context.get_world_rank() == 0:
            with Path(config["log"]).open("a") as log:
                log.write(json.dumps([time.time(), step, context.get_world_size()]) + "\n")
        if step % CHECKPOINT_EVERY == 0:
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "step").write_text(json.dumps(step))
                torch.save(model.state_dict(), Path(folder) / "model.pt")
                kept = ray.train.Checkpoint.from_directory(folder) if context.get_world_rank() == 0 else None
                ray.train.report({"step": step}, checkpoint=kept)


def main(address: str, ip: str, which: str, log: str, folder: str) -> None:
    ray.init(address=address, _node_ip_address=ip, log_to_driver=False)
    TorchTrainer(
        train,
        train_loop_config={"log": log},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=(1, 2) if which == "elastic" else 2,
            resources_per_worker={"CPU": 1},
            placement_strategy="SPREAD",
        ),
        run_config=ray.train.RunConfig(
            name="peer", storage_path=folder, failure_config=ray.train.FailureConfig(max_failures=-1)
        ),
    ).fit()


if __name__ == "__main__":
    main(*sys.argv[1:])
