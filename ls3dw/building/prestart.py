"""Starts what networks on GPUs will run in before it is known what they are: there and here, torch takes seconds to
import, and so both do it at once."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from ls3dw.core.parallel.worker import Process

DEVICES = Path("/dev")

_IMPORTED = "ls3dw.models.annotator"


class Prestart:
    """Processes for the networks of a build to come; a context manager that ends those that are not taken.

    gpu: as in `ls3dw build --gpu`; nothing is started for none, nor where there seems to be no GPU.
    """

    def __init__(self, gpu: str) -> None:
        count = len(gpu.split(",")) if gpu != "none" and seems_to_have_gpu() else 0
        self._processes = [Process(_IMPORTED) for _ in range(count)]

    def take(self) -> Process | None:
        """Hand over one that nobody has, if there is one."""
        return self._processes.pop() if self._processes else None

    def end(self) -> None:
        """End those that nobody has."""
        while process := self.take():
            process.end()

    def __enter__(self) -> Prestart:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()


def seems_to_have_gpu() -> bool:
    """Say whether the system shows a GPU that torch may know, without asking torch."""
    return any(any(DEVICES.glob(pattern)) for pattern in ("nvidia[0-9]*", "kfd", "dxg"))
