"""Codecs, residuals and the gate, without a group; test_compression_ddp.py sends for real."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mizzen.train.compression.codecs import Codec, Int4, Int8, Plain, TopK, codec_of, decode_into, encode_with_feedback
from mizzen.train.compression.exchanges import METHODS, exchange_of
from mizzen.train.compression.gate import Cost, Link, decide, link_from
from mizzen.train.compression.powersgd import PowerSgd
from mizzen.train.compression.residuals import Layout, Part, Residuals
from mizzen_api.trainingjob_trainer import Compression

CODECS: list[Codec] = [Plain(), Int8(), Int8(32), Int4(), Int4(32), TopK(0.02)]
LOSSY = CODECS[1:]
COUNTS = (1, 15, 16, 17, 127, 128, 129, 300, 5000)


def numbers(count: int, seed: int = 0, size: float = 1.0) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed)) * size


@pytest.mark.parametrize("codec", CODECS, ids=repr)
@pytest.mark.parametrize("count", COUNTS)
def test_a_payload_has_the_size_that_was_told_and_comes_back(codec: Codec, count: int) -> None:
    values = numbers(count)
    payload = codec.encode(values)
    assert payload.dtype == torch.uint8
    assert payload.numel() == codec.size(count)
    back = codec.decode(payload, count)
    assert back.dtype == torch.float32
    assert back.shape == values.shape
    assert (back - values).norm() < values.norm()


@pytest.mark.parametrize("size", [1e-30, 1e-9, 1e-3, 1.0, 1e6])
@pytest.mark.parametrize(("codec", "steps"), [(Int8(), 127), (Int4(), 7)], ids=repr)
def test_quantised_values_are_off_by_half_a_step(codec: Codec, steps: int, size: float) -> None:
    values = numbers(128 * 64, size=size)
    step = values.view(-1, 128).abs().amax(1, keepdim=True) / steps
    off = (codec.decode(codec.encode(values), len(values)) - values).view(-1, 128).abs() / step
    # The first 16 values of a group carry int8's scale in their lowest bits. A scale in bf16 is up to 0.4 % off.
    assert off[:, 16:].max() <= 0.52
    assert off.max() <= (1.5 if steps == 127 else 0.52)
    assert off.max() > 0.4, "the error would be smaller with other steps"


def test_int8_is_one_byte_a_value_and_int4_takes_less_than_a_third_of_bf16() -> None:
    assert Int8().size(1_000_003) == 1_000_003
    assert Int4().size(1_000_003) / 2_000_006 < 0.26
    assert TopK(0.01).size(1_000_000) == 60_000


@pytest.mark.parametrize("at", [0, 5, 200, 4999])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("codec", LOSSY, ids=repr)
def test_what_is_not_finite_stays_so_and_leaves_no_residual(codec: Codec, value: float, at: int) -> None:
    owed = numbers(5000)
    owed[at] = value
    payload = encode_with_feedback(codec, owed)
    assert not codec.decode(payload, 5000)[at].isfinite()
    assert bool(owed.isfinite().all())


@pytest.mark.parametrize("codec", CODECS, ids=repr)
@pytest.mark.parametrize("count", [300, 70_000, 700_005])
def test_parts_give_the_same_bytes_as_the_whole(codec: Codec, count: int) -> None:
    values, out = numbers(count), torch.ones(count)
    owed = values.clone()
    payload = encode_with_feedback(codec, owed)
    assert torch.equal(payload, codec.encode(values))
    assert torch.equal(owed, values - codec.decode(payload, count))
    decode_into(codec, payload, out)
    assert torch.equal(out, codec.decode(payload, count))
    decode_into(codec, payload, out, weight=0.5)
    torch.testing.assert_close(out, 1.5 * codec.decode(payload, count))


@pytest.mark.parametrize("codec", LOSSY, ids=repr)
def test_zeros_stay_zeros(codec: Codec) -> None:
    assert not codec.decode(codec.encode(torch.zeros(300)), 300).any()


@pytest.mark.parametrize("codec", LOSSY, ids=repr)
def test_feedback_loses_nothing_in_the_long_run(codec: Codec) -> None:
    owed, sent, whole = torch.zeros(700), torch.zeros(700), torch.zeros(700)
    for step in range(300):
        gradient = numbers(700, step) + 0.1
        whole += gradient
        sent += codec.decode(encode_with_feedback(codec, owed.add_(gradient)), 700)
    torch.testing.assert_close(sent + owed, whole, atol=2e-3, rtol=1e-4)
    assert owed.abs().max() < 0.5 * whole.abs().max(), "residuals stay bounded"


@pytest.mark.parametrize("count", [500, 1_000_000])
def test_topk_keeps_the_largest(count: int) -> None:
    values = numbers(count)
    indices, picked = TopK(0.01).entries(TopK(0.01).encode(values), count)
    assert len(indices.unique()) == count // 100
    assert set(indices.tolist()) == set(values.abs().topk(count // 100).indices.tolist())
    torch.testing.assert_close(picked, values[indices], rtol=1e-2, atol=0)


def test_topk_finds_the_largest_where_a_sample_misleads() -> None:
    values = torch.zeros(1_000_000)
    values[1:5000:2] = numbers(2500) + 5.0  # a stride meets none of them
    indices, _ = TopK(0.001).entries(TopK(0.001).encode(values), len(values))
    assert bool((values[indices] > 0).all())


def layout(*shapes: tuple[int, ...], names: str = "abcdef") -> Layout:
    parts, start = [], 0
    for name, shape in zip(names, shapes, strict=False):
        parts.append(Part(name, shape, start, math.prod(shape)))
        start += math.prod(shape)
    return Layout(tuple(parts), ())


def test_parts_are_gathered_and_scattered() -> None:
    a, b, c = layout((2, 2), (3,), (2, 3)).packed
    mixed = Layout((c, a), (b,))
    flat = torch.arange(13.0)
    values = mixed.gather(flat, mixed.packed)
    assert values.tolist() == [7, 8, 9, 10, 11, 12, 0, 1, 2, 3]
    mixed.scatter(flat, mixed.packed, values * 2)
    assert flat.tolist() == [0, 2, 4, 6, 4, 5, 6, 14, 16, 18, 20, 22, 24]


def test_residuals_stay_with_their_parameters_when_buckets_change() -> None:
    residuals, device = Residuals(world=2), torch.device("cpu")
    whole = layout((2, 2), (3,))
    residuals.of(whole, device).copy_(torch.arange(7.0))
    residuals.share(whole, 3, 4, device).fill_(10.0)
    exported = residuals.export()
    assert exported["residual/a"].tolist() == [[0, 1], [2, 23]]  # an owner alone owes its share, so twice of it
    assert exported["residual/b"].tolist() == [24, 25, 26]
    first, second = layout((3,), names="b"), layout((2, 2), names="a")
    assert residuals.of(first, device).tolist() == [24, 25, 26]
    assert residuals.of(second, device).tolist() == [0, 1, 2, 23]
    assert residuals.export().keys() == exported.keys()
    residuals.of(first, device).zero_()
    assert residuals.export()["residual/b"].tolist() == [0, 0, 0]


def test_another_group_goes_on_with_the_mean_of_what_was_owed() -> None:
    residuals, device = Residuals(world=3), torch.device("cpu")
    exchange = PowerSgd(1)
    part = layout((8, 8))
    exchange.reserve(part, residuals, device)
    ones = {"residual/a": torch.ones(8, 8), "basis/a": torch.full((8, 1), 2.0)}
    twos = {name: value * 2 for name, value in ones.items()}
    residuals.load([ones, twos])
    assert residuals.export()["residual/a"].unique().tolist() == [1.5]
    assert residuals.export()["basis/a"].unique().tolist() == [3.0]
    residuals.load([])
    assert residuals.export()["residual/a"].unique().tolist() == [1.5]
    residuals.load([{"residual/a": torch.ones(2, 2)}])  # of another model: owed to nobody here
    assert residuals.export()["residual/a"].unique().tolist() == [0.0]


@pytest.mark.parametrize("method", METHODS)
def test_norms_and_biases_travel_as_they_are_unless_a_byte_would_be_dearer(method: str) -> None:
    exchange = exchange_of(Compression(method=method), method)
    assert exchange.packs((256, 256))
    assert exchange.packs((256,)) == (method == "int8")


SLOW, FAST = Link(1e-3, 12.5e6), Link(50e-6, 10e9)  # 100 Mbit/s, and a data centre
COSTS = [Cost("int8", 0.03, 10_000_000), Cost("int4", 0.04, 5_000_000), Cost("topk", 0.05, 600_000)]


@pytest.mark.parametrize(
    ("link", "costs", "always", "expected"),
    [
        (SLOW, COSTS[:1], False, "int8"),
        (FAST, COSTS[:1], False, "none"),
        (FAST, COSTS[:1], True, "int8"),
        (SLOW, COSTS, False, "topk"),
        (Link(1e-3, 400e6), COSTS, False, "int8"),  # the gentler one is fast enough
        (Link(1.0, 200e6), COSTS[:1], False, "none"),  # two collectives where latency is all
        (FAST, COSTS, True, "int8"),
    ],
)
def test_the_gate_opens_where_it_pays(link: Link, costs: list[Cost], always: bool, expected: str) -> None:
    decision = decide(link, 40_000_000, costs, always=always)
    assert decision.method == expected
    assert decision.text.startswith(f"compression {expected}: ")
    assert "MB/s" in decision.text


@pytest.mark.parametrize(
    ("small", "large", "latency", "bandwidth"),
    [
        ((1000, 1.0), (101_000, 3.0), 0.98, 50_000.0),
        ((1000, 0.001), (101_000, 2.001), 0.0, 50_000.0),
        ((1000, 1.0), (101_000, 1.1), 1.0, 101_000 / 1.1),  # all latency: the least that the bandwidth can be
        ((1000, 1.0), (101_000, 0.5), 1.0, 202_000.0),
    ],
)
def test_a_link_is_known_from_two_messages(
    small: tuple[int, float], large: tuple[int, float], latency: float, bandwidth: float
) -> None:
    link = link_from(small, large)
    assert link.latency == pytest.approx(latency)
    assert link.bandwidth == pytest.approx(bandwidth)


def test_settings_choose_the_codec() -> None:
    settings = Compression(method="int4", group_size=33, density=0.5)
    assert codec_of(settings, "int4") == Int4(34)  # two values share a byte
    assert codec_of(settings, "int8") == Int8(33)
    assert codec_of(settings, "topk") == TopK(0.5)
