"""The networks' side of a build: takes chunks, and hands them on annotated. Here on a CPU, apart on GPUs.

Beside a GPU, whatever else runs Python in a process delays what launches the networks: so each has a process of its
own, and in it a thread that does nothing but launch them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np

from ls3dw.building.batching import Annotates, Batcher
from ls3dw.building.prepare import Chunk
from ls3dw.building.prestart import Prestart
from ls3dw.building.write import AnnotatedChunk
from ls3dw.core.annotations import Annotations
from ls3dw.core.crops import Windows
from ls3dw.core.parallel.processes import Process
from ls3dw.core.parallel.stage_timer import StageTimer
from ls3dw.core.parallel.threads import ThreadStage
from ls3dw.core.parallel.worker import Worker
from ls3dw.core.sample import Floats
from ls3dw.models.face_batch import FaceBatch
from ls3dw.models.inference.device import leave_cores

STAGED = 8
"""Chunks that may lie on a device before a batch takes them, and as many that wait to be sent back."""

Make: TypeAlias = Callable[[], Annotates[Any]]
Done: TypeAlias = Callable[[AnnotatedChunk], None]


@dataclass(frozen=True)
class Faces:
    """What the networks need of a chunk. boxes: (N, 4); guidance: the sources' own points (N, 68, 2), or None."""

    windows: Windows
    boxes: Floats
    guidance: Floats | None

    def on(self, annotator: Annotates[Any]) -> FaceBatch:
        """Bring the windows to the annotator's device."""
        return FaceBatch((annotator.stage(self.windows),), self.boxes, self.guidance)


def faces_of(chunk: Chunk, *, guided: bool) -> Faces:
    """Return the faces of a chunk that has some; guided: with the sources' own points."""
    assert chunk.windows is not None
    boxes = np.stack([face.box for face in chunk.faces])
    return Faces(chunk.windows, boxes, np.stack([face.annotation for face in chunk.faces]) if guided else None)


def annotate_in_thread(
    annotator: Annotates[Any], done: Done, times: StageTimer, *, guided: bool, waiting: int
) -> ThreadStage[Chunk]:
    """Annotate on a thread of this process, each chunk in batches of its own. waiting: chunks that may."""

    def annotate(chunks: Iterator[Chunk]) -> None:
        batcher = Batcher(annotator, times, mix=False)
        for chunk in times.waiting("wait: no faces", chunks):
            if not chunk.faces:
                done(AnnotatedChunk(chunk, None))
                continue
            for whole, faces, outputs in batcher.add(chunk, faces_of(chunk, guided=guided).on(annotator)):
                done(AnnotatedChunk(whole.without_windows(), annotator.finish(faces, outputs)))

    return ThreadStage(annotate, waiting, keep=False)


class GpuWorkers:
    """Annotates in processes, one for each of `makes`, in batches that mix chunks; a context manager as `ThreadStage`.

    makes: picklable; each gives its process an annotator. done: told each chunk, on threads of this object's own.
    ahead: processes that were started for this.
    """

    def __init__(
        self, makes: Sequence[Make], done: Done, times: StageTimer, *, guided: bool, ahead: Prestart | None = None
    ) -> None:
        self._guided = guided
        self._done = done
        self._stack = ExitStack()
        self._lanes = [
            self._stack.enter_context(_GpuWorker(make, done, times, ahead.take() if ahead else None)) for make in makes
        ]

    def put(self, chunk: Chunk) -> None:
        """Hand a chunk to the process that has the least to do; waits for room, and raises what a process raised."""
        if chunk.faces:
            min(self._lanes, key=lambda lane: lane.load).put(chunk, faces_of(chunk, guided=self._guided))
        else:
            self._done(AnnotatedChunk(chunk, None))

    def __enter__(self) -> GpuWorkers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, at)


class _GpuWorker:
    """One process, and the chunks whose faces it has."""

    def __init__(self, make: Make, done: Done, times: StageTimer, process: Process | None) -> None:
        self._done = done
        self._times = times
        self._chunks: dict[int, Chunk] = {}
        self._number = 0
        self._server = Worker(_Annotation(make), self._answered, process)

    @property
    def load(self) -> int:
        return len(self._chunks)

    def put(self, chunk: Chunk, faces: Faces) -> None:
        self._chunks[self._number] = chunk.without_windows()
        self._server.put((self._number, faces))
        self._number += 1

    def _answered(self, answer: _Answer) -> None:
        if isinstance(answer, tuple):
            number, annotations = answer
            self._done(AnnotatedChunk(self._chunks.pop(number), annotations))
        else:
            self._times.add(answer)

    def __enter__(self) -> _GpuWorker:
        self._server.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.__exit__(kind, error, at)


_Asked: TypeAlias = tuple[int, Faces]
_Answer: TypeAlias = tuple[int, Annotations] | Mapping[str, float]
"""The annotations of a chunk, and at the end the seconds of the stages."""


@dataclass(frozen=True)
class _Annotation:
    """What such a process does: one thread brings faces to the device, one launches, one finishes and sends."""

    make: Make

    def __call__(self, asked: Iterator[_Asked], answer: Callable[[_Answer], None]) -> None:
        # What launches the networks gets Python's lock back from the other threads ten times as soon as usual.
        sys.setswitchinterval(0.0005)
        leave_cores()
        times = StageTimer()
        with times("load networks"):
            annotator = self.make()

        def launch(waiting: Iterator[tuple[int, FaceBatch]]) -> None:
            batcher = Batcher(annotator, times, mix=True)
            for number, faces in times.waiting("wait: no faces", waiting):
                for complete in batcher.add(number, faces):
                    finishing.put(complete)
            for complete in batcher.finish():
                finishing.put(complete)

        def finish(complete: Iterator[tuple[int, FaceBatch, Floats]]) -> None:
            for number, faces, outputs in complete:
                with times("points to pictures"):
                    annotations = annotator.finish(faces, outputs)
                answer((number, annotations))

        # Left in the opposite order, each thread with all that the one before gave it.
        with ThreadStage(finish, STAGED, keep=True) as finishing, ThreadStage(launch, STAGED, keep=False) as launching:
            for number, faces in asked:
                with times("copy to the device"):
                    staged = faces.on(annotator)
                launching.put((number, staged))
        answer(times.seconds)
