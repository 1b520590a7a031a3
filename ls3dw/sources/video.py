"""A video with one annotation file for each frame, read in a single forward pass."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from ls3dw.core.sample import Outcome, Picture
from ls3dw.sources.face import Place, Rejected, make_sample, printable, read_face
from ls3dw.sources.layout import visible
from ls3dw.sources.pts import parse_face

ANNOTATIONS: Final = "annot"
VIDEOS: Final = frozenset({".avi", ".mp4", ".m4v", ".mkv", ".mov", ".mpg", ".mpeg", ".webm", ".wmv"})

# Nine digits: more would be no frame number.
_FRAME_NUMBER: Final = re.compile(r"0*[1-9][0-9]{0,8}")


def find_video(folder: Path) -> Path | None:
    """Return `vid.avi`, or the first `vid` of another container."""
    found = (path for path in visible(folder) if path.stem.lower() == "vid" and path.suffix.lower() in VIDEOS)
    return next(found, None)


@dataclass(frozen=True)
class Labels:
    """The annotation files of a video. frames: by frame number, from 1; strays: those that name no frame."""

    frames: dict[int, Path]
    strays: list[Path]

    def __len__(self) -> int:
        return len(self.frames) + len(self.strays)


def list_labels(folder: Path) -> Labels:
    """List the `.pts` files of a video's folder; a second file for the same frame is a stray."""
    labels = Labels({}, [])
    annotations = folder / ANNOTATIONS
    for path in visible(annotations) if annotations.is_dir() else []:
        if path.suffix.lower() != ".pts":
            continue
        number = int(path.stem) if _FRAME_NUMBER.fullmatch(path.stem) else None
        if number is None or number in labels.frames:
            labels.strays.append(path)
        else:
            labels.frames[number] = path
    return labels


class Capture:
    """A video decoded on one thread, forward only: seeking is not exact in every container."""

    def __init__(self, path: Path) -> None:
        """Open the video; raises Rejected."""
        import cv2

        name = str(path)
        if not _is_utf8(name):  # cv2 would end the process
            raise Rejected("unreadable video", "its path is not UTF-8; rename it")
        self._video: Any = cv2.VideoCapture(name, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        if not self._video.isOpened():
            raise Rejected("unreadable video", f"{path.name} is damaged, empty or of an unknown kind")
        self._cut = cut_frame(path)
        self.frame = 0

    def advance(self) -> bool:
        """Go to the next frame without converting it; False at the end."""
        grabbed: bool = self._video.grab()
        self.frame += grabbed
        return grabbed

    def picture(self) -> Picture:
        """Return the present frame, (H, W, 3) uint8 BGR; raises Rejected if it is damaged."""
        if self._cut is not None and self.frame >= self._cut:
            raise Rejected("unreadable picture", f"the file is cut off within frame {self._cut}")
        decoded, pixels = self._video.retrieve()
        if not decoded:
            raise Rejected("unreadable picture", f"frame {self.frame} cannot be decoded")
        return np.asarray(pixels, dtype=np.uint8)

    def close(self) -> None:
        """Let go of the file."""
        self._video.release()


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def cut_frame(path: Path) -> int | None:
    """Return the frame, from 1, within which an AVI file ends; None if it is whole, or in another container.

    A decoder shows the rest of a cut frame as grey or smeared blocks without a word, so the chunks are walked here.
    """
    size = path.stat().st_size
    complete = 0
    with path.open("rb") as file:
        for kind, end in _chunks(file):
            is_frame = kind[2:] in (b"dc", b"db")
            if end > size:
                return complete + 1 if is_frame else None
            complete += is_frame
    return None


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield kind and end of every chunk of an AVI file that is no list and not empty; nothing for other files."""
    if file.read(4) != b"RIFF":
        return
    file.seek(0)
    while len(head := file.read(8)) == 8:
        kind, length = head[:4], int.from_bytes(head[4:], "little")
        if kind in (b"RIFF", b"LIST"):
            file.seek(4, 1)  # go on within the list
            continue
        if length:
            yield kind, file.tell() + length
        file.seek(length + length % 2, 1)


@dataclass(frozen=True)
class VideoMedia:
    """A video's folder: `vid.avi` and `annot/000001.pts`, ... Frame n is unit n - 1.

    broken: first and last frame, from 1, of the stretches whose published annotation is known to be wrong.
    """

    name: str
    subset: str
    source: str
    root: Path
    folder: Path
    expected: int
    broken: tuple[tuple[int, int], ...] = ()
    start: None = None

    def read(self, skip: Callable[[int], bool]) -> Iterator[tuple[int, Outcome]]:
        """Yield a sample or a drop for every frame, and then a drop for every annotation that has none."""
        labels = list_labels(self.folder)
        last, end = 0, Rejected("unreadable video", "no frame can be decoded")
        try:
            for last, outcome in self._frames(labels, skip):
                if outcome is not None:
                    yield last - 1, outcome
        except Rejected as fault:
            end = fault
        if last:
            end = Rejected("annotation without frame", f"the video ended at frame {last}")
        for number, outcome in self._leftovers(labels, last, end):
            if not skip(number):
                yield number, outcome

    def _frames(self, labels: Labels, skip: Callable[[int], bool]) -> Iterator[tuple[int, Outcome | None]]:
        """Yield every frame number, from 1, with its outcome, or None if it is skipped; raises Rejected."""
        video = find_video(self.folder)
        if video is None:
            raise Rejected("unreadable video", "no vid.avi in the folder")
        capture = Capture(video)
        try:
            while capture.advance():
                skipped = skip(capture.frame - 1)
                yield capture.frame, None if skipped else self._outcome(capture, video, labels)
        finally:
            capture.close()

    def _outcome(self, capture: Capture, video: Path, labels: Labels) -> Outcome:
        place = self._frame_place(capture.frame, video)
        try:
            if capture.frame not in labels.frames:
                raise Rejected("frame without annotation", f"no {ANNOTATIONS}/{capture.frame:06d}.pts")
            face = read_face(labels.frames[capture.frame], parse_face)
            return make_sample(face, capture.picture(), place, order="BGR")
        except Rejected as fault:
            return place.drop(fault)

    def _leftovers(self, labels: Labels, last: int, end: Rejected) -> Iterator[tuple[int, Outcome]]:
        """Yield unit and drop of the annotations beyond frame `last`, of the strays, or of a video with neither."""
        if not last and not labels:
            yield 0, self._place(self.folder.name, self.folder).drop(end)
        beyond = sorted(frame for frame in labels.frames if frame > last)
        for frame in beyond:
            yield frame - 1, self._frame_place(frame, labels.frames[frame]).drop(end)
        for unit, path in enumerate(labels.strays, start=max((last, *beyond))):
            stray = Rejected("annotation without frame", "its name is no frame number, or that of another file's frame")
            yield unit, self._place(f"{self.folder.name}/{ANNOTATIONS}/{path.stem}", path).drop(stray)

    def _frame_place(self, frame: int, file: Path) -> Place:
        broken = any(first <= frame <= last for first, last in self.broken)
        flags = ("broken",) if broken else ()
        return replace(self._place(f"{self.folder.name}/{frame:06d}", file), frame=frame, flags=flags)

    def _place(self, name: str, file: Path) -> Place:
        media = printable(file.relative_to(self.root).as_posix())
        return Place(f"{self.source}/{printable(name)}", self.source, self.subset, media)
