"""Runs the networks on chunks: on the CPU on a thread, with GPUs in one process for each.

Other Python code in a process delays the thread that launches kernels. So a GPU's process has three threads: one copies
faces to the device, one only launches networks, one turns their outputs into landmarks and sends them back.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np

from ls3dw.building.batching import Annotates, Batcher
from ls3dw.building.prepare import Chunk
from ls3dw.building.prestart import Prestart
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
"""Chunks that may wait on a device for a batch, and for being sent back."""

MakeAnnotator: TypeAlias = Callable[[], Annotates[Any]]
OnDone: TypeAlias = Callable[[Chunk], None]


def annotate_in_thread(
    annotator: Annotates[Any], done: OnDone, timer: StageTimer, *, guided: bool, queue: int
) -> ThreadStage[Chunk]:
    """Annotate on a thread of this process, each chunk in its own batches. done: called with annotated chunks."""

    def annotate(chunks: Iterator[Chunk]) -> None:
        batcher = Batcher(annotator, timer, mix=False)
        for chunk in timer.waiting("wait: no faces", chunks):
            if not chunk.faces:
                done(chunk)
                continue
            for whole, faces, outputs in batcher.add(chunk, _stage(faces_of(chunk, guided=guided), annotator)):
                done(whole.annotated(annotator.finish(faces, outputs)))

    return ThreadStage(annotate, queue, keep=False)


class GpuWorkers:
    """Annotates in one process a GPU, in batches that mix chunks; a context manager like `ThreadStage`.

    makers: one a process, picklable; each makes an annotator. done: called with annotated chunks, on any thread.
    prestart: processes that were started for this.
    """

    def __init__(
        self,
        makers: Sequence[MakeAnnotator],
        done: OnDone,
        timer: StageTimer,
        *,
        guided: bool,
        prestart: Prestart | None = None,
    ) -> None:
        self._guided = guided
        self._done = done
        self._stack = ExitStack()
        self._workers = [
            self._stack.enter_context(GpuWorker(make, done, timer, prestart.take() if prestart else None))
            for make in makers
        ]

    def put(self, chunk: Chunk) -> None:
        """Send a chunk to the process with the least to do; blocks until there is room, raises a process's error."""
        if chunk.faces:
            min(self._workers, key=lambda worker: worker.load).put(chunk, faces_of(chunk, guided=self._guided))
        else:
            self._done(chunk)

    def __enter__(self) -> GpuWorkers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, at)


class GpuWorker:
    """The process of one GPU, and the chunks that it is annotating."""

    def __init__(self, make: MakeAnnotator, done: OnDone, timer: StageTimer, process: Process | None) -> None:
        self._done = done
        self._timer = timer
        self._chunks: dict[int, Chunk] = {}
        self._number = 0
        self._worker = Worker(_GpuTask(make), self._take, process)

    @property
    def load(self) -> int:
        return len(self._chunks)

    def put(self, chunk: Chunk, faces: FaceBatch) -> None:
        self._chunks[self._number] = chunk.without_windows()
        self._worker.put((self._number, faces))
        self._number += 1

    def _take(self, result: _Result) -> None:
        if isinstance(result, tuple):
            number, annotations = result
            self._done(self._chunks.pop(number).annotated(annotations))
        else:
            self._timer.add(result)

    def __enter__(self) -> GpuWorker:
        self._worker.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._worker.__exit__(kind, error, at)


_Request: TypeAlias = tuple[int, FaceBatch]
_Result: TypeAlias = tuple[int, Annotations] | Mapping[str, float]
"""The annotations of a chunk; at the end the seconds of the stages."""


@dataclass(frozen=True)
class _GpuTask:
    """Runs in a GPU's process."""

    make: MakeAnnotator

    def __call__(self, requests: Iterator[_Request], answer: Callable[[_Result], None]) -> None:
        # The launching thread gets Python's lock back ten times sooner than by default.
        sys.setswitchinterval(0.0005)
        leave_cores()
        timer = StageTimer()
        with timer("load networks"):
            annotator = self.make()

        def launch(staged: Iterator[_Request]) -> None:
            batcher = Batcher(annotator, timer, mix=True)
            for number, faces in timer.waiting("wait: no faces", staged):
                for complete in batcher.add(number, faces):
                    finishing.put(complete)
            for complete in batcher.finish():
                finishing.put(complete)

        def finish(complete: Iterator[tuple[int, FaceBatch, Floats]]) -> None:
            for number, faces, outputs in complete:
                with timer("points to pictures"):
                    annotations = annotator.finish(faces, outputs)
                answer((number, annotations))

        # Closed in reverse order, each with all that the one before gave it.
        with ThreadStage(finish, STAGED, keep=True) as finishing, ThreadStage(launch, STAGED, keep=False) as launching:
            for number, faces in requests:
                with timer("copy to the device"):
                    staged = _stage(faces, annotator)
                launching.put((number, staged))
        answer(timer.seconds)


def faces_of(chunk: Chunk, *, guided: bool) -> FaceBatch:
    """Return the faces of a chunk that has some; guided: with the source's own points."""
    assert chunk.windows is not None
    boxes = np.stack([face.box for face in chunk.faces])
    return FaceBatch((chunk.windows,), boxes, np.stack([face.annotation for face in chunk.faces]) if guided else None)


def _stage(faces: FaceBatch, annotator: Annotates[Any]) -> FaceBatch:
    """Start copying the windows to the annotator's device."""
    blocks = (annotator.stage(block) if isinstance(block, Windows) else block for block in faces.windows)
    return replace(faces, windows=tuple(blocks))
