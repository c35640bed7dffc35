"""A worker's side: weights from the servers, gradients to them, and the coordinator's word between."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
import torch
from torch import Tensor

from mizzen.train.compression.codecs import Codec, Plain, codec_of, encode_with_feedback
from mizzen.train.compression.gate import RUNS, Cost, Link, decide, link_from
from mizzen.train.strategies.parameter_server.chunks import Shapes, flat, unflat
from mizzen.train.strategies.parameter_server.messages import Arrays, Done, Model, Work
from mizzen.train.strategies.parameter_server.shard import Push

if TYPE_CHECKING:
    from torch import nn

    from mizzen.train.strategies.parameter_server.ledger import Piece, Verdict
    from mizzen_api.trainingjob_trainer import Compression

METHODS = ("int8", "int4", "topk")  # the gentlest first; PowerSGD needs means over all workers
PROBES = (4_096, 4_194_304)  # bytes
CODEC_SAMPLE = 1_048_576  # values


class Client:
    """One worker's. Calls wait for servers that are being started anew."""

    def __init__(self, coordinator: Any, worker: int, module: nn.Module, settings: Compression | None) -> None:
        self._coordinator, self._worker, self._module = coordinator, worker, module
        self._settings = settings
        self._shapes = Shapes.of(module)
        self._parameters = {name: value for name, value in module.named_parameters() if value.requires_grad}
        self.codec: Codec = Plain()
        self.note = ""
        self.bytes_sent = self.bytes_uncompressed = 0

    def join(self, rows: int) -> None:
        """Take part; the first one brings the weights that it has built."""
        model = Model(self._shapes, rows)
        welcome = ray.get(self._coordinator.join.remote(self._worker, model))
        if welcome.begin:
            weights = arrays(self._module.state_dict())
            ray.get(self._coordinator.begin.remote(self._worker, weights))
            welcome = ray.get(self._coordinator.join.remote(self._worker, model))
        self._servers = welcome.servers
        self._cut = self._shapes.cut(len(self._servers))
        self._versions = [""] * len(self._servers)
        self._load_buffers(welcome.buffers)
        self._owed = [torch.zeros(sum(chunk.count for chunk in chunks)) for chunks in self._cut]
        if welcome.residual is not None:
            whole = torch.from_numpy(np.array(welcome.residual))
            self._owed = list(torch.split(whole, [len(owed) for owed in self._owed]))
        self._choose()

    def next(self, done: Done | None) -> Work:
        work: Work = ray.get(self._coordinator.next.remote(self._worker, done))
        return work

    def pull(self) -> None:
        """Weights of the servers that have others than the module."""
        calls = [server.pull.remote(known) for server, known in zip(self._servers, self._versions, strict=True)]
        for at, found in enumerate(ray.get(calls)):
            if found is not None:
                self._versions[at], values = found
                unflat(torch.from_numpy(np.array(values)), self._cut[at], self._parameters)

    def push(self, piece: Piece, learning_rate: float, *, gather: bool) -> bool:
        """Send the gradients that parameters hold, unless they have become too old: whether they count."""
        verdict: Verdict = ray.get(self._coordinator.settle.remote(self._worker, piece))
        if not verdict.scale:
            return False
        push = Push(piece.name, self.codec, learning_rate, verdict.scale, piece.share, gather)
        gradients = {
            name: value.grad if value.grad is not None else torch.zeros_like(value)
            for name, value in self._parameters.items()
        }
        calls = [server.push.remote(push, self._payload(at, gradients)) for at, server in enumerate(self._servers)]
        ray.get(calls)
        return True

    def residual(self) -> Any:
        """What is owed, flat; None where gradients travel whole."""
        return None if isinstance(self.codec, Plain) else torch.cat(self._owed).numpy()

    def buffers(self) -> Arrays:
        """The module's state that is no trained parameter."""
        return arrays({name: v for name, v in self._module.state_dict().items() if name not in self._parameters})

    def _payload(self, server: int, gradients: Mapping[str, Tensor]) -> Any:
        gradient = flat(gradients, self._cut[server])
        self.bytes_uncompressed += 4 * len(gradient)
        if isinstance(self.codec, Plain):
            payload = self.codec.encode(gradient)
        else:
            payload = encode_with_feedback(self.codec, self._owed[server].add_(gradient))
        self.bytes_sent += len(payload)
        return payload.numpy()

    def _load_buffers(self, buffers: Arrays) -> None:
        state = self._module.state_dict()
        for name, value in buffers.items():
            state[name].copy_(torch.from_numpy(np.array(value)))

    def _choose(self) -> None:
        """The codec of this worker; each decides by its own way to the servers."""
        settings = self._settings
        if settings is None or settings.method == "none":
            return
        if settings.when == "always" and settings.method != "auto":
            self.codec, self.note = codec_of(settings, settings.method), f"compression {settings.method}"
            return
        methods = METHODS if settings.method == "auto" else (settings.method,)
        count = self._shapes.count
        costs = [_cost(codec_of(settings, method), count) for method in methods]
        decision = decide(self._link(), 4 * count, costs, always=settings.when == "always")
        self.codec, self.note = codec_of(settings, decision.method), decision.text

    def _link(self) -> Link:
        """Of a push to the first server."""
        small, large = ((size, self._echo_seconds(size)) for size in PROBES)
        return link_from(small, large)

    def _echo_seconds(self, size: int) -> float:
        payload = np.zeros(size, np.uint8)
        ray.get(self._servers[0].echo.remote(payload))
        found = []
        for _ in range(RUNS):
            started = time.perf_counter()
            ray.get(self._servers[0].echo.remote(payload))
            found.append(time.perf_counter() - started)
        return sorted(found)[RUNS // 2]


def _cost(codec: Codec, count: int) -> Cost:
    """The worker encodes and decodes (for what it owes), the server decodes."""
    sample = torch.randn(min(count, CODEC_SAMPLE))
    codec.encode(sample)
    started = time.perf_counter()
    payload = encode_with_feedback(codec, sample)
    codec.decode(payload, len(sample))
    spent = time.perf_counter() - started
    return Cost(codec.name, spent * count / len(sample), codec.size(count), collectives=1)


def arrays(tensors: Mapping[str, Tensor]) -> Arrays:
    return {name: value.detach().cpu().numpy() for name, value in tensors.items()}
