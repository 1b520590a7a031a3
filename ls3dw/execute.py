"""Runs units of work here or in processes, and streams what they yield. Knows nothing of faces.

A unit is a picklable callable that returns an iterator. Each process has a thread here that starts it, hands it one
unit after the other and ends it. What a unit yields comes back through their socket, whose small buffer makes the
process wait when nobody takes its items: memory stays flat.

The processes are plain ones, not those of multiprocessing or of a pool library: those run the main script again, or
need helpers of their own (a resource tracker, `pgrep`) that a Ctrl-C can hit while they end the pool, which then hangs.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Generic, TypeVar

from ls3dw import transport
from ls3dw.errors import WorkerError

T = TypeVar("T")

_POLL = 0.2

_PROGRAM = """
import sys
descriptor, parent, *sys.path = sys.argv[1:]
from ls3dw.execute import work
work(int(descriptor), int(parent))
"""
"""What a process runs; it finds modules where its parent does, and never loads the parent's main script."""


def stream(units: Sequence[Callable[[], Iterator[T]]], workers: int, waiting: int) -> Generator[T, None, None]:
    """Yield what all units yield, each unit's items in order. workers: 0 runs them here, one after the other.

    waiting: items that may lie ready before processes have to wait. An exception in a unit ends the stream, and so
    does the end of a process (`WorkerError`).
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
    """Stands behind the items of a unit, and of a process; holds the error that ended them, if any."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class _Pool(Generic[T]):
    def __init__(self, units: Sequence[Callable[[], Iterator[T]]], workers: int, waiting: int) -> None:
        self._units: queue.SimpleQueue[Callable[[], Iterator[T]]] = queue.SimpleQueue()
        for unit in units:
            self._units.put(unit)
        self._ready: queue.Queue[T | _Done] = queue.Queue(maxsize=waiting)
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
            if not isinstance(item, _Done):
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
        # Inherited by the process, from its first instruction on: Ctrl-C is for the parent alone.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        error: BaseException | None = None
        try:
            ours, theirs = socket.socketpair()
            with Connection(ours.detach()) as connection, theirs:
                self._use_process(connection, theirs)
        except BaseException as caught:  # noqa: BLE001 - handed to the consumer, who raises it
            error = caught
        self._put(_Done(error))

    def _use_process(self, connection: Connection, theirs: socket.socket) -> None:
        """Start a process, have it run units until none is left, and end it."""
        with self._changing:
            if self._closed.is_set():
                return
            process = _start(theirs)
            self._living.add(process)
        # Else this end would keep the socket open, and the process's end would go unseen.
        theirs.close()
        try:
            self._run_units(connection)
        except (EOFError, OSError) as error:
            raise _lost(process, error) from error
        finally:
            with self._changing:
                self._living.remove(process)
            process.kill()
            process.wait()

    def _run_units(self, connection: Connection) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                connection.send(self._units.get_nowait())
                while not isinstance(item := transport.receive(connection), _Done):
                    if not self._put(item):
                        return
                    # Not to be held while the next one is awaited.
                    del item
                if item.error is not None:
                    self._put(item)
                    return

    def _put(self, item: T | _Done) -> bool:
        """Wait for room in the queue; False when nobody takes items any more."""
        while not self._closed.is_set():
            with contextlib.suppress(queue.Full):
                self._ready.put(item, timeout=_POLL)
                return True
        return False


def _start(theirs: socket.socket) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), str(os.getpid()), *map(str, sys.path)]
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])


def _lost(process: subprocess.Popen[bytes], error: EOFError | OSError) -> Exception:
    """Say how a process ended, if it did: its socket closes a moment earlier. Else the error is this side's own."""
    try:
        status = process.wait(timeout=2)
    except subprocess.TimeoutExpired:
        return error
    how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    why = ", as the system does when memory runs out" if status == -signal.SIGKILL else ""
    return WorkerError(
        f"decoding process {process.pid} was terminated {how}{why}; what is finished is kept: "
        "run the same command again, with fewer workers if this comes back"
    )


def work(descriptor: int, parent: int) -> None:
    """Run units in a process of its own: this is its main function. descriptor: of the socket to the parent."""
    import cv2

    # The other cores are for the other processes.
    cv2.setNumThreads(1)
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    # A broken socket: the parent has gone.
    with Connection(descriptor) as connection, contextlib.suppress(ConnectionError):
        while True:
            transport.send(connection, _Done(_run_unit(connection)))


def _run_unit(connection: Connection) -> Exception | None:
    """Receive a unit, run it and send what it yields; return the error that ended it."""
    try:
        for item in connection.recv()():
            transport.send(connection, item)
    except Exception as error:  # noqa: BLE001 - raised again in the parent
        return _portable(error)
    return None


def _portable(error: Exception) -> Exception:
    """Note where an error comes from; one that cannot travel between processes becomes its text."""
    note = "In a decoding process:\n" + "".join(traceback.format_exception(error))
    error.add_note(note)
    try:
        if type(ForkingPickler.loads(ForkingPickler.dumps(error))) is type(error):
            return error
        reason = "it changes when it is pickled"
    except Exception as caught:  # noqa: BLE001 - pickling runs the error's own code
        reason = f"{type(caught).__name__}: {caught}"
    replacement = WorkerError(f"a decoding process failed: {type(error).__name__}: {error}")
    replacement.add_note(f"{note}(cannot be pickled: {reason})")
    return replacement


def _follow(parent: int) -> None:
    """Do not outlive the parent, whatever the unit is busy with."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def default_workers(on_gpu: bool) -> int:
    """Choose the decoding processes: all cores but one beside a GPU; one where the networks need the cores."""
    cores = len(os.sched_getaffinity(0))
    return max(1, cores - 1) if on_gpu else 1
