"""Compression in a process group of three ranks: nothing is lost, all ranks agree, and a lost peer is told."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mizzen.train import compression
from mizzen.train.compression.compressor import Compressor
from mizzen.train.compression.exchanges import METHODS, exchange_of
from mizzen.train.compression.wire import Wire
from mizzen.train.group.process_group import is_peer_error
from mizzen.train.loop import Loop
from mizzen.train.seams import Place
from mizzen_api.trainingjob_trainer import Compression
from tests.runtime.train.ranks import on_ranks
from tests.runtime.train.toys import plan, table_task

WORLD, STEPS = 3, 8

pytestmark = pytest.mark.slow


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(48, 96), nn.LayerNorm(96), nn.GELU(), nn.Linear(96, 96), nn.GELU(), nn.Linear(96, 7))


def on_rank(rank: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for method in METHODS:
        found[method] = {**conservation(method, rank), **through_ddp(method, rank), **not_finite(method, rank)}
    return {**found, "auto": gated(rank), "loop": looped(rank), "lost": lost_peer(rank)}


def conservation(method: str, rank: int) -> dict[str, Any]:
    """Buckets are formed anew half-way, as DDP does after its first step."""
    module = network()
    parameters = list(module.parameters())
    compressor = Compressor(module, exchange_of(Compression(method=method), method), Wire())
    true, got = (torch.zeros(sum(p.numel() for p in parameters)) for _ in range(2))
    generator = torch.Generator().manual_seed(rank)
    for step in range(STEPS):
        gradients = [torch.randn(p.shape, generator=generator) for p in parameters]
        mean = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(mean)
        true += mean / WORLD
        cut = len(parameters) if step < STEPS // 2 else 3
        for part in (slice(0, cut), slice(cut, None)):
            buffer = torch.cat([torch.empty(0), *(g.flatten() for g in gradients[part])])
            if len(buffer):
                compressor.average(buffer, parameters[part])
                got[sum(p.numel() for p in parameters[: part.start]) :][: len(buffer)] += buffer
    alike = got.clone()
    dist.broadcast(alike, 0)
    owed = torch.cat([local_of(compressor, name, p).flatten() for name, p in module.named_parameters()])
    dist.all_reduce(owed)
    return {
        "alike": bool((alike == got).all()),
        "off": float((got + owed / WORLD - true).abs().max()),
        "sent_part": float(got.norm() / true.norm()),
    }


def local_of(compressor: Compressor, name: str, parameter: torch.Tensor) -> torch.Tensor:
    return compressor.local_tensors().get(f"residual/{name}", torch.zeros_like(parameter))


def through_ddp(method: str, rank: int) -> dict[str, Any]:
    model = DistributedDataParallel(network(), init_sync=False, gradient_as_bucket_view=True, bucket_cap_mb=0.02)
    settings = Compression(method=method, when="always", density=0.05)
    compressor = compression.attach(model, settings, Place(rank, WORLD))
    names = sorted(compressor.local_tensors())
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(rank)
    losses = []
    for _ in range(40):
        inputs = torch.randn(32, 48, generator=generator)
        with model.no_sync():  # accumulation sends nothing
            backward(nn.functional.cross_entropy(model(inputs), inputs[:, :7].argmax(1)).div(2))
        loss = nn.functional.cross_entropy(model(inputs), inputs[:, :7].argmax(1)).div(2)
        backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(2 * loss.item())
    weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    alike = weights.clone()
    dist.broadcast(alike, 0)
    compressor.close()
    return {
        "weights_alike": bool((alike == weights).all()),
        "losses": losses,
        "method": compressor.method,
        "bytes": [compressor.bytes_sent, compressor.bytes_uncompressed],
        "names_stay": names == sorted(compressor.local_tensors()),
    }


def not_finite(method: str, rank: int) -> dict[str, Any]:
    """One rank's gradient is no number: all see it, and the next step is as if nothing had been."""
    module = network()
    parameters = list(module.parameters())
    compressor = Compressor(module, exchange_of(Compression(method=method), method), Wire())
    count = sum(p.numel() for p in parameters)
    seen = []
    for value in (1.0, torch.nan if rank == 1 else 1.0, 1.0):
        buffer = torch.full((count,), value)
        compressor.average(buffer, parameters)
        seen.append(bool(buffer.isfinite().all()))
    return {"finite": seen}


def gated(rank: int) -> dict[str, Any]:
    model = DistributedDataParallel(network(), init_sync=False)
    compressor = compression.attach(model, Compression(method="auto"), Place(rank, WORLD))
    backward(model(torch.randn(4, 48)).sum())
    compressor.close()
    counted = [compressor.bytes_sent, compressor.bytes_uncompressed]
    return {"method": compressor.method, "note": compressor.note, "bytes": counted}


