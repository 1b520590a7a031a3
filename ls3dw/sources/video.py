"""Videos with one annotation file for each frame, read in a single forward pass."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal

from ls3dw.core.formats.pictures import DecodedPicture
from ls3dw.core.formats.videos import VideoFrame, VideoReader
from ls3dw.core.sample import Outcome
from ls3dw.errors import PictureError
from ls3dw.sources.face import Place, Rejected, make_sample, printable, read_face, reading
from ls3dw.sources.layout import visible
from ls3dw.sources.pts import parse_face

ANNOTATIONS: Final = "annot"
VIDEOS: Final = frozenset({".avi", ".mp4", ".m4v", ".mkv", ".mov", ".mpg", ".mpeg", ".webm", ".wmv"})

# At most nine digits: int() raises another error for very long numbers.
_FRAME_NUMBER: Final = re.compile(r"0*[1-9][0-9]{0,8}")


def find_video(folder: Path) -> Path | None:
    """Return `vid.avi`, or the first `vid` of another container."""
    found = (path for path in visible(folder) if path.stem.lower() == "vid" and path.suffix.lower() in VIDEOS)
    return next(found, None)


@dataclass(frozen=True)
class Labels:
    """The annotation files of a video. frames: by frame number, from 1; strays: files that name no frame."""

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


Numbering = Literal["order", "time", "unsettled"]


def settle_numbering(video: Path, labels: Labels) -> Numbering:
    """Choose the frame numbers of a video whose numbers by order and by time differ. Decodes it once.

    Times are valid only if all lie on the grid of a constant rate. Then the count whose last frame is the last
    annotated one is right; "unsettled" if neither is.
    """
    with open_video(video) as reader, reading(video, "unreadable video"):
        frames = [(frame.order, frame.time, frame.damage) for frame in reader.frames()]
    times = [time for _, time, _ in frames if time is not None]
    complete = all(time is not None or damage is not None for _, time, damage in frames)
    if not complete or not times or any(after <= before for before, after in pairwise(times)):
        return "order"
    last = max(labels.frames, default=0)
    if last == times[-1]:
        return "time"
    return "order" if last == frames[-1][0] else "unsettled"


def open_video(path: Path) -> VideoReader:
    """Open a video; raises Rejected if it is none, SourceError if it cannot be read."""
    try:
        with reading(path, "unreadable video"):
            return VideoReader(path)
    except PictureError as error:
        raise Rejected("unreadable video", str(error)) from error


def _unsettled(frame: VideoFrame, labels: Labels) -> Rejected:
    last = max(labels.frames, default=0)
    return Rejected(
        "uncertain frame number",
        f"frame {frame.order} by order, {frame.time} by time; the last annotation, {last}, fits neither count",
    )


@dataclass(frozen=True)
class VideoMedia:
    """A video's folder: `vid.avi` and `annot/000001.pts`, ... Frame n is unit n - 1.

    broken: first and last frame, from 1, of the ranges whose published annotation is known to be wrong.
    """

    name: str
    subset: str
    source: str
    root: Path
    folder: Path
    expected: int
    broken: tuple[tuple[int, int], ...] = ()
    start: None = None

    def files(self) -> Iterator[Path]:
        """Yield the video, if there is one, and its annotations."""
        if video := find_video(self.folder):
            yield video
        labels = list_labels(self.folder)
        yield from (labels.frames[frame] for frame in sorted(labels.frames))
        yield from labels.strays

    def read(self, skip: Callable[[int], bool]) -> Iterator[tuple[int, Outcome]]:
        """Yield a sample or a drop for every frame, and a drop for every annotation without a frame."""
        labels = list_labels(self.folder)
        last, end = 0, Rejected("unreadable video", "no frame can be decoded")
        try:
            for number, outcome in self._frames(labels, skip):
                yield from self._without_picture(labels, range(last + 1, number), skip)
                last = number
                if outcome is not None:
                    yield number - 1, outcome
        except Rejected as fault:
            end = fault
        if last:
            end = Rejected("annotation without frame", f"the video ended at frame {last}")
        for unit, outcome in self._leftovers(labels, last, end):
            if not skip(unit):
                yield unit, outcome

    def _frames(self, labels: Labels, skip: Callable[[int], bool]) -> Iterator[tuple[int, Outcome | None]]:
        """Yield every frame number, from 1, with its outcome, or None if it is skipped; raises Rejected.

        Order and time nearly always agree; the numbering is settled at the first frame where they do not.
        """
        video = find_video(self.folder)
        if video is None:
            raise Rejected("unreadable video", "no vid.avi in the folder")
        numbering: Numbering | None = None
        with open_video(video) as reader, reading(video, "unreadable video"):
            for frame in reader.frames():
                if numbering is None and frame.time not in (None, frame.order):
                    numbering = settle_numbering(video, labels)
                number = frame.time if numbering == "time" else frame.order
                if number is None:
                    continue  # damaged, and nothing tells when it was to be shown
                if skip(number - 1):
                    yield number, None
                elif numbering == "unsettled":
                    yield number, self._frame_place(number, video).drop(_unsettled(frame, labels))
                else:
                    yield number, self._outcome(reader, frame, number, video, labels)

    def _outcome(self, reader: VideoReader, frame: VideoFrame, number: int, video: Path, labels: Labels) -> Outcome:
        place = self._frame_place(number, video)
        try:
            if number not in labels.frames:
                raise Rejected("frame without annotation", f"no {ANNOTATIONS}/{number:06d}.pts")
            face = read_face(labels.frames[number], parse_face)
            pixels = reader.picture(frame)
            height, width = pixels.shape[:2]
            return make_sample(face, DecodedPicture(pixels, (width, height)), place, order="BGR")
        except PictureError as error:
            return place.drop(Rejected("unreadable picture", str(error)))
        except Rejected as fault:
            return place.drop(fault)

    def _without_picture(
        self, labels: Labels, numbers: range, skip: Callable[[int], bool]
    ) -> Iterator[tuple[int, Outcome]]:
        """Yield unit and drop of the annotations of frames for which the file repeats the picture before."""
        for number in numbers:
            if number in labels.frames and not skip(number - 1):
                fault = Rejected("annotation without frame", f"the video has no picture for frame {number}")
                yield number - 1, self._frame_place(number, labels.frames[number]).drop(fault)

    def _leftovers(self, labels: Labels, last: int, end: Rejected) -> Iterator[tuple[int, Outcome]]:
        """Yield unit and drop of the annotations after frame `last`, of the strays, or of a video with neither."""
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
