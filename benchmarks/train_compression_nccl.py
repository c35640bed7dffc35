"""The hooks over NCCL on two GPUs: `torchrun --nproc-per-node 2 benchmarks/train_compression_nccl.py`, by hand.

First that nothing is lost and ranks agree, then a step of a transformer of 110 M values: plain DDP, and each method.
Needs torch alone, so that it runs on a bare machine.
"""

from __future__ import annotations

import os
import time
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mizzen.train import compression
from mizzen.train.compression.compressor import Compressor
from mizzen.train.compression.exchanges import METHODS, exchange_of
from mizzen.train.compression.wire import Wire
from mizzen.train.seams import Place

WARM, STEPS = 5, 20


def settings(method: str, when: str = "always") -> Any:
    return SimpleNamespace(method=method, when=when, group_size=128, density=0.01, rank=2)


def main() -> None:
    dist.init_process_group("nccl")
    place = Place(dist.get_rank(), dist.get_world_size())
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    for method in METHODS:
        say(place, f"{method}: {conserved(method, place)}")
    plain = stepped("none", "always", place)
    say(place, f"plain DDP: {1e3 * plain[0]:.1f} ms a step, loss {plain[1]:.4f}")
    for method, when in [*((method, "always") for method in METHODS), ("auto", "auto")]:
        seconds, loss, note = stepped(method, when, place)
        say(place, f"{method}: {1e3 * seconds:.1f} ms a step, loss {loss:.4f}; {note}")
    dist.destroy_process_group()


def conserved(method: str, place: Place) -> str:
    """The largest part of the true mean that is neither sent nor owed, over ten steps; and whether NaN gets through."""
    module = nn.Sequential(nn.Linear(512, 700), nn.LayerNorm(700), nn.Linear(700, 300)).cuda()
    parameters = list(module.parameters())
    compressor = Compressor(module, exchange_of(settings(method), method), Wire())
    count = sum(parameter.numel() for parameter in parameters)
    generator = torch.Generator("cuda").manual_seed(place.rank)
    true, got = torch.zeros(count, device="cuda"), torch.zeros(count, device="cuda")
    for _ in range(10):
        gradient = torch.randn(count, device="cuda", generator=generator)
        mean = gradient.clone()
        dist.all_reduce(mean)
        true += mean / place.world
        compressor.average(gradient, parameters)
        got += gradient
    local = compressor.local_tensors()
    owed = torch.cat([
        local.get(f"residual/{name}", torch.zeros_like(value)).flatten() for name, value in module.named_parameters()
    ])  # fmt: skip
    dist.all_reduce(owed)
    first = got.clone()
    dist.broadcast(first, 0)
    broken = torch.full((count,), torch.nan if place.rank else 1.0, device="cuda")
    compressor.average(broken, parameters)
    off = float((got + owed / place.world - true).abs().max())
    return f"off by {off:.1e}, alike: {bool((first == got).all())}, NaN seen: {not bool(broken.isfinite().all())}"


def stepped(method: str, when: str, place: Place) -> tuple[float, float, str]:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(768, 12, 3072, batch_first=True, dropout=0.0, norm_first=True)
    module = nn.Sequential(
        nn.Embedding(32_000, 768), nn.TransformerEncoder(layer, 12, enable_nested_tensor=False)
    ).cuda()
    model = DistributedDataParallel(module, device_ids=[torch.cuda.current_device()], gradient_as_bucket_view=True)
    note = ""
    if method != "none":
        compressor = compression.attach(model, settings(method, when), place)
    optimizer = torch.optim.AdamW(module.parameters(), 1e-4, fused=True)
    generator = torch.Generator("cuda").manual_seed(place.rank)
    took = []
    for step in range(WARM + STEPS):
        if step == WARM:
            torch.cuda.synchronize()
            started = time.perf_counter()
        tokens = torch.randint(0, 32_000, (16, 256), device="cuda", generator=generator)
        with torch.autocast("cuda", torch.bfloat16):
            loss = (model(tokens).float() - 1.0).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        took.append(loss.detach())
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - started) / STEPS
    if method != "none":
        cut = 1 - compressor.bytes_sent / max(1, compressor.bytes_uncompressed)
        note = f"{100 * cut:.2f} % of the bytes cut; {compressor.note}"
        compressor.close()
    return seconds, float(took[-1]), note


def say(place: Place, text: str) -> None:
    if place.rank == 0:
        print(text, flush=True)


if __name__ == "__main__":
    main()
