"""What a decoding process runs: reads one part of a source, cuts every face, sends them in chunks.

Without torch, so that these processes start fast and stay small.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ls3dw.building.fingerprint import fingerprint
from ls3dw.core.annotations import Annotations
from ls3dw.core.crops import (
    FRAME,
    STILL,
    Decode,
    StoredPicture,
    Window,
    Windows,
    cut_stored,
    cut_stored_window,
    cut_window,
    encode_picture,
    pack_windows,
)
from ls3dw.core.geometry import Affine
from ls3dw.core.parallel.stage_timer import StageTimer
from ls3dw.core.phash import face_hash
from ls3dw.core.sample import Drop, Floats, Media, Outcome, Picture, Sample, StoredSample
from ls3dw.errors import PictureError


@dataclass(frozen=True)
class PreparedFace:
    """A face as its shard stores it. picture: JPEG bytes; empty if the data set has it already."""

    id: str
    media: str
    subset: str
    frame: int
    width: int
    height: int
    annotation: Floats
    box: Floats
    yaw: float
    broken: bool
    extra: Mapping[str, NDArray[Any]]
    to_picture: Affine
    picture: NDArray[np.uint8]
    phash: np.uint64


@dataclass(frozen=True)
class Chunk:
    """Some faces of one shard, in order, with what the networks need and, later, what they give.

    number: of the chunk in its shard, from 0; windows: None without faces, and once they were annotated; drops: since
    the chunk before; read: units that the chunk covers; closes: last chunk of the shard; ends: last chunk of the media;
    expected: units that the media's listing promised; seconds: by stage, since the chunk before; annotations: None
    until it was annotated, and without faces; fingerprint: of the media's files, in the last chunk of a shard.
    """

    source: str
    part: str
    shard: int
    number: int
    faces: tuple[PreparedFace, ...]
    windows: Windows | None
    drops: tuple[Drop, ...]
    read: int
    closes: bool
    ends: bool
    expected: int
    seconds: Mapping[str, float]
    annotations: Annotations | None = None
    fingerprint: Mapping[str, Any] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of its windows and pictures."""
        windows = 0 if self.windows is None else self.windows.pixels.nbytes
        return windows + sum(face.picture.nbytes for face in self.faces)

    def without_windows(self) -> Chunk:
        """Return the chunk without what only the networks need."""
        return replace(self, windows=None)

    def annotated(self, annotations: Annotations) -> Chunk:
        """Return the chunk with its annotations, ready to be written."""
        return replace(self, windows=None, annotations=annotations)


