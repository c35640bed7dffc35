"""The autoscaler's arithmetic, and what holds for any traffic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mizzen_operator.autoscale import STABLE_WINDOW, scale
from mizzen_operator.plan import Recommendation
from tests.operator.builders import NOW, later


@pytest.mark.parametrize(
    ("present", "in_flight", "wanted"),
    [(1, 0, 1), (1, 4, 1), (1, 4.5, 2), (1, 400, 8), (3, 0, 3), (9, 0, 8), (1, None, 1), (20, None, 8)],
)
def test_first_look(present, in_flight, wanted):
    assert scale((), present, in_flight, (1, 8), 4, NOW)[0] == wanted


def test_down_only_when_the_whole_window_agrees():
    history = (Recommendation(NOW, 5),)
    replicas, history = scale(history, 5, 0, (1, 8), 4, later(59))
    assert replicas == 5
    assert scale(history, 5, 0, (1, 8), 4, later(60))[0] == 1


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=40), st.integers(1, 5), st.integers(0, 10), st.integers(1, 9))
def test_always_within_bounds_and_enough_for_the_present_traffic(loads, least, spread, target):
    history, replicas = (), least
    for second, load in enumerate(loads):
        replicas, history = scale(history, replicas, load, (least, least + spread), target, later(second * 5))
        assert least <= replicas <= least + spread
        assert replicas >= min(least + spread, load / target)
        assert all(later(second * 5) - r.at < STABLE_WINDOW for r in history)
