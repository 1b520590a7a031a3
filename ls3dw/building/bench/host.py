"""The stages around the networks: decoding, cutting, encoding, writing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import numpy as np

from ls3dw.building.bench.material import CODECS, VIDEO_SIZE, Faces, embedded_still, embedded_video, write_video
from ls3dw.building.bench.stages import Stage
from ls3dw.building.bench.timing import Work
from ls3dw.building.options import DEFAULT_SHARD_SIZE
from ls3dw.building.prepare import Chunk, DecodeTask
from ls3dw.building.write import AnnotatedChunk, ShardWriter
from ls3dw.core.annotations import Annotations
from ls3dw.core.crops import FRAME, STILL, Chroma, cut_stored, cut_window, encode_picture
from ls3dw.core.formats.pictures import decode_picture
from ls3dw.core.formats.videos import VideoReader
from ls3dw.core.phash import face_hash
from ls3dw.dataset.store import Store

FRAMES: Final = 60
PROCESS: Final = "a decoding process, all its work"
WRITER: Final = "write a shard"


def decoding_stages(scratch: Path, faces: Faces) -> Iterator[Stage]:
    """Decode a still, the sample's video, and ones of the faces' pictures made in `scratch`; a frame is a face."""
    data = embedded_still().read_bytes()
    yield Stage("decode a still, 450x450 JPEG", lambda: decode_picture(data), 1)
    video = embedded_video()
    yield Stage("decode a frame of the sample, 320x320", _decoder(video.folder / "vid.avi"), video.expected)
    frames = faces.pictures[:FRAMES]
    width, height = VIDEO_SIZE
    for codec, name in CODECS.items():
        path = scratch / f"{codec.lower()}.avi"
        if write_video(path, codec, frames):
            yield Stage(f"decode a frame, {width}x{height} {name}", _decoder(path), len(frames))


def _decoder(path: Path) -> Work:
    def decode() -> None:
        with VideoReader(path) as reader:
            for frame in reader.frames():
                reader.picture(frame)

    return decode


def cutting_stages(faces: Faces) -> Iterator[Stage]:
    """Cut and hash what a decoding process does of each face, and encode what the shards keep."""
    pairs = list(zip(faces.pictures, faces.boxes, strict=True))
    kept = [cut_stored(picture, box) for picture, box in pairs]

    def cut() -> None:
        for picture, box in pairs:
            cut_window(picture, box)
            cut_stored(picture, box)

    def describe() -> None:
        for one, box in zip(kept, faces.boxes, strict=True):
            face_hash(one.pixels, one.to_picture, box)

    def encode(chroma: Chroma) -> None:
        for one in kept:
            encode_picture(one.pixels, chroma)

    yield Stage("cut the window and the kept picture", cut, len(pairs))
    yield Stage("hash the kept picture", describe, len(pairs))
    for what, chroma in (("still", STILL), ("frame", FRAME)):
        yield Stage(f"encode the kept picture of a {what}", partial(encode, chroma), len(pairs))


def process_stage() -> tuple[Stage, Chunk]:
    """Do all that a decoding process does with the embedded video; also return the chunk that it makes."""
    media = embedded_video()
    shard = DEFAULT_SHARD_SIZE
    work = DecodeTask("300vw", media.name, media, media.expected, shard, shard, "subpixel")
    (chunk,) = work()
    return Stage(PROCESS, lambda: list(work()), len(chunk.faces)), chunk


def writing_stage(scratch: Path, done: AnnotatedChunk, configuration: Mapping[str, Any]) -> Stage:
    """Write a shard, synced to the disk that holds `scratch`; each time to a data set of its own."""
    numbers = count()

    def write() -> None:
        store = Store(scratch / f"written-{next(numbers)}")
        ShardWriter(store, "v1", configuration, {done.chunk.source: "2d"}).add(done)

    return Stage(WRITER, write, len(done.chunk.faces))


def annotate_like(chunk: Chunk, annotations: Annotations) -> AnnotatedChunk:
    """Give the faces of a chunk the annotations of others, again and again: to write them it does not matter whose."""
    rows = np.arange(len(chunk.faces)) % len(annotations.pose)
    names = Annotations.__dataclass_fields__
    return AnnotatedChunk(chunk, Annotations(**{name: getattr(annotations, name)[rows] for name in names}))
