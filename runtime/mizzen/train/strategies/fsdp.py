"""Fully sharded data parallel: every rank has a part of each tensor, and blocks are gathered when they run.

torch's fully_shard, "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel" (Zhao et al., 2023), on which
ZeRO-3 (Rajbhandari et al., 2020) is the older word. Runs on gloo and CPUs as on NCCL and GPUs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor

from mizzen.train.checkpoints.copying import box_of
from mizzen.train.checkpoints.restore import StoredTensors
from mizzen.train.strategies.base import MODEL, OPTIMIZER, load_named_tensors
from mizzen.train.strategies.ddp import Ddp

if TYPE_CHECKING:
    from mizzen.train.plan import TrainPlan
    from mizzen.train.seams import Place

log = logging.getLogger(__name__)

SMALLEST_BLOCK = 0.01  # of all parameters: smaller ones travel with the rest, for each block costs two messages
_COMPUTE = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp8": torch.bfloat16}


class Fsdp(Ddp):
    """Weights, gradients and optimizer state are sharded over the default process group by their first dimension.

    Gradients are summed in fp32. With `fsdp.cpuOffload` the shards lie in the host's memory and the optimizer steps
    there: the process group then needs a back end for CPUs besides that of the device (`cpu:gloo,cuda:nccl`).
    """

    sharded = True
    lockstep = True

    def __init__(self, plan: TrainPlan, place: Place, device: torch.device) -> None:
        super().__init__(plan, place, device)
        self.mesh = init_device_mesh(device.type, (place.world,))

    def wrap(self, module: nn.Module) -> nn.Module:
        """Shards `module` in place, block by block. Wrapping it again, in the same group, changes nothing."""
        if isinstance(module, FSDPModule):
            return module
        compute = _COMPUTE.get(self.plan.precision)
        precision = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32 if compute else None)
        offload = self._offload()
        for block in blocks(module):
            fully_shard(block, mesh=self.mesh, mp_policy=precision, offload_policy=offload)
        fully_shard(module, mesh=self.mesh, mp_policy=precision, offload_policy=offload)
        return module

    @contextmanager
    def no_sync(self, model: nn.Module) -> Iterator[None]:
        """Gradients gather unsharded, so that a rank needs room for all of them."""
        root = cast("FSDPModule", model)
        root.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            root.set_requires_gradient_sync(True)

    def clip(self, parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
        norm = nn.utils.clip_grad_norm_(parameters, max_norm)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def load(self, module: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
        """`tensors` are whole, or shards of this very mesh. Of tensors at rest only this rank's part is read."""
        load_named_tensors(module, optimizer, _Shards(module, tensors))

    def _offload(self) -> OffloadPolicy:
        wanted = self.plan.fsdp is not None and self.plan.fsdp.cpu_offload
        if wanted and self.device.type != "cpu":
            return CPUOffloadPolicy(pin_memory=self.device.type == "cuda")
        return OffloadPolicy()


def blocks(module: nn.Module) -> list[nn.Module]:
    """What is gathered at once: the elements of the outermost lists in a module that hold much of its parameters."""
    least = SMALLEST_BLOCK * _size(module)
    return [block for block in _elements(module) if _size(block) >= least]


def _elements(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if not isinstance(child, nn.ModuleList | nn.Sequential):
            yield from _elements(child)
            continue
        for element in child:
            if isinstance(element, nn.ModuleList | nn.Sequential):
                yield from _elements(child)
                break
        else:
            yield from child


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


class _Shards(Mapping[str, Tensor]):
    """This rank's shards of tensors that are whole, by the layout of a module that is sharded already."""

    def __init__(self, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self._state = module.state_dict()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __getitem__(self, key: str) -> Tensor:
        name = key.removeprefix(MODEL) if key.startswith(MODEL) else key.removeprefix(OPTIMIZER).rpartition("|")[0]
        like = self._state[name]
        if not isinstance(like, DTensor) or self._shape(key) != like.shape:
            return self._tensors[key]
        local = self._part(key, like).to(like.to_local().device)
        return DTensor.from_local(
            local, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
        )

    def _shape(self, key: str) -> torch.Size:
        tensors = self._tensors
        return torch.Size(tensors.shape(key)) if isinstance(tensors, StoredTensors) else tensors[key].shape

    def _part(self, key: str, like: DTensor) -> Tensor:
        offsets, size = box_of(like)
        if isinstance(self._tensors, StoredTensors):
            return self._tensors.box(key, offsets, size)
        value = self._tensors[key]
        if isinstance(value, DTensor):
            return value.to_local()
        return value[tuple(slice(at, at + length) for at, length in zip(offsets, size, strict=True))]
