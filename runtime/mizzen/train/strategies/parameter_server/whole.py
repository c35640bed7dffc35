"""The training as checkpoints know it: a Trainee of whole tensors that servers fill and are filled from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mizzen.train.seams import Place, StepResult, TrainState
from mizzen.train.strategies.base import MODEL, OPTIMIZER
from mizzen.train.strategies.parameter_server.chunks import Shapes, flat, unflat
from mizzen.train.strategies.parameter_server.shard import Pieces, ShardState, slots_from, whole_slots

if TYPE_CHECKING:
    from mizzen.train.seams import Tensors

RESIDUAL = "residual"
SEEN = "parameter_server_seen"  # of extras: pushes that are in a server's weights already, by server


class Whole:
    """Lives in the coordinator. Checkpoints that it leaves are those of any strategy."""

    def __init__(self, shapes: Shapes, servers: int, weights: Mapping[str, Tensor], state: TrainState) -> None:
        """`weights` are the module's state: parameters and buffers by name."""
        self.state, self.total_steps = state, 0
        self.cut = shapes.cut(min(servers, shapes.count))
        self.shapes = shapes
        self._model = {name: value.clone() for name, value in weights.items()}
        self._slots: dict[str, Tensor] = {}
        self.residual: Tensor | None = None  # the mean over workers

    def join(self, place: Place) -> None:
        """It is alone."""

    def steps(self) -> Iterator[StepResult]:
        """Workers take them."""
        return iter(())

    def evaluate(self, split: str) -> dict[str, float]:  # noqa: ARG002
        return {}

    def tensors(self) -> Tensors:
        return {**{f"{MODEL}{name}": value for name, value in self._model.items()}, **self._slots}

    def local_tensors(self) -> Tensors:
        return {RESIDUAL: self.residual} if self.residual is not None else {}

    def load(self, tensors: Mapping[str, Tensor], local: Sequence[Mapping[str, Tensor]], state: TrainState) -> None:
        for name, value in self._model.items():
            value.copy_(tensors[f"{MODEL}{name}"])
        self._slots = {name: tensors[name].detach().clone() for name in tensors if name.startswith(OPTIMIZER)}
        found = [one[RESIDUAL] for one in local if RESIDUAL in one and one[RESIDUAL].numel() == self.shapes.count]
        self.residual = torch.stack(found).sum(0) / len(local) if found else None
        self.state = replace(state, metrics=dict(state.metrics), extras=dict(state.extras))

    def part(self, server: int, version: int) -> ShardState:
        """What a server begins with."""
        chunks = self.cut[server]
        seen = self.state.extras.get(SEEN, {}).get(str(server), [])
        return ShardState(flat(self._model, chunks), slots_from(self._slots, chunks, OPTIMIZER), version, list(seen))

    def fill(self, states: Sequence[ShardState], undone: set[str]) -> None:
        """From all servers. Of the pushes that they know, those of pieces that are `undone` will come again."""
        for chunks, state in zip(self.cut, states, strict=True):
            unflat(state.values, chunks, self._model)
        for name, slots in whole_slots(self.cut, states).items():
            for slot, parts in slots.items():
                self._fill_slot(f"{OPTIMIZER}{name}|{slot}", parts, self._model[name].shape)
        seen = {str(server): [one for one in state.seen if one in undone] for server, state in enumerate(states)}
        self.state.extras[SEEN] = {server: names for server, names in seen.items() if names}

    def buffers(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self._model[name].copy_(value)

    def buffers_now(self) -> Tensors:
        trained = {name for name, _ in self.shapes.shapes}
        return {name: value for name, value in self._model.items() if name not in trained}

    def _fill_slot(self, key: str, pieces: Pieces, shape: torch.Size) -> None:
        """In place, for snapshots look at the same memory again and again. A server without a push has no pieces."""
        first = pieces[0][1]
        if key not in self._slots:
            self._slots[key] = torch.zeros(shape if first.dim() else (), dtype=first.dtype)
        whole = self._slots[key].view(-1)
        for start, value in pieces:
            whole[start : start + value.numel()] = value.reshape(-1)


def piece_names(undone: Sequence[Sequence[int]]) -> set[str]:
    """Of Ledger.to_dict's open pieces, as Piece.name has it."""
    return {f"{piece[0]}.{piece[4]}.{piece[5]}" for piece in undone}
