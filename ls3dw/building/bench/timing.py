"""Times repeated runs of a stage."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import torch

LEAST_RUNS: Final = 2
MOST_RUNS: Final = 1000

QUEUED: Final = 16
"""Runs launched on a GPU before waiting for it, so that launching counts only where the GPU waits for it."""

Work = Callable[[], object]


@dataclass(frozen=True)
class Stage:
    """A piece of work on `items` faces (or frames, where it decodes).

    waits: "once" after each run for the device, "rarely" after `QUEUED` runs (work of the device alone), or "never"
    (work that waits itself). flop: operations a face of the networks in their published form, 0 if not counted; within:
    the work is part of another stage's.
    """

    name: str
    work: Work
    items: int
    waits: Literal["once", "rarely", "never"] = "once"
    flop: float = 0.0
    within: bool = False


@dataclass(frozen=True)
class Row:
    """A stage's figures. rate: faces a second; ms, best_ms: milliseconds a face in the median and the best run."""

    name: str
    rate: float
    ms: float
    best_ms: float
    runs: int
    flop: float = 0.0

    @classmethod
    def of(cls, name: str, seconds: list[float], items: int, flop: float = 0.0) -> Row:
        """Summarise the seconds of runs of `items` faces each."""
        if not seconds or min(seconds) <= 0 or items < 1:
            raise ValueError(f"{name}: {len(seconds)} runs of {items} items; expected some, each longer than nothing")
        median = statistics.median(seconds) / items
        return cls(name, 1 / median, 1e3 * median, 1e3 * min(seconds) / items, len(seconds), flop)

    def share(self, peak: float) -> float | None:
        """Return the share of a peak in FLOP/s that the best run reaches, None if operations are not counted."""
        return self.flop / (self.best_ms / 1e3) / peak if self.flop else None


@dataclass(frozen=True)
class Timer:
    """Times stages. seconds: for each, about; device: that of the networks."""

    device: torch.device
    seconds: float

    def time(self, stage: Stage) -> Row:
        """Run a stage again and again."""
        queued = QUEUED if stage.waits == "rarely" and self.device.type == "cuda" else 1
        self._run(stage, 1)  # the first run loads, allocates and chooses
        seconds = repeat(lambda: self._run(stage, queued) / queued, self.seconds / queued)
        return Row.of(stage.name, seconds, stage.items, stage.flop)

    def _run(self, stage: Stage, count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            stage.work()
        if stage.waits != "never" and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - start


def repeat(run: Callable[[], float], budget: float) -> list[float]:
    """Call what returns its own seconds until they add up to the budget, at least `LEAST_RUNS` times."""
    seconds: list[float] = []
    while len(seconds) < LEAST_RUNS or (sum(seconds) < budget and len(seconds) < MOST_RUNS):
        seconds.append(run())
    return seconds
