"""Launches Triton's kernels; rehearsed, they are compiled side by side and not run."""

from __future__ import annotations

import contextvars
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import triton

MOST: Final = 16
"""Kernels that are compiled at once: each takes a core, and some 25 MB."""

_rehearsing: Final = contextvars.ContextVar("rehearsing", default=False)


def launch(kernel: Any, grid: tuple[int, ...], *arguments: object, **options: object) -> None:
    """Run a kernel on the current device, compiled for these arguments at the first time; in a rehearsal only compile
    it."""
    if _rehearsing.get():
        kernel.warmup(*arguments, grid=grid, **options)
    else:
        kernel[grid](*arguments, **options)


def rehearse(work: Callable[[], object]) -> None:
    """Compile the kernels that `work` launches: one after the other those of a FAN take a minute.

    What else the work does is done, on tensors that no kernel has filled. Triton before 3.5 cannot compile beside
    itself: there each kernel is compiled when it is first run.
    """
    if hasattr(triton, "AsyncCompileMode"):
        # In a context of its own: a compiler that fails leaves the mode on.
        contextvars.copy_context().run(_rehearse, work)


def _rehearse(work: Callable[[], object]) -> None:
    _rehearsing.set(True)
    cores = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(min(cores, MOST)) as pool, triton.AsyncCompileMode(pool):
        work()


def try_out() -> None:
    """Compile and run a kernel that does nothing; raises whatever the compiler does."""
    nothing_kernel[(1,)]()


@triton.jit
def nothing_kernel():  # type: ignore[no-untyped-def]
    pass
