"""The profile of what a model is asked: of all rows, in windows of time, without holding a request up."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import polars as pl
import pytest

from mizzen.data.profiles import Profile
from mizzen.serve.app import ModelServer, Settings
from mizzen.serve.traffic import QUEUED_REQUESTS, TrafficProfile
from tests.runtime.serve.fakes import LengthPredictor


def frame_of(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"text": pl.String, "n": pl.Int64})


def rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"text": f"t{number % 7}", "n": number} for number in range(first, first + count)]


def told(traffic: TrafficProfile) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(traffic.document())
    return found


def until_rows(traffic: TrafficProfile, wanted: int) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while (found := told(traffic))["rows"] != wanted:
        assert time.monotonic() < deadline, f"{found['rows']} rows, not {wanted}"
        time.sleep(0.01)
    return found


def test_the_profile_is_that_of_all_rows_however_they_came() -> None:
    traffic = TrafficProfile(frame_of, gather_seconds=0.01)
    traffic.start()
    assert told(traffic) == {"rows": 0, "missedRows": 0, "profile": None}
    for first in range(0, 500, 5):
        traffic.offer(rows(5, first))
    found = until_rows(traffic, 500)
    traffic.stop()
    profile = Profile.from_json(json.dumps(found["profile"]))
    whole = Profile.of(frame_of(rows(500)))
    for name, column in whole.columns.items():
        assert profile.columns[name].distinct == column.distinct
        assert profile.columns[name].rows == 500
    assert profile.columns["text"].frequent is not None and whole.columns["text"].frequent is not None
    assert profile.columns["text"].frequent.counts == whole.columns["text"].frequent.counts


def test_old_requests_are_forgotten_window_by_window() -> None:
    now = [0.0]
    traffic = TrafficProfile(frame_of, gather_seconds=0, window_seconds=100, clock=lambda: now[0])
    for moment, first in ((0, 0), (100, 1000), (200, 2000)):
        now[0] = moment
        traffic._take_in(rows(10, first))
    profile = Profile.from_json(json.dumps(told(traffic)["profile"]))
    numbers = profile.columns["n"].numbers
    assert numbers is not None
    assert (profile.rows, numbers.low, numbers.high) == (20, 1000, 2009)
    assert told(traffic)["rows"] == 20, "asking changes nothing"


def test_what_comes_too_fast_is_counted_and_holds_nobody_up() -> None:
    entered, go = threading.Event(), threading.Event()

    def slow(taken: list[dict[str, Any]]) -> pl.DataFrame:
        entered.set()
        assert go.wait(20)
        return frame_of(taken)

    traffic = TrafficProfile(slow, gather_seconds=0)
    traffic.start()
    traffic.offer(rows(1))
    assert entered.wait(20)
    for _ in range(QUEUED_REQUESTS + 3):  # returns although nobody takes anything out
        traffic.offer(rows(2))
    assert traffic.missed_rows == 6
    go.set()
    traffic.stop()
    assert told(traffic)["rows"] == 1 + 2 * QUEUED_REQUESTS


def test_long_texts_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mizzen.serve.traffic.BATCH_CHARACTERS", 1000)
    taken: list[int] = []

    def counted(some: list[dict[str, Any]]) -> pl.DataFrame:
        taken.append(len(some))
        return frame_of(some)

    traffic = TrafficProfile(counted, gather_seconds=60)  # nothing but their size ends a batch
    for _ in range(6):
        traffic.offer([{"text": "x" * 500, "n": 1}])
    traffic.start()
    until_rows(traffic, 6)
    traffic.stop()
    assert taken == [2, 2, 2]


async def test_a_model_of_images_keeps_no_requests() -> None:
    class Images(LengthPredictor):
        profiled = False

    server = ModelServer(Settings(model_name="cats"))
    server.serve(Images())
    assert server.traffic is None
    assert server.profile() is None
    assert server.batcher is not None
    await server.batcher.stop()


def test_rows_that_cannot_be_profiled_cost_the_server_nothing(caplog: pytest.LogCaptureFixture) -> None:
    traffic = TrafficProfile(frame_of, gather_seconds=0)
    traffic.start()
    traffic.offer([{"text": "a", "n": "no number"}])
    deadline = time.monotonic() + 20
    while traffic.missed_rows != 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    traffic.offer(rows(4))
    until_rows(traffic, 4)
    traffic.stop()
    assert "1 rows could not be profiled" in caplog.text
