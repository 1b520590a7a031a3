"""Threads take items in order, raise their errors where items are put, and end with the block."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest

from ls3dw.core.parallel.threads import ThreadStage


def test_a_consumer_gets_all_items_in_order() -> None:
    taken: list[int] = []
    with ThreadStage[int](taken.extend, waiting=3, keep=False) as consumer:
        for number in range(50):
            consumer.put(number)
    assert taken == list(range(50))


def test_threads_of_a_consumer_share_its_items() -> None:
    taken: list[list[int]] = []
    together = threading.Barrier(3)

    def consume(items: Iterator[int]) -> None:
        together.wait(10)
        taken.append(list(items))

    with ThreadStage[int](consume, waiting=3, keep=False, threads=3) as consumer:
        for number in range(500):
            consumer.put(number)
    assert sorted(itertools.chain(*taken)) == list(range(500))
    assert len(taken) == 3


def test_an_error_of_one_thread_is_raised_and_the_others_end() -> None:
    ended: list[str] = []

    def consume(items: Iterator[int]) -> None:
        refuse_two(items)
        ended.append("well")

    def fill() -> None:
        with ThreadStage[int](consume, waiting=2, keep=True, threads=3) as consumer:
            for number in range(1000):
                consumer.put(number)

    with pytest.raises(OSError, match="disk full"):
        fill()
    assert ended == ["well", "well"]


def refuse_two(items: Iterator[int]) -> None:
    for item in items:
        if item == 2:
            raise OSError("disk full at 2")


def put_numbers(count: int, waiting: int, put: list[int]) -> None:
    """Hand numbers to a consumer that fails, noting them."""
    with ThreadStage[int](refuse_two, waiting, keep=True) as consumer:
        for number in range(count):
            put.append(number)
            consumer.put(number)


@pytest.mark.parametrize(("count", "waiting"), [(1000, 1), (3, 10)])
def test_a_consumers_error_is_raised_by_put_or_at_the_end(count: int, waiting: int) -> None:
    put: list[int] = []
    with pytest.raises(OSError, match="disk full"):
        put_numbers(count, waiting, put)
    assert 3 <= len(put) < 10


@pytest.mark.parametrize("keep", [True, False])
def test_what_waits_when_the_block_fails_is_kept_or_dropped(keep: bool) -> None:
    taken: list[int] = []
    start = threading.Event()

    def consume(items: Iterator[int]) -> None:
        start.wait(10)
        taken.extend(items)

    def fill() -> None:
        with ThreadStage[int](consume, waiting=10, keep=keep) as consumer:
            for number in range(5):
                consumer.put(number)
            threading.Timer(0.2, start.set).start()
            raise KeyError("the block's own error")

    with pytest.raises(KeyError, match="own error"):
        fill()
    assert taken == (list(range(5)) if keep else [])


def test_the_blocks_error_comes_before_the_consumers() -> None:
    def fill() -> None:
        with ThreadStage[int](refuse_two, waiting=10, keep=True) as consumer:
            for number in range(3):
                consumer.put(number)
            raise KeyError("first")

    with pytest.raises(KeyError, match="first"):
        fill()
