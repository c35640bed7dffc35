"""Whether compression pays: the link and the codecs are measured, and what they cost together is compared.

Agarwal et al. (MLSys 2022, arXiv:2103.00543) found that most datacentre networks are faster than most codecs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mizzen.train.compression.compressor import layout_of
from mizzen.train.compression.exchanges import METHODS, Exchange, exchange_of
from mizzen.train.compression.residuals import Layout, Part, Residuals
from mizzen.train.compression.wire import Wire, ring_bytes

if TYPE_CHECKING:
    from mizzen_api.trainingjob_trainer import Compression

PAYS = 0.9  # part of the plain exchange's time that a compressed one must stay under
GENTLE = 1.25  # times the fastest that a gentler method may take under `auto`
SMALL_PROBE, LARGE_PROBE = 4_096, 4_194_304  # values of all-reduces: for the latency, and for the bandwidth
PROBE_SECONDS = 0.5
SAMPLE = 1_048_576  # values on which a codec is timed
RUNS = 3


@dataclass(frozen=True)
class Link:
    """Of a ring all-reduce as a rank sees it: seconds of a tiny one, and bytes a second that a rank sends."""

    latency: float
    bandwidth: float

    def seconds(self, size: int, collectives: int = 1) -> float:
        return self.latency * collectives + size / self.bandwidth


@dataclass(frozen=True)
class Cost:
    """Of one method, for one optimizer step."""

    method: str
    codec_seconds: float  # encode and decode
    size: int  # bytes that a rank sends
    collectives: int = 2

    def seconds(self, link: Link) -> float:
        return self.codec_seconds + link.seconds(self.size, self.collectives)


@dataclass(frozen=True)
class Decision:
    """`method` is none where nothing pays; `text` gives the reasons to a person."""

    method: str
    text: str


def decide(link: Link, plain_bytes: int, costs: Sequence[Cost], *, always: bool = False) -> Decision:
    """Of methods in METHODS' order, the gentlest among the fast ones. Pure: all ranks decide alike from like figures.

    Compared are exchanges of gradients that nothing hides; forward and backward are the same with and without.
    """
    plain = link.seconds(plain_bytes)
    times = [cost.seconds(link) for cost in costs]
    chosen = next(cost for cost, spent in zip(costs, times, strict=True) if spent <= GENTLE * min(times))
    pays = always or chosen.seconds(link) < PAYS * plain
    listed = ", ".join(
        f"as {cost.method} {1e3 * spent:.3g} ms ({1e3 * cost.codec_seconds:.3g} of them the codec, "
        f"{cost.size / 1e6:.3g} MB)"
        for cost, spent in zip(costs, times, strict=True)
    )
    text = (
        f"compression {chosen.method if pays else 'none'}: the link does {link.bandwidth / 1e6:.4g} MB/s with "
        f"{1e3 * link.latency:.3g} ms of latency; the exchange of a step would take {1e3 * plain:.3g} ms plainly "
        f"({plain_bytes / 1e6:.3g} MB), {listed}"
    )
    return Decision(chosen.method if pays else "none", text)


@torch.no_grad()
def measure(settings: Compression, parameters: Sequence[Tensor], wire: Wire) -> Decision:
    """Probe link and codecs, for some tenths of a second. All ranks call this together."""
    device = parameters[0].device
    methods = METHODS if settings.method == "auto" else (settings.method,)
    link = link_of(wire, device)
    exchanges = [exchange_of(settings, method) for method in methods]
    layouts = [layout_of([str(at) for at in range(len(parameters))], parameters, one) for one in exchanges]
    spent = [_codec_seconds(one, layout, wire.world, device) for one, layout in zip(exchanges, layouts, strict=True)]
    spent = wire.worst(spent, device)
    costs = [
        Cost(
            one.name,
            seconds,
            one.bytes_for(layout, wire.world) + _plain_bytes(layout, wire.world),
            collectives=1 if one.name == "topk" else 2,
        )
        for one, layout, seconds in zip(exchanges, layouts, spent, strict=True)
    ]
    total = sum(parameter.numel() for parameter in parameters)
    return decide(link, ring_bytes(4 * total, wire.world), costs, always=settings.when == "always")


def link_of(wire: Wire, device: torch.device) -> Link:
    """From all-reduces of two sizes; on all ranks the figures of the slowest. The probes are not counted as sent."""
    before = wire.sent
    small = _all_reduce_seconds(wire, SMALL_PROBE, device)
    # As large as a slow link carries in a part of PROBE_SECONDS.
    wanted = int(SMALL_PROBE / small * PROBE_SECONDS / (RUNS + 1))
    values = max(2 * SMALL_PROBE, min(LARGE_PROBE, wanted))
    large = _all_reduce_seconds(wire, values, device)
    wire.sent = before
    sizes = [ring_bytes(4 * count, wire.world) for count in (SMALL_PROBE, values)]
    return link_from((sizes[0], small), (sizes[1], large))


def link_from(small: tuple[int, float], large: tuple[int, float]) -> Link:
    """From bytes and seconds of two messages. Where both are mostly latency, the bandwidth is at least what is told."""
    if large[1] < 2 * small[1]:
        return Link(small[1], large[0] / large[1])
    bandwidth = (large[0] - small[0]) / (large[1] - small[1])
    return Link(max(0.0, small[1] - small[0] / bandwidth), bandwidth)


def _all_reduce_seconds(wire: Wire, values: int, device: torch.device) -> float:
    probe = torch.zeros(values, device=device)
    return wire.worst([_median(lambda: wire.mean(probe), device)], device)[0]


class _Alone(Wire):
    """A wire to nobody, as wide as `world` ranks: what is left of an exchange is the work of its codec."""

    def __init__(self, world: int) -> None:
        self.rank, self.world, self.sent = 0, world, 0

    def all_to_all(self, parts: Sequence[Tensor], receive: int) -> list[Tensor]:
        sent = torch.cat(list(parts))
        return [sent.new_zeros(receive) for _ in range(self.world)]

    def all_gather(self, mine: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        return [mine.new_zeros(size) for size in sizes]

    def mean(self, tensor: Tensor) -> None:
        """Nobody else adds to it."""


def _codec_seconds(exchange: Exchange, layout: Layout, world: int, device: torch.device) -> float:
    """Of all packed parameters, from the first of them that have SAMPLE values together."""
    parts, count = list[Part](), 0
    for part in layout.packed:
        if count < SAMPLE:
            parts.append(replace(part, start=count))
            count += part.count
    if not count:
        return 0.0
    sample, residuals, wire = Layout(tuple(parts), ()), Residuals(world), _Alone(world)
    gradient = torch.randn(count, device=device)

    def job() -> None:
        residuals.of(sample, device).add_(gradient)
        exchange.mean(residuals.of(sample, device), sample, residuals, wire)

    return _median(job, device) * layout.count / count


def _plain_bytes(layout: Layout, world: int) -> int:
    return ring_bytes(4 * sum(part.count for part in layout.plain), world)


def _median(job: Callable[[], object], device: torch.device) -> float:
    """Seconds, after a run that makes connections and takes memory."""
    job()
    found = []
    for _ in range(RUNS):
        started = time.perf_counter()
        job()
        if device.type != "cpu":  # there, jobs are only queued
            torch.accelerator.synchronize(device)
        found.append(time.perf_counter() - started)
    return sorted(found)[len(found) // 2]
