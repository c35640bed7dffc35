"""What this machine computes on: the rows of mizzen_api.accelerators, as torch and Ray know them.

The loop asks for the device and the back end of the process group, the worker for what its Ray node offers. torch and
the vendors' packages are imported only when they are asked.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mizzen.errors import SystemError_, UserError
from mizzen_api.accelerators import CPU, TABLE, Accelerator, by_vendor, of_kind
from mizzen_api.conditions import Reason
from mizzen_api.workload import WorkloadConfig

if TYPE_CHECKING:
    import torch

_FP8_CAPABILITY = (8, 9)  # CUDA: Ada and Hopper


@dataclass(frozen=True)
class Probes:
    """How to find out what is here; tests put their own machine in its place."""

    installed: Callable[[str], bool] = lambda package: importlib.util.find_spec(package) is not None
    load: Callable[[str], Any] = importlib.import_module


def here(probes: Probes = Probes()) -> tuple[Accelerator, ...]:
    """The rows whose devices this machine has, in the table's order; CPUs are always the last."""
    return tuple(row for row in TABLE if row is CPU or count(row, probes))


def select(wanted: str, probes: Probes = Probes()) -> Accelerator:
    """The row for auto, cpu, gpu, tpu, npu; or for a vendor, which is how the operator says what it gave the pod.

    UserError where this machine has no such device.
    """
    if wanted in {row.vendor for row in TABLE}:
        return required(wanted, probes)
    found = here(probes)
    if wanted == "auto":
        return found[0]
    for row in found:
        if wanted == row.kind:
            return row
    rows = of_kind(wanted)
    if not rows:
        names = ", ".join(dict.fromkeys(row.kind for row in TABLE))
        raise UserError(Reason.INVALID_PARAMETERS, f"accelerator {wanted!r} is none of auto, {names}")
    raise UserError(Reason.INVALID_PARAMETERS, _absent(wanted, rows, probes))


def required(vendor: str, probes: Probes = Probes()) -> Accelerator:
    """The row that the operator chose.

    UserError where the image cannot use it, SystemError_ where the pod has no such device: another node may have one.
    """
    row = by_vendor(vendor)
    if row is CPU or count(row, probes):
        return row
    if _package_missing(row, probes):
        raise UserError(Reason.INVALID_PARAMETERS, f"this pod was given {row.resource}, yet {_why_not(row, probes)}")
    raise SystemError_(f"this pod was given {row.resource}, yet {_why_not(row, probes)}")


def count(row: Accelerator, probes: Probes = Probes()) -> int:
    """How many devices of the row this process sees."""
    if row is CPU:
        return 1
    if _package_missing(row, probes):
        return 0
    if row.device == "cuda":
        torch = probes.load("torch")
        is_rocm = torch.version.hip is not None
        return torch.cuda.device_count() if torch.cuda.is_available() and is_rocm == (row.vendor == "amd") else 0
    if row.device == "xla":
        return int(probes.load("torch_xla").runtime.addressable_device_count()) if _has_tpu() else 0
    probes.load(row.package)  # registers torch.npu or torch.hpu
    module = getattr(probes.load("torch"), row.device)
    return int(module.device_count()) if module.is_available() else 0


def device(row: Accelerator, local_rank: int = 0, probes: Probes = Probes()) -> torch.device:
    """Where tensors of this rank live; also makes it the current one, which collectives rely on."""
    torch = probes.load("torch")
    if row is CPU:
        return torch.device("cpu")  # type: ignore[no-any-return]
    if row.device == "xla":
        return probes.load("torch_xla").device(local_rank)  # type: ignore[no-any-return]
    if row.package:
        probes.load(row.package)
    place = torch.device(row.device, local_rank % max(1, count(row, probes)))
    getattr(torch, row.device).set_device(place)
    return place  # type: ignore[no-any-return]


def check_precision(row: Accelerator, precision: str, probes: Probes = Probes()) -> None:
    """UserError where the devices of this machine cannot compute in `precision`, with those that they can."""
    can = row.precisions
    if row.device == "cuda" and row.vendor == "nvidia" and precision == "fp8":
        capability = probes.load("torch").cuda.get_device_capability()
        if capability < _FP8_CAPABILITY:
            major, minor = capability
            raise UserError(
                Reason.INVALID_PARAMETERS,
                f"trainer.precision fp8 needs a GPU of compute capability 8.9 or more; this one has {major}.{minor}: "
                "set it to bf16",
            )
    if precision not in can:
        raise UserError(
            Reason.INVALID_PARAMETERS,
            f"trainer.precision {precision} does not go with {row.title}: use one of {', '.join(can)}",
        )


def granted(config: WorkloadConfig) -> tuple[Accelerator, int]:
    """What the operator gave each worker's pod: the row, and how many devices; none of them on CPUs."""
    row = by_vendor(config.accelerator)
    if row is CPU or config.training_spec is None:
        return row, 0
    return row, config.training_spec.scaling.resources_per_worker.accelerators or 1


def ray_arguments(row: Accelerator, devices: int) -> list[str]:
    """Of `ray start`, so that the node offers its accelerators to actors; nothing for CPUs."""
    if row.ray_resource == "GPU":
        return [f"--num-gpus={devices}"]
    resources = f'{{"{row.ray_resource}": {devices}}}' if row.ray_resource and devices else "{}"
    return ["--num-gpus=0", f"--resources={resources}"]


def ray_options(row: Accelerator, devices: int) -> dict[str, Any]:
    """Of an actor or task that takes so many devices."""
    if not row.ray_resource or not devices:
        return {}
    return {"num_gpus": devices} if row.ray_resource == "GPU" else {"resources": {row.ray_resource: devices}}


def _has_tpu() -> bool:
    return os.environ.get("PJRT_DEVICE", "") == "TPU"


def _package_missing(row: Accelerator, probes: Probes) -> bool:
    return bool(row.package) and not probes.installed(row.package.partition(".")[0])


def _why_not(row: Accelerator, probes: Probes) -> str:
    if _package_missing(row, probes):
        return f"the image has no {row.package}: take one that brings it (spec.image)"
    return f"torch sees no device of {row.title}: check the driver and that torch is built for it"


def _absent(wanted: str, rows: tuple[Accelerator, ...], probes: Probes) -> str:
    reasons = "; ".join(f"{row.title}: {_why_not(row, probes)}" for row in rows)
    have = ", ".join(row.title for row in here(probes))
    return f"accelerator {wanted}: there is none on this machine, which has {have} ({reasons}). auto takes what is here"
