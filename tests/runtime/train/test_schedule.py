"""What a step is made of: pure functions of how far a run is."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mizzen.train.schedule import FINAL_LR, Progressive, Ramp, Schedule, seesaw
from mizzen.train.seams import TrainState

PLAIN = Schedule(peak=1.0, rows=1000, epochs=10, batch_size=100)


def at(schedule: Schedule, used: int) -> TrainState:
    epoch, row = divmod(used, schedule.rows)
    return TrainState(epoch=epoch, row=row)


def test_the_rate_warms_up_then_falls() -> None:
    rates = [PLAIN.at(state).lr for state in [TrainState(), *PLAIN.walk(TrainState())]]
    assert len(rates) == PLAIN.total_steps() + 1 == 101
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[10] == pytest.approx(1.0, rel=0.02)
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(FINAL_LR)


@pytest.mark.parametrize(("curve", "half"), [("constant", 1.0), ("linear", 0.51), ("cosine", 0.51)])
def test_each_curve_in_the_middle(curve: str, half: float) -> None:
    assert replace(PLAIN, curve=curve, warmup=0.0).at(at(PLAIN, 5000)).lr == pytest.approx(half)


def test_an_epoch_ends_with_a_smaller_batch_and_every_row_is_used_once() -> None:
    odd = replace(PLAIN, rows=1030, epochs=2)
    states = list(odd.walk(TrainState()))
    assert odd.total_steps() == len(states) == 22
    assert [s.row for s in states[9:12]] == [1000, 0, 100] and states[-1].epoch == 2


def test_seesaw_doubles_the_batch_where_the_rate_would_halve() -> None:
    ramp = Ramp(64, 512)
    assert seesaw(ramp, 1.0) == (64, 1.0)
    assert seesaw(ramp, 0.51) == (64, 1.0)
    assert seesaw(ramp, 0.5) == (128, pytest.approx(1 / math.sqrt(2)))
    assert seesaw(ramp, 0.25) == (256, pytest.approx(0.5))
    batch, share = seesaw(ramp, 0.125)
    assert (batch, share) == (512, pytest.approx(2**-1.5))
    assert seesaw(ramp, 0.0625) == (512, pytest.approx(2**-2.5)), "with the whole batch it falls as the plain one does"


def test_seesaw_saves_serial_steps() -> None:
    """The paper's bound for a cosine to zero is 36 %; ours ends at FINAL_LR and with a batch that is bounded."""
    plain = replace(PLAIN, rows=100_000, batch_size=100, warmup=0.0)
    ramped = replace(plain, progressive=Progressive(batch_size=Ramp(100, 6400), schedule="seesaw"))
    saved = 1 - ramped.total_steps() / plain.total_steps()
    assert 0.30 < saved < 0.37


def test_a_linear_ramp_grows_in_multiples_and_the_rate_with_it() -> None:
    ramp = Progressive(batch_size=Ramp(100, 400), until=0.5)
    adam = replace(PLAIN, curve="constant", warmup=0.0, progressive=ramp)
    sizes = [adam.at(at(adam, used)).batch_size for used in (0, 1600, 1700, 3400, 5000, 9000)]
    assert sizes == [100, 100, 200, 300, 400, 400]
    assert adam.at(TrainState()).lr == pytest.approx(0.5), "a quarter of the batch: half the rate"
    assert replace(adam, lr_power=1.0).at(TrainState()).lr == pytest.approx(0.25)


def test_sizes_are_whole_from_until_on() -> None:
    parts = Progressive(image_size=Ramp(14, 28), sequence_length=Ramp(16, 64), depth=Ramp(2, 6), until=0.5)
    schedule = replace(PLAIN, progressive=parts)
    shapes = [schedule.at(at(schedule, used)) for used in (0, 2500, 4999, 5000, 10_000)]
    assert (shapes[0].image_size, shapes[0].sequence_length, shapes[0].depth) == (14, 16, 2)
    assert shapes[1].depth == 4 and 14 < (shapes[1].image_size or 0) < 28
    assert all((s.image_size, s.sequence_length, s.depth) == (28, 64, 6) for s in shapes[3:])
    assert len({schedule.at(at(schedule, used)).sequence_length for used in range(0, 10_000, 10)}) <= 9


def test_a_scaled_batch_takes_a_scaled_rate() -> None:
    doubled = replace(PLAIN, batch_factor=2.0, lr_power=1.0)
    assert doubled.at(at(PLAIN, 5000)).batch_size == 200
    assert doubled.at(at(PLAIN, 5000)).lr == pytest.approx(2 * PLAIN.at(at(PLAIN, 5000)).lr)
    assert doubled.total_steps() == 50


def test_it_travels_as_json() -> None:
    parts = Progressive(batch_size=Ramp(64, 1024), depth=Ramp(2, 4), schedule="seesaw")
    assert Progressive.from_dict(asdict(parts)) == parts


ramps = st.builds(lambda a, b: Ramp(min(a, b), max(a, b)), st.integers(1, 600), st.integers(1, 600))


@given(
    rows=st.integers(1, 500),
    epochs=st.integers(1, 4),
    curve=st.sampled_from(["cosine", "linear", "constant"]),
    warmup=st.floats(0, 1),
    parts=st.builds(
        Progressive, batch_size=ramps, image_size=ramps, sequence_length=ramps, depth=ramps,
        schedule=st.sampled_from(["linear", "seesaw"]), until=st.floats(0.01, 1),
    ),
)  # fmt: skip
def test_any_run_ends_and_stays_within_its_sizes(
    rows: int, epochs: int, curve: str, warmup: float, parts: Progressive
) -> None:
    schedule = Schedule(0.5, rows, epochs, 32, curve, warmup, progressive=parts)
    states = [TrainState(), *schedule.walk(TrainState())]
    assert states[-1].epoch == epochs and states[-1].row == 0
    for state in states:
        shape = schedule.at(state)
        assert 0 < shape.lr <= 0.5 + 1e-9 and 1 <= shape.batch_size <= rows
        for ramp, size in (
            (parts.image_size, shape.image_size),
            (parts.sequence_length, shape.sequence_length),
            (parts.depth, shape.depth),
        ):
            assert ramp is not None and size is not None and ramp.start <= size <= ramp.end
