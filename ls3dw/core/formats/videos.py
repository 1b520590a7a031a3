"""Decodes videos with FFmpeg through PyAV, forward only and on one thread. No torch."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ls3dw.core.sample import Picture
from ls3dw.errors import PictureError

if TYPE_CHECKING:
    import av

CONTAINERS: Final = "avi,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpeg,mpegts,mpegvideo,m4v,asf"
"""FFmpeg's demuxers for files. Playlists and the like, which name other files or addresses, are not read."""

MOST_PIXELS: Final = 1 << 26
"""Pixels of the largest frame, 8192 x 8192: a damaged header may claim any size."""

BUFFER: Final = 1 << 18
OFF_GRID: Final = 0.1
"""Largest distance of a timestamp from a whole number of frames, in frames, besides one tick of its clock."""


@dataclass(frozen=True)
class VideoFrame:
    """A coded frame of a video.

    order: its place among the coded frames as they are shown, from 1; time: its place by its timestamp, from 1, None
    if it has none or lies between two frames; damage: why it cannot be used, None if it can.
    """

    order: int
    time: int | None
    damage: str | None = None
    decoded: av.VideoFrame | None = None


class _File:
    """A file for FFmpeg, which seeks to places that do not exist while it probes damaged files."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self.read, self.tell, self.close = self._file.read, self._file.tell, self._file.close

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._file.seek(offset, whence)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return -errno.EINVAL


class VideoReader:
    """Reads the frames of a video file; use it as a context manager."""

    def __init__(self, path: Path) -> None:
        """Open the file. Raises OSError if it cannot be read, PictureError if it is no video."""
        import av
        from av.video.reformatter import VideoReformatter

        # Python reads the file, so that any path is possible and an I/O error is raised and not taken for its end.
        self._file = _File(path)
        try:
            self._container = av.open(
                self._file,
                "r",
                metadata_errors="replace",
                buffer_size=BUFFER,
                container_options={"format_whitelist": CONTAINERS},
            )
            stream = self._container.streams.best("video")
            # A stream of an unknown codec has no context.
            if not isinstance(stream, av.VideoStream) or stream.codec_context is None:
                raise PictureError("no pictures that can be decoded")
        except (av.FFmpegError, PictureError) as error:
            self._file.close()
            if isinstance(error, MemoryError):
                raise
            raise PictureError(f"{path.name} is damaged, empty or of an unknown kind") from error
        except BaseException:
            self._file.close()
            raise
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
        self._stream = stream
        # One tick of its clock in frames.
        self._tick = float((stream.guessed_rate or 0) * (stream.time_base or 0))
        self._is_avi = self._container.format.name == "avi"
        self._reformatter = VideoReformatter()
        self._start: int | None = None
        self._cut: set[int] = set()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()
        self._file.close()

    def frames(self) -> Iterator[VideoFrame]:
        """Yield every coded frame in the order of showing; one that cannot be decoded keeps its place."""
        order = 0
        lost: list[int | None] = []
        for pts, decoded in self._decode():
            if decoded is None:
                lost.append(pts)
                continue
            earlier, lost = _split(lost, decoded.pts)
            self._start_at([*earlier, pts])
            for time in earlier:
                order += 1
                yield VideoFrame(order, self._number(time), f"frame {order} cannot be decoded")
            order += 1
            yield VideoFrame(order, self._number(pts), self._damage(decoded, order), decoded)
        self._start_at(lost)
        for time in lost:
            order += 1
            yield VideoFrame(order, self._number(time), f"frame {order} cannot be decoded")

    def picture(self, frame: VideoFrame) -> Picture:
        """Convert a frame to (H, W, 3) uint8 BGR as coded: a rotation in the file's display matrix is not applied.

        The pixels are those of OpenCV's reader, also for other colour matrices, full range and interlaced video.
        Raises PictureError if the frame is damaged.
        """
        import av

        if frame.damage is not None or frame.decoded is None:
            raise PictureError(frame.damage or "the frame is not decoded")
        try:
            converted = self._reformatter.reformat(frame.decoded, format="bgr24", threads=1)
        except av.FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            raise PictureError(f"pixels of kind {frame.decoded.format.name} cannot be converted") from error
        height, width = converted.height, converted.width
        plane = converted.planes[0]
        rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(-1, plane.line_size)[:height, : 3 * width]
        picture: Picture = rows.reshape(height, width, 3)
        return picture

    def _decode(self) -> Iterator[tuple[int | None, av.VideoFrame | None]]:
        """Yield each frame with its timestamp, and those of packets that cannot be decoded without one."""
        import av

        for packet in self._packets():
            if self._start is None and self._is_avi:
                # Its times count slots from 0, empty ones too; a picture may be shown later than it is decoded.
                self._start = None if packet.pts is None or packet.dts is None else packet.pts - packet.dts
            if packet.is_corrupt and packet.pts is not None:
                self._cut.add(packet.pts)
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                if isinstance(error, MemoryError):
                    raise
                yield packet.pts, None
                continue
            for frame in frames:
                if isinstance(frame, av.VideoFrame):
                    yield frame.pts, frame

    def _packets(self) -> Iterator[Any]:
        """Yield the packets up to the file's end or to where it cannot be followed, then the empty one."""
        import av

        try:
            yield from self._container.demux(self._stream)
        except av.FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            yield av.Packet()

    def _number(self, pts: int | None) -> int | None:
        """Return the number, from 1, of the frame that is shown at `pts` at a constant rate."""
        if pts is None or self._start is None or not self._tick:
            return None
        frames = (pts - self._start) * self._tick
        number = round(frames)
        if number < 0 or abs(frames - number) > OFF_GRID + self._tick:
            return None
        return number + 1

    def _start_at(self, times: list[int | None]) -> None:
        """Let the earliest of the first frames be number 1, unless it is known already."""
        if self._start is None:
            self._start = min((time for time in times if time is not None), default=None)

    def _damage(self, frame: av.VideoFrame, order: int) -> str | None:
        # FFmpeg shows the missing part of a cut frame as grey or smeared blocks.
        return f"the file is cut off within frame {order}" if frame.is_corrupt or frame.pts in self._cut else None


def _split(lost: list[int | None], pts: int | None) -> tuple[list[int | None], list[int | None]]:
    """Split timestamps into those before `pts` or unknown, sorted, and the later ones."""
    later: list[int | None] = [time for time in lost if pts is not None and time is not None and time > pts]
    earlier = [time for time in lost if time not in later]
    return sorted(earlier, key=lambda time: (time is not None, time)), later
