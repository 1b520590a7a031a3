"""Fills network batches with the faces of many chunks, and hands each chunk on when all its faces are annotated."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ls3dw.annotator import Annotations, Annotator, FaceBatch, concatenate, take
from ls3dw.prepare import Chunk, PreparedFace
from ls3dw.write import AnnotatedChunk


@dataclass
class _Waiting:
    chunk: Chunk
    parts: list[Annotations] = field(default_factory=list)
    annotated: int = 0

    @property
    def left(self) -> int:
        return len(self.chunk.faces) - self.annotated


class Batcher:
    """Feeds an annotator.

    mix: whether a batch may hold faces of several chunks. It keeps a GPU full; without it a batch depends on its chunk
    alone, so that a CPU's last bits never depend on timing. guided: guide the 3D network by the source's points.
    """

    def __init__(self, annotator: Annotator, *, guided: bool, mix: bool) -> None:
        self._annotator = annotator
        self._guided = guided
        self._mix = mix
        self._waiting: deque[_Waiting] = deque()

    def add(self, chunk: Chunk) -> Iterator[AnnotatedChunk]:
        """Take a chunk; yield those that are complete now."""
        self._waiting.append(_Waiting(chunk))
        while sum(entry.left for entry in self._waiting) >= self._annotator.batch:
            yield from self._pass()
        if not self._mix:
            yield from self.finish()

    def finish(self) -> Iterator[AnnotatedChunk]:
        """Annotate what is left, in a smaller batch."""
        while self._waiting:
            yield from self._pass()

    def _pass(self) -> Iterator[AnnotatedChunk]:
        faces: list[PreparedFace] = []
        shares: list[tuple[_Waiting, int]] = []
        for entry in self._waiting:
            share = min(entry.left, self._annotator.batch - len(faces))
            faces += entry.chunk.faces[entry.annotated : entry.annotated + share]
            shares.append((entry, share))
        if faces:
            self._share(self._annotator.annotate_windows(self._as_batch(faces)), shares)
        while self._waiting and self._waiting[0].left == 0:
            done = self._waiting.popleft()
            yield AnnotatedChunk(done.chunk, concatenate(done.parts) if done.parts else None)

    def _as_batch(self, faces: list[PreparedFace]) -> FaceBatch:
        guidance = np.stack([face.annotation for face in faces]) if self._guided else None
        boxes = np.stack([face.box for face in faces]).astype(np.float64)
        return FaceBatch([face.window for face in faces], boxes, guidance)

    @staticmethod
    def _share(annotations: Annotations, shares: list[tuple[_Waiting, int]]) -> None:
        start = 0
        for entry, share in shares:
            if share:
                entry.parts.append(take(annotations, start, start + share))
                entry.annotated += share
            start += share
