"""Objects come through a socket as they were sent; shared arrays are passed on unread, and nothing stays open."""

from __future__ import annotations

import gc
import os
import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls3dw.core.parallel.processes import socket_pair
from ls3dw.core.parallel.shared import LARGE, SharedArray, receive, send


@contextmanager
def ends() -> Iterator[tuple[Connection, Connection]]:
    one, other = socket_pair()
    with Connection(one.detach()) as first, Connection(other.detach()) as second:
        yield first, second


def through(item: Any) -> Any:
    """Send an item and receive it, on two threads: a socket holds less than one."""
    with ends() as (first, second):
        sender = threading.Thread(target=send, args=(first, item))
        sender.start()
        received = receive(second)
        sender.join()
    return received


@dataclass(frozen=True)
class Pair:
    """An item with a shared array in it."""

    name: str
    shared: SharedArray


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


def open_files() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


@given(sizes=st.lists(st.integers(0, 3 * LARGE), max_size=6))
def test_arrays_come_through(sizes: list[int]) -> None:
    sent = {"text": "a", "arrays": [noise(size) for size in sizes], "turned": noise(70, 90).T}
    received = through(sent)
    assert received["text"] == "a"
    for there, here in zip(received["arrays"], sent["arrays"], strict=True):
        np.testing.assert_array_equal(there, here)
    np.testing.assert_array_equal(received["turned"], sent["turned"])


def test_a_shared_array_is_passed_on_without_being_read() -> None:
    pixels = noise(3, 50, 70, 3)
    before = open_files()
    first = through(Pair("a", SharedArray.of(pixels)))
    again = through(first)
    assert (again.name, again.shared.shape, again.shared.dtype) == ("a", pixels.shape, pixels.dtype)
    assert again.shared.nbytes == pixels.nbytes
    # Both hold the same anonymous file: nothing was copied on the way.
    assert os.fstat(first.shared._descriptor).st_ino == os.fstat(again.shared._descriptor).st_ino
    del first
    target = np.empty_like(pixels)
    again.shared.read_into(target)
    np.testing.assert_array_equal(target, pixels)
    np.testing.assert_array_equal(again.shared.array(), pixels)
    del again
    assert open_files() == before


def test_a_shared_array_here_is_the_array_itself() -> None:
    pixels = noise(4, 5)
    assert SharedArray.of(pixels).array() is pixels
    target = np.empty_like(pixels)
    SharedArray.of(pixels).read_into(target)
    np.testing.assert_array_equal(target, pixels)


def test_a_shared_array_is_filled_where_it_is_wanted() -> None:
    targets: list[np.ndarray] = []

    def fill(target: np.ndarray) -> None:
        targets.append(target)
        target[...] = noise(4, 5)

    shared = SharedArray((4, 5), np.uint8, fill)
    target = np.zeros((4, 5), dtype=np.uint8)
    shared.read_into(target)
    assert targets[0] is target
    np.testing.assert_array_equal(target, noise(4, 5))
    # An array of its own is filled once, and what travels is that.
    assert shared.array() is shared.array()
    np.testing.assert_array_equal(through(shared).array(), noise(4, 5))
    assert len(targets) == 2


def test_a_shared_array_that_is_not_contiguous_comes_through() -> None:
    turned = noise(6, 8).T
    np.testing.assert_array_equal(through(SharedArray.of(turned)).array(), turned)


def test_a_shared_array_is_not_read_into_a_copy() -> None:
    shared = through(SharedArray.of(noise(6, 8)))
    with pytest.raises(ValueError, match="expected a contiguous one"):
        shared.read_into(np.empty((8, 6), dtype=np.uint8).T)


def test_a_shared_array_cannot_be_pickled_otherwise() -> None:
    with pytest.raises(TypeError, match=r"shared\.send"):
        pickle.dumps(SharedArray.of(noise(3)))


def test_what_is_received_can_be_written_to() -> None:
    received = through(noise(LARGE))
    received[:] = 7
    assert (received == 7).all()
