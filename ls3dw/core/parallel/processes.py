"""Worker processes: how they start, what they exchange with their parent, how they end.

The parent sends a task, then its requests and last `End`. The process runs the task, sends its results and last
`Done`, with the error if the task failed. Worker processes are plain ones: those of multiprocessing and of pool
libraries run the main script again or need helper processes, and a Ctrl-C that hits a helper leaves the pool hanging.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any, Literal, TypeAlias

from ls3dw.core.parallel import shared
from ls3dw.errors import WorkerError

Kind = Literal["decoding", "network"]

Task: TypeAlias = Callable[[Iterator[Any], Callable[[Any], None]], None]
"""Runs in the process: takes requests from an iterator and sends results by a function. Must be picklable."""

_ADVICE: dict[Kind, str] = {"decoding": "with fewer workers", "network": "with a smaller --batch"}

_PROGRAM = """
import sys
descriptor, parent, kind, *sys.path = sys.argv[1:]
from ls3dw.core.parallel.processes import serve
serve(int(descriptor), int(parent), kind)
"""
"""Runs in a worker process; it has the parent's module path, and never loads the parent's main script."""

_SOCKET_BYTES = 1 << 14
"""Socket buffer, smaller than most messages: a sender blocks until they are read."""


class End:
    """The last request."""


class Done:
    """The last message of a process; error: why its task failed, or None."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


@dataclass(frozen=True)
class Import:
    """Asks a process to import a module before its task comes."""

    module: str


class Process:
    """A worker process, started at once. imports: a module to import while no task has come."""

    def __init__(self, kind: Kind, imports: str | None = None) -> None:
        self._kind: Kind = kind
        ours, theirs = socket_pair()
        self._connection = Connection(ours.detach())
        words = [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), str(os.getpid()), kind, *map(str, sys.path)]
        with theirs, _interrupts_blocked():
            self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        if imports is not None:
            self.send(Import(imports))

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: Any) -> bool:
        """Send the task or a request; False if the process has ended: `results` then raises why."""
        try:
            shared.send(self._connection, message)
        except ConnectionError:
            return False
        return True

    def results(self) -> Iterator[Any]:
        """Yield results until the task is done. Raises the task's error, or `WorkerError` if the process died."""
        while True:
            try:
                result = shared.receive(self._connection)
            except (EOFError, OSError) as error:
                raise self._reason(error) from error
            if isinstance(result, Done):
                if result.error is not None:
                    raise result.error
                return
            yield result
            # Free it before waiting for the next one.
            del result

    def kill(self) -> None:
        """Kill the process; `results` ends on whatever thread it runs."""
        self._process.kill()

    def end(self) -> None:
        """Kill the process if it still runs, wait for it and close the socket."""
        self._process.kill()
        self._process.wait()
        self._connection.close()

    def _reason(self, error: EOFError | OSError) -> Exception:
        """Return how the process died; if it did not, the error itself. The socket closes just before that."""
        try:
            status = self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            return error
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        why = ", as the system does when memory runs out" if status == -signal.SIGKILL else ""
        return WorkerError(
            f"{self._kind} process {self.pid} was terminated {how}{why}; what is finished is kept: "
            f"run the same command again, {_ADVICE[self._kind]} if this comes back"
        )


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a socket with a small buffer."""
    ends = socket.socketpair()
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
    return ends


def block_interrupts() -> None:
    """Block Ctrl-C on this thread, so that the main thread wakes up and takes it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block Ctrl-C on this thread; a process started meanwhile never sees one, from its first instruction."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve(descriptor: int, parent: int, kind: str) -> None:
    """Run a task: the main function of a worker process. descriptor: of the socket; parent: the parent's id."""
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    with Connection(descriptor) as connection, contextlib.suppress(ConnectionError):
        shared.send(connection, Done(_run_task(connection, kind)))
    # Without waiting for threads of the task: its error has been sent.
    os._exit(0)


def _run_task(connection: Connection, kind: str) -> Exception | None:
    """Receive the task and run it; return its error."""
    try:
        task = shared.receive(connection)
        if isinstance(task, Import):
            importlib.import_module(task.module)
            task = shared.receive(connection)
        task(_requests(connection), lambda result: shared.send(connection, result))
    except Exception as error:  # noqa: BLE001 - raised again in the parent
        return _portable(error, kind)
    return None


def _requests(connection: Connection) -> Iterator[Any]:
    while True:
        try:
            request = shared.receive(connection)
        except (EOFError, ConnectionError):
            # The parent is gone; threads of the task may be busy.
            os._exit(1)
        if isinstance(request, End):
            return
        yield request
        # Free it before waiting for the next one.
        del request


def _portable(error: Exception, kind: str) -> Exception:
    """Add where the error was raised; replace an error that cannot be pickled by one with its text."""
    note = f"In a {kind} process:\n" + "".join(traceback.format_exception(error))
    error.add_note(note)
    try:
        if type(ForkingPickler.loads(ForkingPickler.dumps(error))) is type(error):
            return error
        reason = "it changes when it is pickled"
    except Exception as caught:  # noqa: BLE001 - pickling runs the error's own code
        reason = f"{type(caught).__name__}: {caught}"
    replacement = WorkerError(f"a {kind} process failed: {type(error).__name__}: {error}")
    replacement.add_note(f"{note}(cannot be pickled: {reason})")
    return replacement


def _follow(parent: int) -> None:
    """End this process when its parent has ended, whatever it is doing."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
