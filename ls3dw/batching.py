"""Fills network batches with the faces of many chunks, and hands each chunk on when all its faces are annotated."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np

from ls3dw.annotator import Annotations, FaceBatch, concatenate, take
from ls3dw.pictures import Window
from ls3dw.prepare import Chunk, PreparedFace
from ls3dw.write import AnnotatedChunk

Begun = TypeVar("Begun")

AHEAD = 1
"""Batches that the GPU may be behind: while it works on one, the next is put together."""


class Annotates(Protocol[Begun]):
    """What turns batches of faces into annotations, begun first and collected later."""

    @property
    def batch(self) -> int:
        """Faces that it takes at a time."""
        ...

    def begin(self, faces: FaceBatch) -> Begun: ...

    def collect(self, begun: Begun) -> Annotations: ...


@dataclass
class _Waiting:
    """A chunk. left: faces that no batch has yet; missing: faces without annotations yet."""

    chunk: Chunk
    left: int
    parts: list[Annotations] = field(default_factory=list)
    missing: int = field(init=False)

    def __post_init__(self) -> None:
        self.missing = self.left


class Batcher(Generic[Begun]):
    """Feeds an annotator.

    mix: whether a batch may hold faces of several chunks. It keeps a GPU full; without it a batch depends on its chunk
    alone, so that a CPU's last bits never depend on timing. guided: give it the sources' own points too.
    """

    def __init__(self, annotator: Annotates[Begun], *, guided: bool, mix: bool) -> None:
        self._annotator = annotator
        self._guided = guided
        self._mix = mix
        self._waiting: deque[_Waiting] = deque()
        self._begun: deque[tuple[Begun, list[tuple[_Waiting, int]]]] = deque()

    def add(self, chunk: Chunk) -> Iterator[AnnotatedChunk]:
        """Take a chunk; yield those that are complete now."""
        self._waiting.append(_Waiting(chunk, left=len(chunk.faces)))
        while sum(entry.left for entry in self._waiting) >= self._annotator.batch:
            self._begin()
            if len(self._begun) > AHEAD:
                self._collect()
        if not self._mix:
            yield from self.finish()
        yield from self._complete()

    def finish(self) -> Iterator[AnnotatedChunk]:
        """Annotate what is left, in a smaller batch."""
        while any(entry.left for entry in self._waiting):
            self._begin()
        while self._begun:
            self._collect()
        yield from self._complete()

    def _begin(self) -> None:
        faces: list[PreparedFace] = []
        windows: list[Window] = []
        shares: list[tuple[_Waiting, int]] = []
        for entry in self._waiting:
            share = min(entry.left, self._annotator.batch - len(faces))
            if share:
                start = len(entry.chunk.faces) - entry.left
                faces += entry.chunk.faces[start : start + share]
                windows += entry.chunk.windows[start : start + share]
                entry.left -= share
                shares.append((entry, share))
        self._begun.append((self._annotator.begin(self._as_batch(faces, windows)), shares))

    def _collect(self) -> None:
        begun, shares = self._begun.popleft()
        annotations = self._annotator.collect(begun)
        start = 0
        for entry, share in shares:
            entry.parts.append(take(annotations, start, start + share))
            entry.missing -= share
            start += share

    def _complete(self) -> Iterator[AnnotatedChunk]:
        while self._waiting and self._waiting[0].missing == 0:
            done = self._waiting.popleft()
            yield AnnotatedChunk(done.chunk.without_windows(), concatenate(done.parts) if done.parts else None)

    def _as_batch(self, faces: list[PreparedFace], windows: list[Window]) -> FaceBatch:
        guidance = np.stack([face.annotation for face in faces]) if self._guided else None
        boxes = np.stack([face.box for face in faces]).astype(np.float64)
        return FaceBatch(windows, boxes, guidance)
