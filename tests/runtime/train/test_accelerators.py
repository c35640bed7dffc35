"""Every row of the table on a machine that only seems to have it, and the CPUs of this one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mizzen.errors import SystemError_, UserError
from mizzen.train import accelerators
from mizzen.train.accelerators import Probes
from mizzen_api.accelerators import CPU, TABLE, Accelerator, by_vendor
from mizzen_api.workload import WorkloadConfig


def machine(vendor: str = "cpu", devices: int = 0, packages: tuple[str, ...] = (), capability=(9, 0)) -> Probes:
    """Probes of a machine with `devices` of one vendor."""
    chosen: list[Any] = []
    row = by_vendor(vendor)

    def api(name: str) -> SimpleNamespace:
        have = devices if row.device == name else 0
        return SimpleNamespace(
            is_available=lambda: have > 0,
            device_count=lambda: have,
            set_device=chosen.append,
            get_device_capability=lambda: capability,
        )

    torch = SimpleNamespace(
        version=SimpleNamespace(hip="6.4" if vendor == "amd" else None),
        device=lambda *parts: parts,
        **{name: api(name) for name in ("cuda", "npu", "hpu")},
    )
    xla = SimpleNamespace(
        runtime=SimpleNamespace(addressable_device_count=lambda: devices), device=lambda index: ("xla", index)
    )
    modules = {"torch": torch, "torch_xla": xla, "torch_npu": object(), "habana_frameworks.torch": object()}
    return Probes(installed=lambda package: package in packages, load=modules.__getitem__)


MACHINES = {
    "nvidia": machine("nvidia", 2),
    "amd": machine("amd", 2),
    "google": machine("google", 2, ("torch_xla",)),
    "ascend": machine("ascend", 2, ("torch_npu",)),
    "gaudi": machine("gaudi", 2, ("habana_frameworks",)),
    "cpu": machine(),
}


@pytest.fixture(autouse=True)
def tpu_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PJRT_DEVICE", "TPU")


def test_every_row_has_a_machine() -> None:
    assert set(MACHINES) == {row.vendor for row in TABLE}


@pytest.mark.parametrize("vendor", MACHINES)
def test_auto_the_kind_and_the_vendor_find_what_is_here(vendor: str) -> None:
    row, probes = by_vendor(vendor), MACHINES[vendor]
    assert accelerators.select("auto", probes) is row
    assert accelerators.select(row.kind, probes) is row
    assert accelerators.select(vendor, probes) is row
    assert accelerators.required(vendor, probes) is row
    assert accelerators.here(probes)[-1] is CPU


@pytest.mark.parametrize(
    ("vendor", "rank", "expected"),
    [
        ("nvidia", 1, ("cuda", 1)),
        ("amd", 3, ("cuda", 1)),
        ("google", 0, ("xla", 0)),
        ("ascend", 1, ("npu", 1)),
        ("gaudi", 1, ("hpu", 1)),
        ("cpu", 1, ("cpu",)),
    ],
)
def test_the_device_of_a_rank(vendor: str, rank: int, expected: tuple[Any, ...]) -> None:
    found: Any = accelerators.device(by_vendor(vendor), rank, MACHINES[vendor])
    assert found == expected


@pytest.mark.parametrize("wanted", ["gpu", "tpu", "npu"])
def test_what_is_not_here_is_refused_with_what_is(wanted: str) -> None:
    with pytest.raises(UserError, match=r"there is none on this machine, which has CPUs .* auto takes what is here"):
        accelerators.select(wanted, machine())


def test_a_name_that_nobody_knows() -> None:
    with pytest.raises(UserError, match="none of auto, gpu, tpu, npu, cpu"):
        accelerators.select("quantum", machine())


def test_a_pod_without_the_device_that_it_was_given() -> None:
    with pytest.raises(SystemError_, match=r"given nvidia.com/gpu, yet torch sees no device of NVIDIA GPUs"):
        accelerators.select("nvidia", machine())  # another node may do better
    with pytest.raises(SystemError_, match=r"given huawei.com/Ascend910, yet torch sees no device"):
        accelerators.select("ascend", machine("ascend", 0, ("torch_npu",)))
    with pytest.raises(UserError, match=r"the image has no torch_npu: take one that brings it \(spec.image\)"):
        accelerators.select("ascend", machine())  # no other node will


def test_an_nvidia_torch_does_not_see_amds_devices() -> None:
    assert accelerators.count(by_vendor("amd"), MACHINES["nvidia"]) == 0
    assert accelerators.count(by_vendor("nvidia"), MACHINES["amd"]) == 0


def test_precisions() -> None:
    for row in TABLE:
        accelerators.check_precision(row, "fp32", machine())
    accelerators.check_precision(by_vendor("nvidia"), "fp8", machine("nvidia", 1, capability=(8, 9)))
    with pytest.raises(UserError, match=r"this one has 8.0: set it to bf16"):
        accelerators.check_precision(by_vendor("nvidia"), "fp8", machine("nvidia", 1, capability=(8, 0)))
    with pytest.raises(UserError, match="fp8 does not go with CPUs: use one of fp32, fp16, bf16"):
        accelerators.check_precision(CPU, "fp8")


def test_what_ray_is_told() -> None:
    told = {row.vendor: accelerators.ray_arguments(row, 4) for row in TABLE}
    assert told["nvidia"] == told["amd"] == ["--num-gpus=4"]
    assert told["cpu"] == ["--num-gpus=0", "--resources={}"]
    for vendor, name in (("google", "TPU"), ("ascend", "NPU"), ("gaudi", "HPU")):
        first, second = told[vendor]
        assert first == "--num-gpus=0"
        assert json.loads(second.removeprefix("--resources=")) == {name: 4}
        assert accelerators.ray_options(by_vendor(vendor), 1) == {"resources": {name: 1}}
    assert accelerators.ray_options(by_vendor("nvidia"), 2) == {"num_gpus": 2}
    assert accelerators.ray_options(CPU, 1) == {}


def test_what_the_operator_gave_a_pod() -> None:
    def given(vendor: str, **resources: int) -> tuple[str, int]:
        spec = {
            "datasetRef": {"name": "d"},
            "model": {"name": "text-bag"},
            "register": {"name": "m"},
            "scaling": {"resourcesPerWorker": resources},
        }
        body = {"kind": "TrainingJob", "namespace": "n", "name": "t", "uid": "u", "artifacts_uri": "file:///a"}
        config = WorkloadConfig.model_validate(body | {"training_spec": spec, "accelerator": vendor})
        row, devices = accelerators.granted(config)
        return row.vendor, devices

    assert given("cpu") == ("cpu", 0)
    assert given("nvidia") == ("nvidia", 1)
    assert given("ascend", accelerators=8) == ("ascend", 8)


def test_ray_knows_these_resources() -> None:
    from ray._private.accelerators import get_all_accelerator_resource_names

    assert {row.ray_resource for row in TABLE if row.ray_resource} <= get_all_accelerator_resource_names()


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.vendor)
def test_this_machine(row: Accelerator, tmp_path: Path) -> None:
    """For real, whatever is here: a product on the device, and a sum through the row's back end."""
    import torch
    import torch.distributed as dist

    if row not in accelerators.here():
        pytest.skip(f"no {row.title} here")
    assert accelerators.required(row.vendor) is row
    place = accelerators.device(row)
    assert place.type == row.device
    product = torch.ones(2, 2, device=place) @ torch.ones(2, 2, device=place)
    dist.init_process_group(row.backend, store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        dist.all_reduce(product)
    finally:
        dist.destroy_process_group()
    assert product.cpu().tolist() == [[2.0, 2.0], [2.0, 2.0]]


def test_torch_is_imported_only_when_it_is_needed() -> None:
    code = "import sys, mizzen.train.accelerators; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
