"""Launches Triton kernels, or compiles them in parallel without running them."""

from __future__ import annotations

import contextvars
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import triton

MOST_COMPILERS: Final = 16
"""Kernels compiled at once; each takes a core and some 25 MB."""

_compile_only: Final = contextvars.ContextVar("compile_only", default=False)


def launch(kernel: Any, grid: tuple[int, ...], *arguments: object, **options: object) -> None:
    """Run a kernel on the current device, compiling it at its first call; within `compile_ahead` only compile it."""
    if _compile_only.get():
        kernel.warmup(*arguments, grid=grid, **options)
    else:
        kernel[grid](*arguments, **options)


def compile_ahead(work: Callable[[], object]) -> None:
    """Compile the kernels that `work` launches in parallel; one by one those of a FAN take a minute.

    `work` runs on tensors that no kernel fills. Triton before 3.5 cannot compile in parallel: its kernels are compiled
    when they first run.
    """
    if hasattr(triton, "AsyncCompileMode"):
        # In a separate context: a failing compiler leaves the mode on.
        contextvars.copy_context().run(_compile_all, work)


def _compile_all(work: Callable[[], object]) -> None:
    _compile_only.set(True)
    cores = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(min(cores, MOST_COMPILERS)) as pool, triton.AsyncCompileMode(pool):
        work()


def try_compiler() -> None:
    """Compile and run an empty kernel; raises the errors of the compiler."""
    nothing_kernel[(1,)]()


@triton.jit
def nothing_kernel():  # type: ignore[no-untyped-def]
    pass