def looped(rank: int) -> dict[str, Any]:
    """The training loop with top-k; another one goes on from what it kept."""
    settings = plan(compression={"method": "topk", "when": "always", "density": 0.2}, settings={"hidden_dim": 32})
    first, second = (Loop(settings, task=table_task()) for _ in range(2))
    first.join(Place(rank, WORLD))
    losses = [result.loss for result in first.steps()]
    local = first.local_tensors()
    mean = {name: value.clone() for name, value in local.items()}
    for value in mean.values():
        dist.all_reduce(value)
        value.div_(WORLD)
    second.join(Place(rank, WORLD))
    second.load(first.tensors(), [mean], first.state)
    again = second.local_tensors()
    return {
        "losses": losses,
        "counters": first.counters(),
        "notes": first.notes,
        "owed": sum(float(value.norm()) for value in local.values()),
        "kept": local.keys() == again.keys() and all(torch.allclose(mean[name], again[name]) for name in mean),
    }


def lost_peer(rank: int) -> tuple[str, bool]:
    """Whether the group would know the error for what it is. The last rank leaves early."""
    model = DistributedDataParallel(network(), init_sync=False)
    compression.attach(model, Compression(method="int8", when="always"), Place(rank, WORLD))
    if rank == WORLD - 1:
        return "", True
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(RuntimeError) as raised:
        backward(model(torch.randn(4, 48)).sum())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    return str(raised.value), is_peer_error(raised.value)


def backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def ranks() -> list[dict[str, Any]]:
    return on_ranks(WORLD, on_rank)


@pytest.mark.parametrize("method", METHODS)
def test_all_that_is_not_sent_is_owed(ranks: list[dict[str, Any]], method: str) -> None:
    for found in ranks:
        assert found[method]["alike"], "weights of ranks would drift apart"
        assert found[method]["off"] < 1e-4
        assert found[method]["sent_part"] > 0.1


@pytest.mark.parametrize("method", METHODS)
def test_a_model_learns_through_the_hook(ranks: list[dict[str, Any]], method: str) -> None:
    for found in ranks:
        assert found[method]["method"] == method
        assert found[method]["weights_alike"]
        assert found[method]["names_stay"], "a checkpoint's names are those of the first step"
        losses = found[method]["losses"]
        assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


@pytest.mark.parametrize(("method", "cut"), [("int8", 0.75), ("int4", 0.84), ("topk", 0.86), ("powersgd", 0.75)])
def test_bytes_that_are_sent_are_counted(ranks: list[dict[str, Any]], method: str, cut: float) -> None:
    """Of a model whose norms and biases are 3 % of it."""
    sent, uncompressed = (sum(found[method]["bytes"][which] for found in ranks) for which in (0, 1))
    values = sum(parameter.numel() for parameter in network().parameters())
    assert uncompressed == pytest.approx(40 * 2 * (WORLD - 1) * 4 * values, rel=1e-4)
    assert 1 - sent / uncompressed > cut - 1e-4


@pytest.mark.parametrize("method", METHODS)
def test_a_gradient_that_is_no_number_reaches_all_ranks_once(ranks: list[dict[str, Any]], method: str) -> None:
    for found in ranks:
        assert found[method]["finite"] == [True, False, True]


def test_a_shut_gate_sends_plainly_and_says_why(ranks: list[dict[str, Any]]) -> None:
    assert len({found["auto"]["method"] for found in ranks}) == 1, "ranks decide alike"
    assert all("MB/s" in found["auto"]["note"] for found in ranks)
    sent, uncompressed = ranks[0]["auto"]["bytes"]
    assert sent == uncompressed or ranks[0]["auto"]["method"] != "none"


def test_the_loop_compresses_counts_and_keeps_what_is_owed(ranks: list[dict[str, Any]]) -> None:
    for found in (rank["loop"] for rank in ranks):
        assert found["losses"][-1] < found["losses"][0]
        assert found["counters"]["compression"] == "topk"
        assert 0 < found["counters"]["bytes_sent"] < 0.5 * found["counters"]["bytes_uncompressed"]
        assert found["notes"] == ["compression topk"]
        assert found["owed"] > 0
        assert found["kept"], "a checkpoint has all residuals"


def test_a_lost_peer_raises_out_of_backward(ranks: list[dict[str, Any]]) -> None:
    for found in ranks[:-1]:
        text, is_told = found["lost"]
        assert is_told, text
