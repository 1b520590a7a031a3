"""Runs units of work here or in processes, and streams what they yield. Knows nothing of faces.

A unit is a picklable callable that returns an iterator. Each process has a thread here that starts it, hands it one
unit after the other and ends it. What a unit yields comes back through their socket, whose small buffer makes the
process wait when there is no room for its items: memory stays flat.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import subprocess
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Generic, TypeVar

from ls3dw.core.parallel import shared
from ls3dw.core.parallel.processes import Done, block_interrupts, lost, pair, portable, start

T = TypeVar("T")

_POLL = 0.2
_KIND = "decoding"

_NICENESS = 5
"""By how much the processes step back: where all cores are busy, networks that are compiled took twice as long."""


def _count_one(_: object) -> int:
    return 1


def stream(
    units: Sequence[Callable[[], Iterator[T]]], workers: int, room: int, size: Callable[[T], int] = _count_one
) -> Generator[T, None, None]:
    """Yield what all units yield, each unit's items in order. workers: 0 runs them here, one after the other.

    room: when items of together this size lie ready, processes have to wait; size: of an item, each 1 unless it is
    given. An exception in a unit ends the stream, and so does the end of a process (`WorkerError`).
    """
    if workers == 0:
        for unit in units:
            yield from unit()
        return
    pool = _Pool[T](units, workers, _Ready(room, size))
    try:
        yield from pool.items()
    finally:
        pool.close()


class _Ready(queue.Queue[T | Done]):
    """Items that lie ready, as many as there is room for by their size."""

    def __init__(self, room: int, size: Callable[[T], int]) -> None:
        super().__init__(room)
        self._size = size
        self._held = 0

    # What `queue.Queue` is made to have replaced; it takes an item while this is below its limit, and gives one while
    # it is not 0.
    def _qsize(self) -> int:
        return self._held

    def _put(self, item: T | Done) -> None:
        self._held += self._weigh(item)
        super()._put(item)

    def _get(self) -> T | Done:
        item = super()._get()
        self._held -= self._weigh(item)
        return item

    def _weigh(self, item: T | Done) -> int:
        return 1 if isinstance(item, Done) else max(1, self._size(item))


class _Pool(Generic[T]):
    def __init__(self, units: Sequence[Callable[[], Iterator[T]]], workers: int, ready: _Ready[T]) -> None:
        self._units: queue.SimpleQueue[Callable[[], Iterator[T]]] = queue.SimpleQueue()
        for unit in units:
            self._units.put(unit)
        self._ready = ready
        self._closed = threading.Event()
        self._living: set[subprocess.Popen[bytes]] = set()
        self._changing = threading.Lock()
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(min(workers, len(units)))]

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
        """End the processes and wait for the threads; safe after a normal end too.

        Where a second Ctrl-C breaks this off, nothing waits for what is left, and it ends with this process.
        """
        self._closed.set()
        with self._changing:
            for process in self._living:
                process.kill()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _serve(self) -> None:
        block_interrupts()
        error: BaseException | None = None
        try:
            ours, theirs = pair()
            with Connection(ours.detach()) as connection, theirs:
                self._use_process(connection, theirs)
        except BaseException as caught:  # noqa: BLE001 - handed to the consumer, who raises it
            error = caught
        self._put(Done(error))

    def _use_process(self, connection: Connection, theirs: socket.socket) -> None:
        """Start a process, have it run units until none is left, and end it."""
        with self._changing:
            if self._closed.is_set():
                return
            process = start("ls3dw.core.parallel.pool:work", theirs)
            self._living.add(process)
        try:
            self._run_units(connection)
        except (EOFError, OSError) as error:
            raise lost(process, _KIND, "with fewer workers", error) from error
        finally:
            with self._changing:
                self._living.remove(process)
            process.kill()
            process.wait()

    def _run_units(self, connection: Connection) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                connection.send(self._units.get_nowait())
                while not isinstance(item := shared.receive(connection), Done):
                    if not self._put(item):
                        return
                    # Not to be held while the next one is awaited.
                    del item
                if item.error is not None:
                    self._put(item)
                    return

    def _put(self, item: T | Done) -> bool:
        """Wait for room in the queue; False when nobody takes items any more."""
        while not self._closed.is_set():
            with contextlib.suppress(queue.Full):
                self._ready.put(item, timeout=_POLL)
                return True
        return False


def work(descriptor: int) -> None:
    """Run units in a process of its own: this is its main function. descriptor: of the socket to the parent."""
    import cv2

    # The other cores are for the other processes, and this one too when they need it.
    cv2.setNumThreads(1)
    os.nice(_NICENESS)
    # A broken socket: the parent has gone.
    with Connection(descriptor) as connection, contextlib.suppress(ConnectionError):
        while True:
            shared.send(connection, Done(_run_unit(connection)))


def _run_unit(connection: Connection) -> Exception | None:
    """Receive a unit, run it and send what it yields; return the error that ended it."""
    try:
        for item in connection.recv()():
            shared.send(connection, item)
    except Exception as error:  # noqa: BLE001 - raised again in the parent
        return portable(error, _KIND)
    return None


def default_workers(gpus: int) -> int:
    """Choose the decoding processes: beside GPUs all cores but one each and this process's, else one: networks need
    the cores."""
    cores = len(os.sched_getaffinity(0))
    return max(1, cores - 1 - gpus) if gpus else 1
