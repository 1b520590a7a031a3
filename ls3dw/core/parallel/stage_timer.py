"""Measures how long each stage of a build works, and so what limits it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Literal, TypeVar

Place = Literal["decoding", "networks", "writing"]

STAGES: Final[dict[str, tuple[Place, bool]]] = {
    "decode": ("decoding", True),
    "cut and hash": ("decoding", True),
    "encode pictures": ("decoding", True),
    "wait: others are behind": ("decoding", False),
    "load networks": ("networks", False),
    "copy to the device": ("networks", False),
    "wait: no faces": ("networks", False),
    "networks": ("networks", True),
    "wait: networks run": ("networks", True),
    "points to pictures": ("networks", False),
    "write shards": ("writing", True),
}
"""Where each stage runs, and whether it counts as busy. On a GPU "networks" is the launching of kernels; copies and
"points to pictures" run on other threads."""

T = TypeVar("T")


class StageTimer:
    """Adds up the seconds of stages; any thread may use it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._changing = threading.Lock()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time a `with` block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add({stage: time.perf_counter() - start})

    def waiting(self, stage: str, items: Iterator[T]) -> Iterator[T]:
        """Yield items (never None) and time the wait for each."""
        while True:
            with self(stage):
                item = next(items, None)
            if item is None:
                return
            yield item
            # Free it before waiting for the next one.
            del item

    def add(self, seconds: Mapping[str, float]) -> None:
        with self._changing:
            for stage, value in seconds.items():
                self.seconds[stage] = self.seconds.get(stage, 0.0) + value

    def take(self) -> dict[str, float]:
        """Return the seconds so far and start again at zero."""
        with self._changing:
            taken, self.seconds = self.seconds, {}
        return taken


def busy(seconds: Mapping[str, float], wall: float, processes: Mapping[Place, int]) -> dict[Place, float]:
    """Return the share of time that each place was busy, the busiest first. processes: number at each place."""
    shares = {
        place: sum(seconds.get(stage, 0.0) for stage, (at, full) in STAGES.items() if at == place and full)
        / (wall * number)
        for place, number in processes.items()
    }
    return dict(sorted(shares.items(), key=lambda entry: -entry[1]))


def render(seconds: Mapping[str, float], wall: float, processes: Mapping[Place, int]) -> str:
    """Return a table of the stages, and what the build waited for, as text."""
    lines = [f"{'stage':<24} {'where':<9} {'processes':>9} {'seconds':>9} {'share':>6}"]
    for stage, (place, _) in STAGES.items():
        spent = seconds.get(stage, 0.0)
        share = spent / (wall * processes[place])
        lines.append(f"{stage:<24} {place:<9} {processes[place]:>9} {spent:>9.1f} {share:>6.0%}")
    places = ", ".join(f"{place} {share:.0%}" for place, share in busy(seconds, wall, processes).items())
    return "\n".join([*lines, f"busy in {wall:.1f} s: {places}; the first is what the build waits for"])
