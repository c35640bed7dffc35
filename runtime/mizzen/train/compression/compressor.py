"""The communication hook of a DDP model: buckets of gradients in, their mean over all ranks out, fewer bytes between.

On CPUs a thread of its own does the work, bucket by bucket in the order in which DDP hands them out, while backward
goes on; on GPUs a stream of its own. Both use a process group of their own, so that nothing else comes between.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mizzen.train.compression.residuals import Layout, Part, Residuals
from mizzen.train.compression.wire import Wire, ring_bytes

if TYPE_CHECKING:
    from torch._C._distributed_c10d import GradBucket
    from torch.futures import Future

    from mizzen.train.compression.exchanges import Exchange
    from mizzen.train.seams import Tensors


class Compressor:
    """Averages a model's gradients by `exchange`, or plainly where it is None.

    `bytes_sent` is what left this rank, `bytes_uncompressed` what a ring all-reduce in fp32 would have sent.
    """

    def __init__(self, module: nn.Module, exchange: Exchange | None, wire: Wire, note: str = "") -> None:
        self.exchange, self.wire, self.note = exchange, wire, note
        self.bytes_uncompressed = 0
        self._names = {parameter: name for name, parameter in module.named_parameters() if parameter.requires_grad}
        self._residuals = Residuals(wire.world)
        self._layouts: dict[tuple[str, ...], Layout] = {}
        self._runner: _Thread | _Stream | None = None
        if exchange is not None:
            parameters = list(self._names)
            layout = self._layout(parameters)
            exchange.reserve(layout, self._residuals, parameters[0].device)

    @property
    def method(self) -> str:
        """What is in use: none where the gate is shut."""
        return self.exchange.name if self.exchange is not None else "none"

    @property
    def bytes_sent(self) -> int:
        return self.wire.sent

    def hook(self, bucket: GradBucket) -> Future[Tensor]:
        """For DDP's register_comm_hook. A peer that is lost raises out of backward."""
        buffer, parameters = bucket.buffer(), bucket.parameters()
        if self._runner is None:
            self._runner = _Stream(buffer.device) if buffer.device.type == "cuda" else _Thread()
        return self._runner.run(lambda: self.average(buffer, parameters), buffer)

    @torch.no_grad()
    def average(self, buffer: Tensor, parameters: Sequence[Tensor]) -> None:
        """The mean over ranks in place of these gradients, which lie in `buffer` one after the other."""
        self.bytes_uncompressed += ring_bytes(4 * buffer.numel(), self.wire.world)
        if self.exchange is None:
            self.wire.mean(buffer)
            return
        layout = self._layout(parameters)
        plain = layout.gather(buffer, layout.plain)
        if plain.numel():
            self.wire.mean(plain)
            layout.scatter(buffer, layout.plain, plain)
        if layout.packed:
            owed = self._residuals.of(layout, buffer.device)
            owed.add_(layout.gather(buffer, layout.packed))
            mean = self.exchange.mean(owed, layout, self._residuals, self.wire)
            layout.scatter(buffer, layout.packed, mean)

    def local_tensors(self) -> Tensors:
        """Residuals by the names of parameters, as copies; nothing where nothing is compressed."""
        return self._residuals.export()

    def load_local(self, local: Sequence[Mapping[str, Tensor]]) -> None:
        """The mean of all ranks of then; of another method, what both know."""
        self._residuals.load(local)

    def close(self) -> None:
        if self._runner is not None:
            self._runner.close()

    def _layout(self, parameters: Sequence[Tensor]) -> Layout:
        names = tuple(self._names[parameter] for parameter in parameters)  # type: ignore[index]
        if names not in self._layouts:
            self._layouts[names] = layout_of(names, parameters, self.exchange)
        return self._layouts[names]


def layout_of(names: Sequence[str], parameters: Sequence[Tensor], exchange: Exchange | None) -> Layout:
    packed, plain, start = list[Part](), list[Part](), 0
    for name, parameter in zip(names, parameters, strict=True):
        part = Part(name, tuple(parameter.shape), start, parameter.numel())
        (packed if exchange is not None and exchange.packs(part.shape) else plain).append(part)
        start += part.count
    return Layout(tuple(packed), tuple(plain))


class _Thread:
    """Runs one job after the other. Jobs of a broken group may hang: the thread does not keep the process alive."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], None], Tensor, Future[Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="compression", daemon=True).start()

    def run(self, job: Callable[[], None], result: Tensor) -> Future[Tensor]:
        started: Future[Any] = torch.futures.Future()
        self._jobs.put((job, result, started))
        return started.then(_outcome)

    def close(self) -> None:
        self._jobs.put(None)

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, result, started = item
            try:
                job()
            except Exception as error:
                started.set_result(error)
            else:
                started.set_result(result)


class _Stream:
    """Queues jobs behind the gradients' own stream; DDP makes the optimizer wait for the future's event."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def run(self, job: Callable[[], None], result: Tensor) -> Future[Tensor]:
        done: Future[Tensor] = torch.futures.Future(devices=[self._device])
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            job()
            done.set_result(result)
        return done

    def close(self) -> None:
        """Streams end by themselves."""


def _outcome(started: Future[Any]) -> Tensor:
    """An exception that is raised in a callback reaches DDP as such; one that is a result would not."""
    value = started.value()
    if isinstance(value, Exception):
        raise value
    return value  # type: ignore[no-any-return]
