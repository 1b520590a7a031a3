"""Threads that each take a part of a batch through a network, on a share of the cores of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def through_lanes(work: Callable[[slice], Tensor], count: int, rows: int, lanes: int) -> Tensor:
    """Call `work` for parts of `count` rows, `lanes` of them at a time, and join what it returns.

    A part has `rows` rows, or fewer where that leaves a lane without work.
    """
    rows = min(rows, -(-count // lanes))
    parts = [slice(start, min(start + rows, count)) for start in range(0, count, rows)]
    if lanes == 1 or len(parts) == 1:
        return torch.cat([work(part) for part in parts])

    return torch.cat(list(_pool(lanes).map(partial(_infer, work), parts)))


def in_lane(work: Callable[[], None], lanes: int) -> None:
    """Call `work` as it would be called in a lane: what is compiled there is for its threads."""
    if lanes == 1:
        work()
    else:
        _pool(lanes).submit(_infer, work).result()


def _infer(work: Callable[..., T], *arguments: object) -> T:
    # Inference mode belongs to a thread, not to the program.
    with torch.inference_mode():
        return work(*arguments)


@cache
def _pool(lanes: int) -> ThreadPoolExecutor:
    """Start threads, each with its share of torch's threads."""
    pool = ThreadPoolExecutor(lanes, thread_name_prefix="lane")
    together = threading.Barrier(lanes)
    before = torch.get_num_threads()

    def begin() -> None:
        together.wait()
        torch.set_num_threads(max(before // lanes, 1))

    for started in [pool.submit(begin) for _ in range(lanes)]:
        started.result()
    # torch keeps the last number set for all threads that begin later.
    torch.set_num_threads(before)
    return pool
