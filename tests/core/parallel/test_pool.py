"""Units here and in processes give the same; errors come through; nothing is left running."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ls3dw.core.parallel.memory import prefetch_budget
from ls3dw.core.parallel.pool import default_workers, stream
from ls3dw.core.parallel.shared import SharedArray
from ls3dw.errors import WorkerError

WORKERS = (0, 1, 2)


@dataclass(frozen=True)
class Count:
    """Yields its name with the numbers from 0 and the process's id; with end None it never stops."""

    name: str
    end: int | None
    bulk: int = 0

    def __call__(self) -> Iterator[tuple[str, int, int, bytes]]:
        numbers = itertools.count() if self.end is None else range(self.end)
        for number in numbers:
            yield self.name, number, os.getpid(), bytes(self.bulk)


@dataclass(frozen=True)
class Fail:
    """Calls something that fails after some items."""

    after: int
    fail: Callable[[], object]

    def __call__(self) -> Iterator[tuple[str, int, int, bytes]]:
        yield from Count("fail", self.after)()
        self.fail()


class PairError(Exception):
    """Can be pickled, but not be loaded again: it needs two values and keeps one."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{what} in {where}")


class LocalError(Exception):
    """Cannot be pickled: it holds a thread's lock."""

    def __init__(self) -> None:
        super().__init__("locked in here")
        self.lock = threading.Lock()


def break_unit() -> None:
    raise LookupError("unit 7 is broken")


def raise_pair() -> None:
    raise PairError("a hole", "unit 8")


def raise_local() -> None:
    raise LocalError


def break_pipe() -> None:
    raise BrokenPipeError("the unit's own pipe")


def leave() -> None:
    os._exit(3)


def signal_self(number: int) -> None:
    os.kill(os.getpid(), number)


@dataclass(frozen=True)
class Touch:
    """Yields large items and leaves a file for each."""

    folder: str

    def __call__(self) -> Iterator[bytes]:
        for number in range(2000):
            Path(self.folder, str(number)).touch()
            yield bytes(100_000)


def gone(process: int) -> bool:
    """Say whether a process has ended (as a zombie, too)."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("workers", WORKERS)
def test_every_unit_yields_its_items_in_order(workers: int) -> None:
    units = [Count("a", 40, bulk=5000), Count("b", 0), Count("c", 25), Count("d", 3)]
    items = list(stream(units, workers, limit=4))
    for unit in units:
        assert [number for name, number, *_ in items if name == unit.name] == list(range(unit.end or 0))
    assert len(items) == 68
    processes = {process for *_, process, _ in items}
    assert len(processes) <= max(1, workers)
    assert (os.getpid() in processes) == (workers == 0)
    assert workers == 0 or all(map(gone, processes))


@pytest.mark.parametrize("workers", WORKERS)
def test_no_units_no_items(workers: int) -> None:
    assert list(stream([], workers, limit=1)) == []


@pytest.mark.parametrize("workers", WORKERS)
def test_an_error_in_a_unit_comes_through(workers: int) -> None:
    taken = []
    with pytest.raises(LookupError, match="unit 7 is broken"):
        taken.extend(stream([Fail(2, break_unit), Count("endless", None)], workers, limit=2))
    assert all(gone(process) for *_, process, _ in taken if workers)


@pytest.mark.parametrize(
    ("fail", "message"),
    [
        (leave, "terminated with status 3"),
        (partial(signal_self, signal.SIGKILL), "terminated by SIGKILL, as the system does when memory runs out"),
    ],
)
def test_a_process_that_dies_ends_the_stream(fail: Callable[[], object], message: str) -> None:
    taken = []
    with pytest.raises(WorkerError, match=message):
        taken.extend(stream([Fail(1, fail), Count("endless", None)], 2, limit=2))
    assert all(gone(process) for *_, process, _ in taken)


@pytest.mark.parametrize(
    ("fail", "kind", "message"),
    [
        (break_unit, LookupError, "unit 7 is broken"),
        (break_pipe, BrokenPipeError, "the unit's own pipe"),
        (raise_pair, WorkerError, "a decoding process failed: PairError: a hole in unit 8"),
        (raise_local, WorkerError, "a decoding process failed: LocalError: locked in here"),
    ],
)
def test_an_error_keeps_its_kind_or_its_text_and_its_place(
    fail: Callable[[], object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as caught:
        list(stream([Fail(1, fail)], 1, limit=2))
    assert str(caught.value) == message
    assert f"in {getattr(fail, '__name__', '')}" in "".join(caught.value.__notes__), "where in the unit it was raised"


def test_a_unit_or_an_item_that_cannot_be_sent_ends_the_stream() -> None:
    with pytest.raises(AttributeError, match="<lambda>"):
        list(stream([lambda: iter([1])], 1, limit=2))
    with pytest.raises(TypeError, match="generator"):
        list(stream([partial(map, Count("a", 3).__class__, [Count("b", 3)()])], 1, limit=2))


def test_ctrl_c_is_the_parents_alone() -> None:
    assert len(list(stream([Fail(2, partial(signal_self, signal.SIGINT))], 1, limit=2))) == 2


@pytest.mark.parametrize("ending", ["", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_processes_of_a_plain_script_end_with_it(tmp_path: Path, ending: str) -> None:
    """The script has no guard for its main part, runs on any thread, and may be killed while its units are busy."""
    script = f"""
