"""Fills network batches with the faces of many chunks, and returns the outputs chunk by chunk."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from ls3dw.core.annotations import Annotations
from ls3dw.core.crops import Windows
from ls3dw.core.parallel.stage_timer import StageTimer
from ls3dw.core.sample import Floats
from ls3dw.models.face_batch import FaceBatch, join
from ls3dw.models.inference.staging import StagedWindows

Begun = TypeVar("Begun")

QUEUED = 2
"""Batches queued on a GPU: while it works on one, the next is ready."""


class Annotates(Protocol[Begun]):
    """Turns faces into annotations in steps: stage, begin, wait for the result, finish."""

    @property
    def batch(self) -> int:
        """Faces a pass."""
        ...

    def stage(self, windows: Windows) -> Windows | StagedWindows: ...

    def begin(self, faces: FaceBatch) -> Begun: ...

    def result(self, begun: Begun) -> Floats: ...

    def finish(self, faces: FaceBatch, outputs: Floats) -> Annotations: ...


@dataclass
class _Waiting:
    """Faces of one `add`. left: how many are in no batch yet; missing: how many have no outputs yet."""

    key: Any
    faces: FaceBatch
    parts: list[Floats] = field(default_factory=list)
    left: int = field(init=False)
    missing: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.missing = len(self.faces)


class Batcher(Generic[Begun]):
    """Runs an annotator on full batches; yields the key of an `add`, its faces and their outputs, in order.

    mix: fill batches with faces of several `add`s, which keeps a GPU full. Without it a batch depends on its chunk
    alone, so that a CPU's last bits never depend on timing.
    """

    def __init__(self, annotator: Annotates[Begun], timer: StageTimer, *, mix: bool) -> None:
        self._annotator = annotator
        self._timer = timer
        self._mix = mix
        self._waiting: deque[_Waiting] = deque()
        self._begun: deque[tuple[Begun, list[tuple[_Waiting, int]]]] = deque()

    def add(self, key: Any, faces: FaceBatch) -> Iterator[tuple[Any, FaceBatch, Floats]]:
        """Add at least one face; yield what is complete."""
        self._waiting.append(_Waiting(key, faces))
        while sum(entry.left for entry in self._waiting) >= self._annotator.batch:
            self._begin()
            if len(self._begun) > QUEUED:
                self._collect()
        if not self._mix:
            yield from self.finish()
        yield from self._complete()

    def finish(self) -> Iterator[tuple[Any, FaceBatch, Floats]]:
        """Run what is left in a smaller batch; yield the rest."""
        while any(entry.left for entry in self._waiting):
            self._begin()
        while self._begun:
            self._collect()
        yield from self._complete()

    def _begin(self) -> None:
        parts: list[FaceBatch] = []
        shares: list[tuple[_Waiting, int]] = []
        free = self._annotator.batch
        for entry in self._waiting:
            share = min(entry.left, free)
            if share:
                start = len(entry.faces) - entry.left
                parts.append(entry.faces.rows(start, start + share))
                shares.append((entry, share))
                entry.left -= share
                free -= share
        with self._timer("networks"):
            self._begun.append((self._annotator.begin(join(parts)), shares))

    def _collect(self) -> None:
        begun, shares = self._begun.popleft()
        with self._timer("wait: networks run"):
            outputs = self._annotator.result(begun)
        start = 0
        for entry, share in shares:
            entry.parts.append(outputs[start : start + share])
            entry.missing -= share
            start += share

    def _complete(self) -> Iterator[tuple[Any, FaceBatch, Floats]]:
        while self._waiting and self._waiting[0].missing == 0:
            done = self._waiting.popleft()
            yield done.key, done.faces, np.concatenate(done.parts)
