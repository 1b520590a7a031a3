"""How long each stage of a build was at work, and so what the build waits for."""

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
    "copy to the device": ("networks", False),
    "launch networks": ("networks", True),
    "wait: networks run": ("networks", True),
    "wait: no faces": ("networks", False),
    "points to pictures": ("networks", False),
    "write shards": ("writing", True),
}
"""Where each stage happens, and whether it keeps busy what all others of that place wait for: beside the networks'
own thread others copy and finish."""

T = TypeVar("T")


class Times:
    """Adds up the seconds of stages, on any threads."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._changing = threading.Lock()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Count the time that the block takes."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add({stage: time.perf_counter() - start})

    def waiting(self, stage: str, items: Iterator[T]) -> Iterator[T]:
        """Yield the items, none of which is None, and count the time that each takes to come."""
        while True:
            with self(stage):
                item = next(items, None)
            if item is None:
                return
            yield item
            # Not to be held while the next one is awaited.
            del item

    def add(self, seconds: Mapping[str, float]) -> None:
        with self._changing:
            for stage, value in seconds.items():
                self.seconds[stage] = self.seconds.get(stage, 0.0) + value

    def take(self) -> dict[str, float]:
        """Return what was counted and begin anew."""
        with self._changing:
            taken, self.seconds = self.seconds, {}
        return taken
