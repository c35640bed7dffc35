"""A member's mailbox: holds that come in time or too late, aborts, and signs of life."""

from __future__ import annotations

import threading

import pytest

from mizzen.train.group.messages import Beat, Broke, Failure, Fault, Held, News, Refused
from mizzen.train.group.process_group import Formation
from mizzen.train.group.station import EVALUATE, Regroup, Station


def in_group(generation: int = 1) -> Station:
    station = Station(7)
    station.order(formation(generation))
    station.next_formation()
    station.at_step(0)
    return station


def formation(generation: int) -> Formation:
    return Formation(generation, 0, 1, str(generation), "127.0.0.1", 1)


def told(station: Station) -> list[News]:
    return [news for news in station.take(0)[0] if not isinstance(news, Beat)]


def never() -> None:
    raise AssertionError("nothing is to be saved")


def step(station: Station, number: int) -> None:
    station.stepped(number)
    station.boundary(number, never)


def test_a_hold_that_comes_in_time_is_kept_and_one_too_late_is_refused() -> None:
    station = in_group()
    step(station, 1)
    station.hold(1, 1, save=False)
    assert told(station) == [Refused(7, 1, 1)]
    station.hold(1, 3, save=False)
    step(station, 2)
    thread = threading.Thread(target=lambda: step(station, 3))
    thread.start()
    assert Held(7, 1, 3) in station.take(5)[0]
    station.hold(1, 5, save=False)  # another rank was further: go on to there
    thread.join(5)
    assert not thread.is_alive()


def test_calls_that_arrive_in_another_order_change_nothing() -> None:
    station = in_group()
    station.hold(1, 9, save=True)
    station.hold(1, 4, save=False)
    station.hold(2, 2, save=False)  # of another generation
    for number in range(1, 9):
        step(station, number)


@pytest.mark.parametrize("always", [True, False])
def test_what_is_held_is_saved_first_where_it_must(always: bool) -> None:
    station = in_group()
    station.hold(1, 1, save=not always)
    station.order(formation(2))
    station.stepped(1)
    saved: list[int] = []
    with pytest.raises(Regroup):
        station.boundary(1, lambda: saved.append(1), always=always)
    assert saved == [1]
    assert told(station) == [Held(7, 1, 1)]


def test_an_abort_waits_until_the_training_thread_is_out_and_cuts_until_then() -> None:
    station = in_group()
    cuts: list[int] = []

    def cut() -> None:
        cuts.append(1)
        if len(cuts) == 2:
            station.out(Broke(7, 1, 0, Failure(Fault.PEER, "cut")))

    assert station.abort(1, cut, 10.0)
    assert len(cuts) == 2
    with pytest.raises(Regroup):
        station.boundary(1, never)
    assert station.abort(3, never, 10.0), "it is in no such group"
    assert not in_group().abort(1, lambda: None, 0.01)


def test_a_sign_of_life_says_what_is_usual_for_what_is_done_now() -> None:
    station = in_group()
    (beat,) = station.take(0)[0]
    assert isinstance(beat, Beat)
    assert beat.usual is None, "a first step may compile"
    step(station, 1)
    step(station, 2)
    *_, beat = station.take(0)[0]
    assert isinstance(beat, Beat)
    assert (beat.step, beat.steps_here) == (2, 2)
    assert beat.usual is not None
    with station.doing(EVALUATE):
        *_, beat = station.take(0)[0]
        assert isinstance(beat, Beat)
        assert beat.usual is None, "a first evaluation takes what it takes"
