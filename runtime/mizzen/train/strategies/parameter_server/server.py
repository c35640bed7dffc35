"""The actor around a Shard. Ray starts it anew where it dies; it then takes its part of the newest snapshot."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from mizzen.train.strategies.parameter_server.chunks import Chunk
    from mizzen.train.strategies.parameter_server.messages import Array
    from mizzen.train.strategies.parameter_server.shard import OptimizerSettings, Push, ShardState


@dataclass(frozen=True)
class Part:
    """All that a server begins with."""

    chunks: list[Chunk]
    settings: OptimizerSettings
    state: ShardState


class Server:
    """Holds one part of the weights. Calls come one after the other."""

    def __init__(self, coordinator: Any, index: int) -> None:
        import ray

        from mizzen.train.strategies.parameter_server.shard import Shard

        torch.set_num_threads(1)
        part: Part = ray.get(coordinator.part.remote(index))
        self._shard = Shard(part.chunks, part.settings, part.state)
        self._life = secrets.token_hex(4)  # another life's versions are other weights

    def pull(self, known: str) -> tuple[str, Array] | None:
        """Version and weights, flat fp32; None where they are those that the worker has."""
        version = f"{self._life}.{self._shard.version}"
        return None if known == version else (version, self._shard.values.numpy())

    def push(self, push: Push, payload: Array) -> int:
        return self._shard.push(push, torch.from_numpy(np.array(payload)))

    def apply(self, version: int, learning_rate: float) -> int:
        return self._shard.apply(version, learning_rate)

    def state(self) -> ShardState:
        return self._shard.state()

    def echo(self, payload: Array) -> int:
        """For measuring the way here."""
        return len(payload)
