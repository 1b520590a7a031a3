"""A process of its own that answers what it is sent, as much of it at once as it likes. Knows nothing of faces."""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Generic, TypeVar

from ls3dw.core.parallel import shared
from ls3dw.core.parallel.processes import Done, block_interrupts, lost, pair, portable, start

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

Task = Callable[[Iterator[Asked], Callable[[Answer], None]], None]
"""What the process does, picklable: takes what was asked from an iterator, and sends answers by a function."""

_KIND = "network"


class _End:
    """The last that a process is asked."""


@dataclass(frozen=True)
class _Ahead:
    """What a process may import while its task is still to come."""

    module: str


class Process:
    """A process that waits for a task. ahead: a module that it imports meanwhile."""

    def __init__(self, ahead: str | None = None) -> None:
        ours, theirs = pair()
        self.connection = Connection(ours.detach())
        self.process = start("ls3dw.core.parallel.worker:serve", theirs)
        if ahead is not None:
            # A process that has ended already is met again by who sends it a task.
            with contextlib.suppress(ConnectionError):
                shared.send(self.connection, _Ahead(ahead))

    def end(self) -> None:
        """Kill it, if it still runs."""
        self.process.kill()
        self.process.wait()
        self.connection.close()


class Worker(Generic[Asked, Answer]):
    """Runs a task in a process; a context manager that waits for its answers and raises what it raised.

    answered: told each answer, on a thread of this object's own. The process takes what is put as it has room for it,
    and `put` waits until then: memory stays flat. When the `with` block fails, the process is killed. process: the one
    to use, which is this object's from now on; None: a new one.
    """

    def __init__(
        self, task: Task[Asked, Answer], answered: Callable[[Answer], None], process: Process | None = None
    ) -> None:
        self._task = task
        self._answered = answered
        self._error: BaseException | None = None
        self._started = threading.Event()
        self._ended = threading.Event()
        self._process = process or Process()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, item: Asked) -> None:
        """Send an item; raises the task's error once it has failed."""
        self._send(item)
        if self._ended.is_set():
            self._raise()

    def __enter__(self) -> Worker[Asked, Answer]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._started.wait()
        if error is None:
            self._send(_End())
        else:
            self._process.process.kill()
        self._thread.join()
        self._process.end()
        if error is None:
            self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _send(self, item: Asked | _End) -> None:
        """Send, unless the process has ended: why it did is known when its thread has ended."""
        self._started.wait()
        if self._ended.is_set():
            return
        try:
            shared.send(self._process.connection, item)
        except ConnectionError:
            self._ended.wait()

    def _run(self) -> None:
        block_interrupts()
        try:
            self._take_answers(self._process)
        except BaseException as caught:  # noqa: BLE001 - raised again in the thread that puts
            self._error = caught
        finally:
            self._process.process.kill()
            self._ended.set()
            self._started.set()

    def _take_answers(self, process: Process) -> None:
        try:
            shared.send(process.connection, self._task)
            self._started.set()
            while not isinstance(answer := shared.receive(process.connection), Done):
                self._answered(answer)
        except (EOFError, ConnectionError) as error:
            raise lost(process.process, _KIND, "with a smaller --batch", error) from error
        if answer.error is not None:
            raise answer.error


def serve(descriptor: int) -> None:
    """Run a task in a process of its own: this is its main function. descriptor: of the socket to the parent."""
    with Connection(descriptor) as connection, contextlib.suppress(ConnectionError):
        shared.send(connection, Done(_run_task(connection)))
    # The error has been sent: what threads of the task are still busy with does not matter any more.
    os._exit(0)


def _run_task(connection: Connection) -> Exception | None:
    try:
        task = shared.receive(connection)
        if isinstance(task, _Ahead):
            importlib.import_module(task.module)
            task = shared.receive(connection)
        task(_asked(connection), lambda answer: shared.send(connection, answer))
    except Exception as error:  # noqa: BLE001 - raised again in the parent
        return portable(error, _KIND)
    return None


def _asked(connection: Connection) -> Iterator[Any]:
    """Yield what is asked; when the parent is gone, this process ends, whatever its threads are doing."""
    while True:
        try:
            item = shared.receive(connection)
        except (EOFError, ConnectionError):
            os._exit(1)
        if isinstance(item, _End):
            return
        yield item
        # Not to be held while the next one is awaited.
        del item
