"""Runs units of work here or in processes, and streams what they yield. Knows nothing of faces.

A unit is a picklable callable that returns an iterator. joblib spreads the units over processes; what they yield comes
back through a socket, whose small buffer makes a process wait when nobody takes its items: memory stays flat.
"""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, Generic, TypeVar

from ls3dw import transport

T = TypeVar("T")

_POLL = 0.2


def stream(units: Sequence[Callable[[], Iterator[T]]], workers: int, waiting: int) -> Generator[T, None, None]:
    """Yield what all units yield, each unit's items in order. workers: 0 runs them here, one after the other.

    waiting: items that may lie ready before processes have to wait. An exception in a unit ends the stream.
    """
    if workers == 0:
        for unit in units:
            yield from unit()
        return
    pool = _Pool[T](units, workers, waiting)
    try:
        yield from pool.items()
    finally:
        pool.close()


class _Done:
    """Put in the queue when all units have ended; holds the error that ended them, if any."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Pool(Generic[T]):
    def __init__(self, units: Sequence[Callable[[], Iterator[T]]], workers: int, waiting: int) -> None:
        from joblib.externals.loky import ProcessPoolExecutor

        self._units = units
        self._executor = ProcessPoolExecutor(
            min(workers, max(1, len(units))), initializer=_become_worker, initargs=(os.getpid(),)
        )
        self._queue: queue.Queue[T | _Done] = queue.Queue(maxsize=waiting)
        self._closed = threading.Event()
        self._folder = tempfile.TemporaryDirectory(prefix="ls3dw-")
        self._address = str(Path(self._folder.name, "items"))
        self._key = secrets.token_bytes(16)
        self._listener = Listener(self._address, backlog=workers, authkey=self._key)
        self._receivers: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._running = threading.Thread(target=self._run, daemon=True)
        self._accepting.start()
        self._running.start()

    def items(self) -> Iterator[T]:
        while True:
            item = self._queue.get()
            if isinstance(item, _Done):
                if item.error is not None:
                    raise item.error
                return
            yield item

    def close(self) -> None:
        """Stop the processes and wait for the threads; safe after a normal end too."""
        self._closed.set()
        self._executor.shutdown(wait=True, kill_workers=True)
        self._running.join()
        _knock(self._address)
        self._accepting.join()
        self._listener.close()
        self._folder.cleanup()

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            futures = [self._executor.submit(_send, unit, self._address, self._key) for unit in self._units]
            for future in futures:
                future.result()
        except BaseException as caught:  # noqa: BLE001 - handed to the consumer, who raises it
            error = caught
        if error is None:
            for receiver in self._receivers:
                receiver.join()
        self._put(_Done(error))

    def _accept(self) -> None:
        while not self._closed.is_set():
            with contextlib.suppress(OSError, EOFError, AuthenticationError):
                connection = self._listener.accept()
                receiver = threading.Thread(target=self._receive, args=(connection,), daemon=True)
                self._receivers.append(receiver)
                receiver.start()

    def _receive(self, connection: Connection) -> None:
        with connection, contextlib.suppress(EOFError, ConnectionError):
            connection.send(True)
            while self._put(transport.receive(connection)):
                pass

    def _put(self, item: T | _Done) -> bool:
        """Wait for room in the queue; False when nobody takes items any more."""
        while not self._closed.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=_POLL)
                return True
        return False


def _become_worker(parent: int) -> None:
    """Leave Ctrl-C to the parent and the other cores to the other processes, and do not outlive the parent."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _send(unit: Callable[[], Iterator[Any]], address: str, key: bytes) -> None:
    """Run one unit in a process and send what it yields."""
    with Client(address, authkey=key) as connection:
        # The answer shows that a receiver is there: the pool's end waits for those it knows.
        connection.recv()
        for item in unit():
            transport.send(connection, item)


def _knock(address: str) -> None:
    """Wake the thread that waits for connections."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as knock:
        knock.connect(address)


def default_workers(on_gpu: bool) -> int:
    """Choose the decoding processes: all cores but one beside a GPU; one where the networks need the cores."""
    cores = len(os.sched_getaffinity(0))
    return max(1, cores - 1) if on_gpu else 1