@dataclass(frozen=True)
class DecodeTask:
    """Reads `media` and yields its chunks. Picklable.

    part: the media's name, safe in a path; expected: units it should have; done: numbers of finished shards; limit:
    units to read at most; selected: ids of the faces to take, whose pictures the data set has; None: all faces, with
    their pictures.
    """

    source: str
    part: str
    media: Media
    expected: int
    shard_size: int
    chunk_size: int
    decode: Decode
    done: frozenset[int] = frozenset()
    limit: int | None = None
    selected: frozenset[str] | None = None

    def __call__(self) -> Iterator[Chunk]:
        timer = StageTimer()
        with timer("decode"):
            files = fingerprint(self.media) if self.selected is None else None
        for chunk in self._chunks(timer):
            with timer("wait: others are behind"):
                yield replace(chunk, seconds=timer.take(), fingerprint=files if chunk.closes else None)

    def _chunks(self, timer: StageTimer) -> Iterator[Chunk]:
        collector = _Collector(self)
        for number, outcome in self._units(timer):
            yield from collector.move_to(number // self.shard_size)
            yield from collector.add(self._prepare(outcome, timer))
        yield from collector.finish()

    def _units(self, timer: StageTimer) -> Iterator[tuple[int, Outcome]]:
        for number, outcome in timer.waiting("decode", self.media.read(self._is_done)):
            if self.limit is not None and number - (self.media.start or 0) >= self.limit:
                return
            if self.selected is None or outcome.id in self.selected:
                yield number, outcome

    def _is_done(self, number: int) -> bool:
        return number // self.shard_size in self.done

    def _prepare(self, outcome: Outcome, timer: StageTimer) -> tuple[PreparedFace, Window] | Drop:
        if isinstance(outcome, Drop):
            return outcome
        try:
            with timer("decode"):
                pixels = outcome.load()
            if isinstance(outcome, StoredSample):
                return _cut_stored(outcome, pixels, timer)
            return _cut(outcome, pixels, self, timer)
        except PictureError as error:
            return Drop(outcome.id, outcome.source, "unreadable picture", str(error))


class _Collector:
    """Gathers outcomes into chunks. Keeps a shard's chunk back until it is known whether it is the last."""

    def __init__(self, task: DecodeTask) -> None:
        self._task = task
        self._shard: int | None = None
        self._number = 0
        self._faces: list[tuple[PreparedFace, Window]] = []
        self._drops: list[Drop] = []

    def move_to(self, shard: int) -> Iterator[Chunk]:
        if self._shard is not None and shard != self._shard:
            yield self._take(closes=True, ends=False)
        if shard != self._shard:
            self._shard, self._number = shard, 0

    def add(self, outcome: tuple[PreparedFace, Window] | Drop) -> Iterator[Chunk]:
        if isinstance(outcome, Drop):
            self._drops.append(outcome)
            return
        if len(self._faces) == self._task.chunk_size:
            yield self._take(closes=False, ends=False)
        self._faces.append(outcome)

    def finish(self) -> Iterator[Chunk]:
        if self._shard is not None:
            yield self._take(closes=True, ends=True)

    def _take(self, *, closes: bool, ends: bool) -> Chunk:
        assert self._shard is not None
        drops = tuple(self._drops)
        task = self._task
        chunk = Chunk(
            source=task.source,
            part=task.part,
            shard=self._shard,
            number=self._number,
            faces=tuple(face for face, _ in self._faces),
            windows=pack_windows([window for _, window in self._faces]) if self._faces else None,
            drops=drops,
            read=len(self._faces) + len(drops),
            closes=closes,
            ends=ends,
            expected=task.expected,
            seconds={},
        )
        self._faces, self._drops = [], []
        self._number += 1
        return chunk


def _cut(sample: Sample, pixels: Picture, task: DecodeTask, timer: StageTimer) -> tuple[PreparedFace, Window]:
    with timer("cut and hash"):
        kept = cut_stored(pixels, sample.box, sample.reduction)
        window = cut_window(pixels, sample.box, task.decode, sample.reduction).in_rgb(sample.order)
        face = _face(sample, sample.size or (pixels.shape[1], pixels.shape[0]), kept)
    if task.selected is None:
        with timer("encode pictures"):
            chroma = STILL if sample.frame is None else FRAME
            face = replace(face, picture=encode_picture(kept.pixels, chroma, sample.order))
    return face, window


def _cut_stored(sample: StoredSample, pixels: Picture, timer: StageTimer) -> tuple[PreparedFace, Window]:
    with timer("cut and hash"):
        kept = StoredPicture(pixels, sample.to_picture)
        window = cut_stored_window(kept, sample.box).in_rgb(sample.order)
        return _face(sample, (sample.width, sample.height), kept), window


_NO_PICTURE: Picture = np.empty(0, dtype=np.uint8)


def _face(sample: Sample, size: tuple[int, int], kept: StoredPicture) -> PreparedFace:
    return PreparedFace(
        id=sample.id,
        media=sample.media,
        subset=sample.subset,
        frame=sample.frame or 0,
        width=size[0],
        height=size[1],
        annotation=sample.annotation,
        box=sample.box,
        yaw=float("nan") if sample.yaw is None else sample.yaw,
        broken="broken" in sample.flags,
        extra=dict(sample.extra),
        to_picture=kept.to_picture,
        picture=_NO_PICTURE,
        phash=face_hash(kept.pixels, kept.to_picture, sample.box, sample.order),
    )


def face_rows(faces: list[PreparedFace]) -> dict[str, NDArray[Any]]:
    """Turn faces into the columns of a face shard, `pictures` and `extra/...` included."""
    sizes = np.array([len(face.picture) for face in faces], dtype=np.int64)
    rows: dict[str, NDArray[Any]] = {
        name: np.array([getattr(face, name) for face in faces])
        for name in ("id", "media", "subset", "frame", "width", "height", "yaw", "broken", "phash")
    }
    rows |= {name: np.stack([getattr(face, name) for face in faces]) for name in ("annotation", "box", "to_picture")}
    rows["picture_size"] = sizes
    rows["picture_start"] = np.cumsum(sizes) - sizes
    rows["pictures"] = np.concatenate([face.picture for face in faces])
    for name in faces[0].extra:
        rows[f"extra/{name}"] = np.stack([face.extra[name] for face in faces])
    return rows
