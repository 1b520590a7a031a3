"""Threads that process items from a bounded queue."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")

_POLL = 0.2


class _End:
    """Ends a queue."""


class ThreadStage(Generic[T]):
    """Runs `consume` on threads, on an iterator of the items that are put; a context manager.

    Its end waits for the threads and raises their error. waiting: size of the queue; `put` blocks when it is full.
    keep: whether queued items are still processed when the `with` block fails. threads: how many call `consume`; they
    share the items.
    """

    def __init__(self, consume: Callable[[Iterator[T]], None], waiting: int, *, keep: bool, threads: int = 1) -> None:
        self._consume = consume
        self._keep = keep
        self._queue: queue.Queue[T | _End] = queue.Queue(maxsize=waiting)
        self._dropped = threading.Event()
        self._error: BaseException | None = None
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def put(self, item: T) -> None:
        """Queue an item; raises the error of `consume` if it failed."""
        self._put(item)
        if self._error is not None:
            raise self._error

    def __enter__(self) -> ThreadStage[T]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None and not self._keep:
            self._dropped.set()
        for _ in self._threads:
            self._put(_End())
        for thread in self._threads:
            thread.join()
        if error is None and self._error is not None:
            raise self._error

    def _put(self, item: T | _End) -> None:
        while any(thread.is_alive() for thread in self._threads):
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=_POLL)
                return

    def _run(self) -> None:
        try:
            self._consume(self._items())
        except BaseException as caught:  # noqa: BLE001 - raised again in the thread that puts
            self._error = caught

    def _items(self) -> Iterator[T]:
        while True:
            item = self._queue.get()
            if isinstance(item, _End):
                return
            if not self._dropped.is_set():
                yield item
