"""Runs one task in a worker process: requests in, results out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar

from ls3dw.core.parallel.processes import End, Process, block_interrupts

Request = TypeVar("Request")
Result = TypeVar("Result")


class Worker(Generic[Request, Result]):
    """Runs a task in a worker process; a context manager that waits for all results and raises the task's error.

    task: picklable, called with an iterator of requests and a function that sends a result. on_result: called with each
    result, on a thread of this object. process: one that was started before; None: a new one. When the `with` block
    fails, the process is killed.
    """

    def __init__(
        self,
        task: Callable[[Iterator[Request], Callable[[Result], None]], None],
        on_result: Callable[[Result], None],
        process: Process | None = None,
    ) -> None:
        self._task = task
        self._on_result = on_result
        self._error: BaseException | None = None
        self._started = threading.Event()
        self._ended = threading.Event()
        self._process = process or Process("network")
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, request: Request) -> None:
        """Send a request; blocks until the process takes it. Raises the task's error if it failed."""
        self._send(request)
        if self._ended.is_set():
            self._raise()

    def __enter__(self) -> Worker[Request, Result]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._started.wait()
        if error is None:
            self._send(End())
        else:
            self._process.kill()
        self._thread.join()
        self._process.end()
        if error is None:
            self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _send(self, message: Any) -> None:
        self._started.wait()
        if not self._ended.is_set() and not self._process.send(message):
            # Its thread knows the reason when it has ended.
            self._ended.wait()

    def _run(self) -> None:
        block_interrupts()
        try:
            self._process.send(self._task)
            self._started.set()
            for result in self._process.results():
                self._on_result(result)
                # Free it before waiting for the next one.
                del result
        except BaseException as caught:  # noqa: BLE001 - raised again in the thread that puts
            self._error = caught
        finally:
            self._process.kill()
            self._ended.set()
            self._started.set()
