"""How long something takes, from repeated runs: on the host by its clock, on a GPU by events."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch

LEAST_RUNS = 2
MOST_RUNS = 1000

IN_FLIGHT = 64
"""Runs that are launched before a GPU is waited for."""

Work = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Runs of the same work. seconds: of each run; items: faces or frames that a run deals with."""

    seconds: tuple[float, ...]
    items: int

    def __post_init__(self) -> None:
        if not self.seconds or min(self.seconds) <= 0 or self.items < 1:
            raise ValueError(f"{len(self.seconds)} runs of {self.items} items; expected some, each longer than nothing")

    @property
    def each(self) -> float:
        """Seconds an item in the median run."""
        return statistics.median(self.seconds) / self.items

    @property
    def best(self) -> float:
        """Seconds an item in the shortest run: the least that other work on the machine has added to."""
        return min(self.seconds) / self.items

    @property
    def rate(self) -> float:
        """Items a second in the median run."""
        return 1 / self.each


class Clock(Protocol):
    """Something that times work which deals with `items` at a time, for about `budget` seconds."""

    def measure(self, work: Work, items: int, budget: float) -> Timing: ...


def repeat(run: Callable[[], float], budget: float) -> tuple[float, ...]:
    """Call what returns its own seconds until they add up to the budget, and at least `LEAST_RUNS` times."""
    seconds: list[float] = []
    while _too_few(seconds, budget):
        seconds.append(run())
    return tuple(seconds)


def _too_few(seconds: Sequence[float], budget: float) -> bool:
    return len(seconds) < LEAST_RUNS or (sum(seconds) < budget and len(seconds) < MOST_RUNS)


class HostClock:
    """Times what the host does and waits for. settle: waits for the device, so that work it was given counts too."""

    def __init__(self, settle: Work) -> None:
        self._settle = settle

    def measure(self, work: Work, items: int, budget: float) -> Timing:
        self._run(work)  # the first run loads, allocates and chooses
        return Timing(repeat(lambda: self._run(work), budget), items)

    def _run(self, work: Work) -> float:
        start = time.perf_counter()
        work()
        self._settle()
        return time.perf_counter() - start


class DeviceClock:
    """Times what a GPU does, from the end of one run to the end of the next, launched ahead of it.

    So the time of launching counts only where the GPU has to wait for it, as in a build.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def measure(self, work: Work, items: int, budget: float) -> Timing:
        work()
        torch.cuda.synchronize(self._device)
        seconds: list[float] = []
        while _too_few(seconds, budget):
            # A few runs say how many more fit in the budget.
            left = (budget - sum(seconds)) * len(seconds) / sum(seconds) if seconds else LEAST_RUNS
            seconds += self._runs(work, min(IN_FLIGHT, max(LEAST_RUNS, round(left))))
        return Timing(tuple(seconds), items)

    def _runs(self, work: Work, count: int) -> list[float]:
        marks = [self._mark()]
        for _ in range(count):
            work()
            marks.append(self._mark())
        marks[-1].synchronize()
        return [begun.elapsed_time(ended) / 1000 for begun, ended in pairwise(marks)]

    def _mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event


@dataclass(frozen=True)
class Clocks:
    """host: for what the host does, and what it gives the device to do; device: for what only the networks' device
    does; steady: for work that waits by itself, and should not have to wait for more."""

    host: Clock
    device: Clock
    steady: Clock

    @classmethod
    def of(cls, device: torch.device) -> Clocks:
        steady = HostClock(lambda: None)
        if device.type == "cpu":
            return cls(steady, steady, steady)
        return cls(HostClock(lambda: torch.cuda.synchronize(device)), DeviceClock(device), steady)
