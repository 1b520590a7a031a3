"""A process that answers: its answers, its errors and its end come through, and nothing is left running."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from test_pool import gone

from ls3dw.core.parallel.processes import Process
from ls3dw.core.parallel.worker import Worker
from ls3dw.errors import DeviceError, WorkerError

Answer = Callable[[Any], None]


def double(asked: Iterator[int], answer: Answer) -> None:
    """Answer after the next was asked, and at the end the rest: answers need not come at once."""
    answer(("process", os.getpid()))
    late = 0
    for number in asked:
        answer(("double", 2 * late))
        late = number
    answer(("double", 2 * late))


def hesitate(asked: Iterator[bytes], answer: Answer) -> None:
    answer(os.getpid())
    next(asked)
    time.sleep(1000)


@dataclass(frozen=True)
class End:
    """Ends at the third item: by an error, by a signal, or too early. asked: whether the rest is still taken."""

    how: str

    def __call__(self, asked: Iterator[int], answer: Answer) -> None:
        answer(os.getpid())
        for number in asked:
            if number == 2:
                if self.how == "error":
                    raise DeviceError("the device is on fire; take another")
                os.kill(os.getpid(), signal.SIGKILL)


def tell_imported(asked: Iterator[str], answer: Answer) -> None:
    answer(os.getpid())
    for module in asked:
        answer(module in sys.modules)


@pytest.mark.parametrize("ahead", [True, False])
def test_a_process_imports_ahead(ahead: bool) -> None:
    answers: list[int] = []
    with Worker(tell_imported, answers.append, Process("network", "colorsys") if ahead else None) as server:
        server.put("colorsys")
    assert answers[1:] == [ahead]
    assert gone(answers[0])


def test_what_cannot_be_imported_ahead_is_raised() -> None:
    with (
        pytest.raises(ModuleNotFoundError, match="no_such_module"),
        Worker(tell_imported, print, Process("network", "no_such_module")),
    ):
        pass


def test_a_process_that_ended_before_its_task_is_said_to_have() -> None:
    process = Process("network", "colorsys")
    process.kill()
    while not gone(process.pid):
        time.sleep(0.01)
    with pytest.raises(WorkerError, match="terminated by SIGKILL"), Worker(tell_imported, print, process):
        pass


def test_a_process_that_nobody_uses_is_ended() -> None:
    process = Process("network", "colorsys")
    process.end()
    assert gone(process.pid)


def test_answers_come_in_order() -> None:
    answers: list[tuple[str, int]] = []
    with Worker(double, answers.append) as server:
        for number in range(1, 200):
            server.put(number)
    assert [value for name, value in answers if name == "double"] == [2 * number for number in range(200)]
    assert gone(dict(answers)["process"])


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("error", DeviceError, "^the device is on fire; take another"),
        ("kill", WorkerError, "network process .* terminated by SIGKILL, as the system does when memory runs out"),
    ],
)
@pytest.mark.parametrize("count", [3, 10_000])
def test_what_ends_it_is_raised(how: str, kind: type[Exception], message: str, count: int) -> None:
    answers: list[int] = []
    numbers = iter(range(count))

    def fill() -> None:
        with Worker(End(how), answers.append) as server:
            for number in numbers:
                server.put(number)

    with pytest.raises(kind, match=message):
        fill()
    assert all(map(gone, answers))
    assert count == 3 or next(numbers, None) is not None, "it went on for long"


def test_what_takes_the_answers_may_fail() -> None:
    def refuse(answer: object) -> None:
        raise OSError("disk full")

    def fill() -> None:
        with Worker(double, refuse) as server:
            for number in range(10_000):
                server.put(number)

    with pytest.raises(OSError, match="disk full"):
        fill()


def test_a_block_that_fails_ends_the_process() -> None:
    answers: list[int] = []

    def fill() -> None:
        with Worker(hesitate, answers.append) as server:
            server.put(b"")
            while not answers:
                time.sleep(0.01)
            raise KeyError("the block's own error")

    start = time.monotonic()
    with pytest.raises(KeyError, match="own error"):
        fill()
    assert time.monotonic() - start < 30
    assert gone(answers[0])


def test_items_wait_until_they_are_taken() -> None:
    put: list[int] = []
    answers: list[int] = []
    server = Worker(hesitate, answers.append)

    def fill() -> None:
        with contextlib.suppress(WorkerError):
            for number in range(100):
                server.put(bytes(5000))
                put.append(number)

    filling = threading.Thread(target=fill, daemon=True)
    filling.start()
    end = time.monotonic() + 60
    while not answers and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.5)
    assert 0 < len(put) < 50, "items pile up in front of a process that is busy"
    server.__exit__(KeyError, KeyError(), None)
    assert gone(answers[0])


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    script = """
import sys, time
from ls3dw.core.parallel.worker import Worker
from test_worker import hesitate
Worker(hesitate, lambda answer: print(answer, flush=True)).put(b"")
time.sleep(1000)
"""
    places = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": places}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        process = int(parent.stdout.readline())
        parent.kill()
    end = time.monotonic() + 5
    while not gone(process) and time.monotonic() < end:
        time.sleep(0.05)
    assert gone(process)
