"""Distributed data parallel: every rank has all weights, gradients are averaged while backward still runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mizzen.train.strategies.single import Single

if TYPE_CHECKING:
    from mizzen.train.compression.compressor import Compressor
    from mizzen.train.plan import TrainPlan
    from mizzen.train.seams import Place, Tensors


class Ddp(Single):
    """torch's DistributedDataParallel in the default process group, with or without compression of gradients."""

    def __init__(self, plan: TrainPlan, place: Place, device: torch.device) -> None:
        self.plan, self.place, self.device = plan, place, device
        self._compressor: Compressor | None = None

    def wrap(self, module: nn.Module) -> nn.Module:
        if not any(parameter.requires_grad for parameter in module.parameters()):
            return module
        wrapped = DistributedDataParallel(
            module,
            device_ids=[self.device.index] if self.device.type == "cuda" else None,
            # Weights are alike already: all ranks build them from one seed, or the group copied them. A broadcast from
            # rank 0 could undo steps, where another rank is further.
            init_sync=False,
            # A module may have parts that a batch does not use; `unused_parameters` is what the first forward found.
            find_unused_parameters=bool(getattr(module, "unused_parameters", False)),
            gradient_as_bucket_view=True,
        )
        self._attach(wrapped)
        return wrapped

    def _attach(self, wrapped: DistributedDataParallel) -> None:
        settings = self.plan.compression
        if settings is None or settings.method == "none":
            return
        from mizzen.train import compression

        former, self._compressor = self._compressor, compression.attach(wrapped, settings, self.place)
        self.note = self._compressor.note
        if former is not None:  # the module has grown; what is owed to its older parts still is
            self._compressor.load_local([former.local_tensors()])
            former.close()

    def no_sync(self, model: nn.Module) -> AbstractContextManager[object]:
        return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()

    def sum(self, tensor: Tensor) -> None:
        dist.all_reduce(tensor)

    def most(self, tensor: Tensor) -> None:
        dist.all_reduce(tensor, dist.ReduceOp.MAX)

    def align(self, module: nn.Module) -> None:
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)

    def local_tensors(self) -> Tensors:
        return self._compressor.local_tensors() if self._compressor is not None else {}

    def load_local(self, local: Sequence[Mapping[str, Tensor]]) -> None:
        if self._compressor is not None:
            self._compressor.load_local(list(local))

    def counters(self) -> dict[str, float | str]:
        if self._compressor is None:
            return {}
        return {
            "compression": self._compressor.method,
            "bytes_sent": self._compressor.bytes_sent,
            "bytes_uncompressed": self._compressor.bytes_uncompressed,
        }

    def close(self) -> None:
        if self._compressor is not None:
            self._compressor.close()
        self._compressor = None
