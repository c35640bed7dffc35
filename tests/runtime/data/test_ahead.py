"""Work side by side keeps its order, its errors and its bounds; chunks come back from memory and from files alike."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mizzen.data.ahead import spread
from mizzen.data.spool import Spool


@given(st.lists(st.integers()), st.integers(1, 4))
def test_what_is_spread_comes_in_the_order_of_the_items(items: list[int], threads: int) -> None:
    assert list(spread(items, lambda item: item + 1, threads)) == [item + 1 for item in items]


def test_several_are_worked_on_at_a_time_and_no_more_are_taken() -> None:
    meeting = threading.Barrier(2, timeout=10)
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(8):
            taken.append(item)
            yield item

    def meet(item: int) -> int:
        meeting.wait()  # breaks unless two are here
        return item

    results = spread(items(), meet, threads=2)
    assert next(results) == 0
    assert taken == [0, 1, 2]
    assert list(results) == [1, 2, 3, 4, 5, 6, 7]


def test_an_error_comes_out_where_its_item_stands() -> None:
    results = spread([1, 0, 2], lambda item: 1 // item, threads=3)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize("in_memory", [0, 3000, 1 << 20])
def test_chunks_are_the_same_in_memory_and_in_files(tmp_path: Path, in_memory: int) -> None:
    chunks = [pl.DataFrame({"a": range(n, n + 50), "b": [str(n)] * 50}) for n in range(0, 200, 50)]
    with Spool(tmp_path, in_memory=in_memory) as spool:
        for chunk in chunks:
            spool.add(chunk)
        files = len(list(tmp_path.rglob("*.arrow")))
        assert files == {0: 3, 3000: 2, 1 << 20: 0}[in_memory], "the first chunk never needs a file"
        assert [chunk.rows() for chunk in spool.chunks()] == [chunk.rows() for chunk in chunks]
        assert [chunk.columns for chunk in spool.chunks(["b"])] == [["b"]] * 4
        sent = [spool.sendable(number) for number in range(4)]
        assert [isinstance(one, str) for one in sent] == [False] * (4 - files) + [True] * files
        assert (spool.count, spool.rows) == (4, 200)
    assert not list(tmp_path.iterdir())
