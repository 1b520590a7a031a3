"""How fast a run is, and what share of the time its steps wait for data."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import torch

from ls3dw.training.distributed import Group

T = TypeVar("T")


class Clock:
    """Measures between two `read`s. On a GPU by events: from the end of one step's work to the begin of the next one's,
    which is how long the GPU waited for data; on the CPU by how long the data took."""

    def __init__(self, group: Group) -> None:
        self.on_gpu = group.device.type == "cuda"
        self._waits: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._ended: torch.cuda.Event | None = None
        self._waited = 0.0
        self._steps = 0
        self._since = time.perf_counter()

    def fetch(self, get: Callable[[], T]) -> T:
        """Call what gives the next step's data, and on the CPU time it."""
        start = time.perf_counter()
        got = get()
        if not self.on_gpu:
            self._waited += time.perf_counter() - start
        return got

    def begin(self) -> None:
        """Note that the step's data is there."""
        if self.on_gpu and self._ended is not None:
            self._waits.append((self._ended, _event()))

    def end(self) -> None:
        """Note that the step's work has been queued."""
        self._steps += 1
        if self.on_gpu:
            self._ended = _event()

    def read(self, batch: int) -> dict[str, float]:
        """Return images/s and the share of the time spent waiting since the last call, and begin anew."""
        if self.on_gpu:
            torch.cuda.synchronize()
            self._waited = sum(ended.elapsed_time(begun) for ended, begun in self._waits) / 1000
        seconds = max(time.perf_counter() - self._since, 1e-9)
        figures = {"images_per_s": self._steps * batch / seconds, "wait": min(1.0, self._waited / seconds)}
        self.restart()
        return figures

    def restart(self) -> None:
        """Forget what was measured: validation and checkpoints are no training."""
        self._waits.clear()
        self._ended = None
        self._waited = 0.0
        self._steps = 0
        self._since = time.perf_counter()


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream())
    return event
