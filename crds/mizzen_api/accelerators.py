"""One table: from what a TrainingJob asks for (cpu, gpu, tpu, npu) to each vendor's names and back ends.

The operator takes the names of Kubernetes' resources from it, `mizzen.train.accelerators` the rest. Nothing here has
side effects and nothing imports torch. A new vendor is a new row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["cpu", "gpu", "tpu", "npu"]


@dataclass(frozen=True)
class Accelerator:
    """One vendor's devices."""

    vendor: str
    kind: Kind
    title: str  # for people
    device: str  # torch's device type
    backend: str  # of the process group
    library: str  # that moves the bytes behind the back end
    resource: str = ""  # extended resource of its device plugin; empty for CPUs
    ray_resource: str = ""  # what Ray calls it; GPU is a field of its own in Ray, the others are custom resources
    package: str = ""  # Python package that adds the device to torch; empty where torch has it
    precisions: tuple[str, ...] = ("fp32", "fp16", "bf16")  # that some device of the row has; fp8 is asked at run time
    environment: Mapping[str, str] = field(default_factory=dict)  # of worker pods

    @property
    def taint(self) -> str:
        """Key of the taint by which clusters keep other pods off such nodes: by custom the resource's name."""
        return self.resource


CPU = Accelerator("cpu", "cpu", "CPUs", device="cpu", backend="gloo", library="gloo")

TABLE: tuple[Accelerator, ...] = (
    Accelerator(
        "nvidia",
        "gpu",
        "NVIDIA GPUs",
        device="cuda",
        backend="nccl",
        library="NCCL",
        resource="nvidia.com/gpu",
        ray_resource="GPU",
        precisions=("fp32", "fp16", "bf16", "fp8"),
    ),
    Accelerator(
        "amd",
        "gpu",
        "AMD GPUs (ROCm)",
        device="cuda",  # ROCm's torch speaks of cuda
        backend="nccl",
        library="RCCL",
        resource="amd.com/gpu",
        ray_resource="GPU",
        precisions=("fp32", "fp16", "bf16", "fp8"),
    ),
    Accelerator(
        "google",
        "tpu",
        "Google TPUs",
        device="xla",
        backend="xla",
        library="XLA collectives over ICI",
        resource="google.com/tpu",
        ray_resource="TPU",
        package="torch_xla",
        precisions=("fp32", "bf16"),
        environment={"PJRT_DEVICE": "TPU"},
    ),
    Accelerator(
        "ascend",
        "npu",
        "Huawei Ascend NPUs",
        device="npu",
        backend="hccl",
        library="HCCL (Ascend)",
        resource="huawei.com/Ascend910",
        ray_resource="NPU",
        package="torch_npu",
    ),
    Accelerator(
        "gaudi",
        "npu",
        "Intel Gaudi",
        device="hpu",
        backend="hccl",
        library="HCCL (Habana)",
        resource="habana.ai/gaudi",
        ray_resource="HPU",
        package="habana_frameworks.torch",
        precisions=("fp32", "bf16", "fp8"),
    ),
    CPU,
)
RESOURCES = frozenset(row.resource for row in TABLE if row.resource)


def by_vendor(vendor: str) -> Accelerator:
    """KeyError for a vendor that has no row."""
    return {row.vendor: row for row in TABLE}[vendor]


def of_kind(kind: str) -> tuple[Accelerator, ...]:
    return tuple(row for row in TABLE if row.kind == kind)


def choose(wanted: str, offered: Collection[str]) -> Accelerator:
    """The row for `wanted` (auto, cpu, gpu, tpu, npu) in a cluster that offers these extended resources.

    `auto` takes the first row of the table that is offered, else CPUs. A kind that nothing offers gives its first row:
    the pods then wait for such a node, which an autoscaler may bring.
    """
    if wanted == "auto":
        return next((row for row in TABLE if row.resource in offered), CPU)
    rows = of_kind(wanted)
    return next((row for row in rows if row.resource in offered), rows[0])
