"""Runs parts of a batch in threads that share torch's cores."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def run_in_parts(work: Callable[[slice], Tensor], count: int, rows: int, threads: int) -> Tensor:
    """Call `work` for parts of `count` rows in `threads` threads, and concatenate the results.

    Parts have `rows` rows, or fewer if a thread would have no work otherwise.
    """
    rows = min(rows, -(-count // threads))
    parts = [slice(start, min(start + rows, count)) for start in range(0, count, rows)]
    if threads == 1 or len(parts) == 1:
        return torch.cat([work(part) for part in parts])
    return torch.cat(list(_pool(threads).map(partial(_infer, work), parts)))


def run_in_thread(work: Callable[[], None], threads: int) -> None:
    """Call `work` in one of the threads of `run_in_parts`, with its share of the cores."""
    if threads == 1:
        work()
    else:
        _pool(threads).submit(_infer, work).result()


def _infer(work: Callable[..., T], *arguments: object) -> T:
    # Inference mode is a property of the thread.
    with torch.inference_mode():
        return work(*arguments)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Start threads, each with its share of torch's threads."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="part")
    together = threading.Barrier(threads)
    before = torch.get_num_threads()

    def begin() -> None:
        together.wait()
        torch.set_num_threads(max(before // threads, 1))

    for started in [pool.submit(begin) for _ in range(threads)]:
        started.result()
    # The last number set applies to all threads that start later.
    torch.set_num_threads(before)
    return pool
