"""What a decoding process does: it reads one part of a source, cuts every face and sends chunks of them on.

No torch here: these processes start in a moment and stay small.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    """A sample without its picture, and what was cut from it. picture: JPEG; empty where it is kept already."""

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
    """Some faces of one shard with their windows, in order, and the drops since the chunk before.

    windows: None without faces; number: counts the chunks of the shard from 0; read: units behind this chunk; closes:
    the shard's last chunk; ends: the last chunk of its media; expected: units that the media's listing promised;
    seconds: what the stages of this process took since the chunk before.
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

    @property
    def nbytes(self) -> int:
        """Bytes of its windows and pictures."""
        windows = 0 if self.windows is None else self.windows.pixels.nbytes
        return windows + sum(face.picture.nbytes for face in self.faces)

    def without_windows(self) -> Chunk:
        """Return what is left to write once the networks have the windows."""
        return replace(self, windows=None)


@dataclass(frozen=True)
class DecodeTask:
    """The unit of work: read `media` and yield its chunks. Picklable.

    part: the media's name as part of a path; expected: units to count on; done: shards that are finished already;
    limit: units to read at most; selected: ids of the only faces to take, whose pictures are kept already and are not
    encoded again; None: all, with their pictures.
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
        times = StageTimer()
        for chunk in self._chunks(times):
            with times("wait: others are behind"):
                yield replace(chunk, seconds=times.take())

    def _chunks(self, times: StageTimer) -> Iterator[Chunk]:
        collector = _Collector(self)
        for number, outcome in self._units(times):
            yield from collector.move_to(number // self.shard_size)
            yield from collector.add(self._prepare(outcome, times))
        yield from collector.finish()

    def _units(self, times: StageTimer) -> Iterator[tuple[int, Outcome]]:
        for number, outcome in times.waiting("decode", self.media.read(self._is_done)):
            if self.limit is not None and number - (self.media.start or 0) >= self.limit:
                return
            if self.selected is None or outcome.id in self.selected:
                yield number, outcome

    def _is_done(self, number: int) -> bool:
        return number // self.shard_size in self.done

    def _prepare(self, outcome: Outcome, times: StageTimer) -> tuple[PreparedFace, Window] | Drop:
        if isinstance(outcome, Drop):
            return outcome
        try:
            with times("decode"):
                pixels = outcome.load()
            if isinstance(outcome, StoredSample):
                return _cut_stored(outcome, pixels, times)
            return _cut(outcome, pixels, self, times)
        except PictureError as error:
            return Drop(outcome.id, outcome.source, "unreadable picture", str(error))


class _Collector:
    """Gathers outcomes into chunks. A shard's last chunk waits until it is known to be the last."""

    def __init__(self, work: DecodeTask) -> None:
        self._work = work
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
        if len(self._faces) == self._work.chunk_size:
            yield self._take(closes=False, ends=False)
        self._faces.append(outcome)

    def finish(self) -> Iterator[Chunk]:
        if self._shard is not None:
            yield self._take(closes=True, ends=True)

    def _take(self, *, closes: bool, ends: bool) -> Chunk:
        assert self._shard is not None
        drops = tuple(self._drops)
        work = self._work
        chunk = Chunk(
            source=work.source,
            part=work.part,
            shard=self._shard,
            number=self._number,
            faces=tuple(face for face, _ in self._faces),
            windows=pack_windows([window for _, window in self._faces]) if self._faces else None,
            drops=drops,
            read=len(self._faces) + len(drops),
            closes=closes,
            ends=ends,
            expected=work.expected,
            seconds={},
        )
        self._faces, self._drops = [], []
        self._number += 1
        return chunk


def _cut(sample: Sample, pixels: Picture, work: DecodeTask, times: StageTimer) -> tuple[PreparedFace, Window]:
    with times("cut and hash"):
        kept = cut_stored(pixels, sample.box, sample.reduction)
        window = cut_window(pixels, sample.box, work.decode, sample.reduction).in_rgb(sample.order)
        face = _face(sample, sample.size or (pixels.shape[1], pixels.shape[0]), kept)
    if work.selected is None:
        with times("encode pictures"):
            chroma = STILL if sample.frame is None else FRAME
            face = replace(face, picture=encode_picture(kept.pixels, chroma, sample.order))
    return face, window


def _cut_stored(sample: StoredSample, pixels: Picture, times: StageTimer) -> tuple[PreparedFace, Window]:
    with times("cut and hash"):
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
