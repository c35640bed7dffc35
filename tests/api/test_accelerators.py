"""The table of accelerators: complete, without doubles, and what is chosen from it."""

from __future__ import annotations

import pytest

from mizzen_api.accelerators import CPU, RESOURCES, TABLE, by_vendor, choose, of_kind


def test_rows_are_told_apart_and_complete() -> None:
    assert len({row.vendor for row in TABLE}) == len(TABLE)
    assert {row.kind for row in TABLE} == {"gpu", "tpu", "npu", "cpu"}
    for row in TABLE:
        assert row.device and row.backend and row.library and "fp32" in row.precisions, row.vendor
        assert by_vendor(row.vendor) is row
        assert (row is CPU) == (not row.resource) == (not row.ray_resource)
    assert len(RESOURCES) == sum(bool(row.resource) for row in TABLE), "no two rows share a resource"


def test_the_names_that_device_plugins_use() -> None:
    names = {"nvidia.com/gpu", "amd.com/gpu", "google.com/tpu", "huawei.com/Ascend910", "habana.ai/gaudi"}
    assert names == RESOURCES


@pytest.mark.parametrize(
    ("wanted", "offered", "vendor"),
    [
        ("auto", [], "cpu"),
        ("auto", ["example.com/fpga"], "cpu"),
        ("auto", ["google.com/tpu"], "google"),
        ("auto", ["google.com/tpu", "amd.com/gpu"], "amd"),
        ("auto", ["amd.com/gpu", "nvidia.com/gpu"], "nvidia"),
        ("cpu", ["nvidia.com/gpu"], "cpu"),
        ("gpu", ["amd.com/gpu"], "amd"),
        ("gpu", ["google.com/tpu"], "nvidia"),  # the pods wait for a node that an autoscaler may bring
        ("gpu", [], "nvidia"),
        ("npu", ["habana.ai/gaudi"], "gaudi"),
        ("npu", [], "ascend"),
        ("tpu", [], "google"),
    ],
)
def test_a_row_is_chosen_by_what_the_cluster_offers(wanted: str, offered: list[str], vendor: str) -> None:
    assert choose(wanted, offered).vendor == vendor


def test_the_first_row_of_a_kind_is_its_default() -> None:
    assert [of_kind(kind)[0].vendor for kind in ("gpu", "tpu", "npu", "cpu")] == ["nvidia", "google", "ascend", "cpu"]
