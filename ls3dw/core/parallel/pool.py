"""Runs units of work in this process or in worker processes, and streams their items.

A unit is a picklable callable that returns an iterator. Each worker process has a thread in the parent that starts it,
sends it one unit after the other and ends it. The socket buffer is small and the queue of items bounded, so processes
wait when items are not taken: memory stays flat.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Generic, TypeVar

from ls3dw.core.parallel.processes import Done, End, Process, block_interrupts

T = TypeVar("T")

Unit = Callable[[], Iterator[T]]

_POLL = 0.2

_NICENESS = 5
"""Added to the processes' niceness: with all cores busy, compiling networks took twice as long without it."""


def _count_one(_: object) -> int:
    return 1


def stream(
    units: Sequence[Unit[T]], workers: int, limit: int, size: Callable[[T], int] = _count_one
) -> Generator[T, None, None]:
    """Yield the items of all units, each unit's in order. workers: 0 runs the units here, one after the other.

    limit: total size of items that may wait to be taken before processes block; size: of an item, 1 by default. Raises
    the error of a unit, and `WorkerError` if a process dies.
    """
    if workers == 0:
        for unit in units:
            yield from unit()
        return
    pool = _Pool[T](units, workers, _ItemQueue(limit, size))
    try:
        yield from pool.items()
    finally:
        pool.close()


class _ItemQueue(queue.Queue[T | Done]):
    """A queue bounded by the size of its items."""

    def __init__(self, limit: int, size: Callable[[T], int]) -> None:
        super().__init__(limit)
        self._size = size
        self._held = 0

    # `queue.Queue` calls these three and is made to have them replaced. It takes an item while `_qsize` is below the
    # limit, and gives one while it is not 0.
    def _qsize(self) -> int:
        return self._held

    def _put(self, item: T | Done) -> None:
        self._held += self._size_of(item)
        super()._put(item)

    def _get(self) -> T | Done:
        item = super()._get()
        self._held -= self._size_of(item)
        return item

    def _size_of(self, item: T | Done) -> int:
        return 1 if isinstance(item, Done) else max(1, self._size(item))


class _Pool(Generic[T]):
    def __init__(self, units: Sequence[Unit[T]], workers: int, ready: _ItemQueue[T]) -> None:
        self._units: queue.SimpleQueue[Unit[T]] = queue.SimpleQueue()
        for unit in units:
            self._units.put(unit)
        self._ready = ready
        self._closed = threading.Event()
        self._processes: set[Process] = set()
        self._changing = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(min(workers, len(units)))]

    def items(self) -> Iterator[T]:
        for thread in self._threads:
            thread.start()
        running = len(self._threads)
        while running:
            item = self._ready.get()
            if not isinstance(item, Done):
                yield item
            elif item.error is not None:
                raise item.error
            else:
                running -= 1

    def close(self) -> None:
        """Kill the processes and wait for the threads; does nothing after a normal end.

        If a second Ctrl-C interrupts this, the processes still end with their parent.
        """
        self._closed.set()
        with self._changing:
            for process in self._processes:
                process.kill()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _run(self) -> None:
        block_interrupts()
        error: BaseException | None = None
        try:
            with self._changing:
                if self._closed.is_set():
                    return
                process = Process("decoding")
                self._processes.add(process)
            try:
                self._take_items(process)
            finally:
                with self._changing:
                    self._processes.remove(process)
                process.end()
        except BaseException as caught:  # noqa: BLE001 - raised again by `items`
            error = caught
        self._put(Done(error))

    def _take_items(self, process: Process) -> None:
        process.send(_run_units)
        for item in process.results():
            if isinstance(item, _NextUnit):
                try:
                    process.send(self._units.get_nowait())
                except queue.Empty:
                    process.send(End())
            elif not self._put(item):
                return
            # Free it before waiting for the next one.
            del item

    def _put(self, item: T | Done) -> bool:
        """Wait for room in the queue; False when it is closed."""
        while not self._closed.is_set():
            with contextlib.suppress(queue.Full):
                self._ready.put(item, timeout=_POLL)
                return True
        return False


class _NextUnit:
    """Asks the parent for a unit."""


def _run_units(units: Iterator[Unit[Any]], answer: Callable[[Any], None]) -> None:
    """Run units in a worker process and send their items."""
    import cv2

    # The other cores belong to the other processes.
    cv2.setNumThreads(1)
    os.nice(_NICENESS)
    answer(_NextUnit())
    for unit in units:
        for item in unit():
            answer(item)
        answer(_NextUnit())


def default_workers(gpus: int) -> int:
    """Choose the number of decoding processes. With GPUs: all cores but one for each and one for this process; on the
    CPU one, since the networks need the cores."""
    cores = len(os.sched_getaffinity(0))
    return max(1, cores - 1 - gpus) if gpus else 1