import os, signal, sys, time
from functools import partial
from ls3dw.core.parallel.pool import stream
from test_pool import Count, Fail
items = stream([Fail(1, partial(time.sleep, 1000)) for _ in range(2)], 2, limit=4)
print(*(next(items)[2] for _ in range(2)), flush=True)
{ending}
items.close()
assert len(list(stream([Count("a", 10), Count("b", 10)], 2, limit=4))) == 20
"""
    path = tmp_path / "script.py"
    path.write_text(script)
    places = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    words = [sys.executable, "-W", "error", "-X", "dev", str(path)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": places})
    assert (ended.returncode, ended.stderr) == (-signal.SIGKILL if ending else 0, "")
    processes = [int(word) for word in ended.stdout.split()]
    assert len(set(processes)) == 2
    end = time.monotonic() + 5
    while not all(map(gone, processes)) and time.monotonic() < end:
        time.sleep(0.05)
    assert all(map(gone, processes))


def test_closing_early_leaves_no_process() -> None:
    items = stream([Count("a", None, bulk=50_000), Count("b", None, bulk=50_000)], 2, limit=2)
    processes = {item[2] for item in itertools.islice(items, 20)}
    start = time.monotonic()
    items.close()
    assert time.monotonic() - start < 5
    assert processes
    assert all(map(gone, processes))


def test_items_wait_until_they_are_taken(tmp_path: Path) -> None:
    items = stream([Touch(str(tmp_path))], 1, limit=2)
    next(items)
    time.sleep(0.5)
    ahead = len(list(tmp_path.iterdir()))
    items.close()
    assert ahead < 40, "a process ran far ahead of the one that takes its items"


@dataclass(frozen=True)
class Niceness:
    """Yields how far its process steps back."""

    def __call__(self) -> Iterator[int]:
        yield os.nice(0)


def test_processes_step_back_for_others() -> None:
    assert list(stream([Niceness()], 1, limit=2)) == [min(19, os.nice(0) + 5)]
    assert list(stream([Niceness()], 0, limit=2)) == [os.nice(0)]


def test_items_may_lie_ready_by_their_size(tmp_path: Path) -> None:
    items = stream([Touch(str(tmp_path))], 1, limit=1_000_000, size=len)
    next(items)
    time.sleep(0.5)
    ahead = len(list(tmp_path.iterdir()))
    rest = sum(1 for _ in items)
    assert 10 <= ahead < 40, "there is room for ten of 100,000 bytes"
    assert rest == 1999


@dataclass(frozen=True)
class Arrays:
    """Yields shared arrays, each of which is an open file in the process that has it."""

    count: int

    def __call__(self) -> Iterator[SharedArray]:
        for _ in range(self.count):
            yield SharedArray.of(np.zeros(5000, dtype=np.uint8))


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_what_lies_ready_leaves_files_to_open() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        budget, before = prefetch_budget(), open_files()
        arrays = stream([Arrays(300)], 1, budget.nbytes, lambda array: budget.share(array.nbytes))
        next(arrays)
        time.sleep(0.5)
        ready = open_files() - before
        assert sum(array.array().size == 5000 for array in arrays) == 299
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert 90 < ready < 115


def test_an_item_without_a_size_comes_too() -> None:
    assert len(list(stream([Count("a", 5)], 1, limit=1, size=lambda item: 0))) == 5


def test_there_is_always_a_worker() -> None:
    assert default_workers(gpus=0) == 1
    assert 1 <= default_workers(gpus=2) <= default_workers(gpus=1) <= (os.cpu_count() or 1)
