"""Starts the processes of GPUs before their networks are known, so that they and the parent import torch (seconds) at
the same time."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from ls3dw.core.parallel.processes import Process

DEVICES = Path("/dev")

_IMPORTED = "ls3dw.models.annotator"


class Prestart:
    """Started processes for the networks of a build; a context manager that ends those that were not taken.

    gpu: as in `ls3dw build --gpu`. Starts none where there seems to be no GPU.
    """

    def __init__(self, gpu: str) -> None:
        count = len(gpu.split(",")) if gpu != "none" and seems_to_have_gpu() else 0
        self._processes = [Process("network", _IMPORTED) for _ in range(count)]

    def take(self) -> Process | None:
        """Return a process that was not taken yet, if any."""
        return self._processes.pop() if self._processes else None

    def end(self) -> None:
        """End the processes that were not taken."""
        while process := self.take():
            process.end()

    def __enter__(self) -> Prestart:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()


def seems_to_have_gpu() -> bool:
    """Whether the system lists a GPU; needs no torch."""
    return any(any(DEVICES.glob(pattern)) for pattern in ("nvidia[0-9]*", "kfd", "dxg"))
