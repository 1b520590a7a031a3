"""Runs many independent calls with joblib: on threads here, or wherever `joblib.parallel_config` sends them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

Result = TypeVar("Result")

THREADS: Final = 8
"""Threads at most: hashing, JPEG and disk reads gain little from more."""


def run_all(function: Callable[..., Result], calls: Sequence[tuple[Any, ...]], *, few: int = 16) -> Iterator[Result]:
    """Yield `function(*arguments)` for each of `calls`, in order.

    Without an active `joblib.parallel_config`, up to `few` calls run in this thread and more on `THREADS` threads.
    function and arguments can be pickled, so that process and cluster backends work.
    """
    from joblib import Parallel, delayed
    from joblib.parallel import get_active_backend

    _, jobs = get_active_backend()  # None where no parallel_config sets it
    if jobs is None:
        jobs = min(THREADS, os.cpu_count() or 1) if len(calls) > few else 1
    if jobs == 1:
        yield from (function(*arguments) for arguments in calls)
        return
    failed: list[Exception] = []
    # Tasks are taken as workers become free: none is started after an error, and all have ended when it is raised.
    tasks: Iterable[Any] = (delayed(_attempt)(function, arguments) for arguments in calls if not failed)
    for result, error in Parallel(n_jobs=jobs, prefer="threads", return_as="generator")(tasks):
        if error is not None:
            failed.append(error)
        elif not failed:
            yield result
    if failed:
        raise failed[0]


def _attempt(function: Callable[..., Result], arguments: tuple[Any, ...]) -> tuple[Result | None, Exception | None]:
    try:
        return function(*arguments), None
    except Exception as error:  # noqa: BLE001 - raised again by the caller
        return None, error
