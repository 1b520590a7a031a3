"""The reader of videos: pixels as OpenCV gives them, and every frame with its number."""

from __future__ import annotations

import errno
import io
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from ls3dw.core.formats.videos import VideoReader
from ls3dw.errors import PictureError

WIDTH, HEIGHT, FRAMES = 162, 124, 10


def picture(number: int) -> np.ndarray:
    """A smooth coloured picture with a grey patch of 20 times its number."""
    small = np.random.default_rng(number).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    large = cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    large[:40, :40] = 20 * number
    return np.asarray(large)


def write(path: Path, codec: str, pixels: str = "yuv420p", b_frames: int = 0, sound: int = 0, **settings: Any) -> None:
    """settings: attributes of the codec; sound: seconds of silence before the pictures."""
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, pixels
        video.codec_context.max_b_frames = b_frames
        for name, value in settings.items():
            setattr(video.codec_context, name, value)
        if sound:
            audio = container.add_stream("pcm_s16le", rate=48000, layout="mono")
            for second in range(sound * 100):
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 480), np.int16), "s16", "mono")
                silence.pts, silence.sample_rate = 480 * second, 48000
                container.mux(audio.encode(silence))
        for number in range(1, FRAMES + 1):
            frame = av.VideoFrame.from_ndarray(picture(number), "bgr24")
            frame.pts, frame.time_base = number - 1 + 25 * sound, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode())


def read(path: Path) -> list[tuple[int, int | None, np.ndarray]]:
    with VideoReader(path) as reader:
        return [(frame.order, frame.time, reader.picture(frame)) for frame in reader.frames()]


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("vid.avi", "mpeg4", {}),
        ("vid.avi", "mpeg4", {"b_frames": 2}),
        ("vid.avi", "mjpeg", {"pixels": "yuvj420p"}),
        ("vid.mp4", "mpeg4", {"b_frames": 2}),
        ("vid.mp4", "libx264", {"colorspace": 1}),
        ("vid.mkv", "libx264", {"pixels": "yuv422p"}),
        ("vid.mpg", "mpeg2video", {"b_frames": 2}),
        ("vid.wmv", "wmv2", {}),
    ],
)
def test_frames_are_numbered_and_equal_those_of_opencv(
    tmp_path: Path, name: str, codec: str, options: dict[str, Any]
) -> None:
    write(tmp_path / name, codec, **options)
    reference = cv2.VideoCapture(str(tmp_path / name), cv2.CAP_FFMPEG)
    frames = read(tmp_path / name)
    assert [(order, time) for order, time, _ in frames] == [(number, number) for number in range(1, FRAMES + 1)]
    for number, _, pixels in frames:
        assert np.abs(pixels.astype(int) - reference.read()[1]).max() <= 2
        assert abs(pixels[10:30, 10:30].mean() - 20 * number) < 9


def test_long_sound_without_pictures_does_not_end_the_video(tmp_path: Path) -> None:
    write(tmp_path / "vid.mkv", "mpeg4", sound=60)
    assert len(read(tmp_path / "vid.mkv")) == FRAMES


def test_interlaced_video_keeps_the_colours_of_its_fields(tmp_path: Path) -> None:
    size, fields = 64, np.array([[40, 40, 200], [200, 40, 40]], np.uint8)
    planes = np.empty((size * 3 // 2, size), np.uint8)
    chroma = planes[size:].reshape(2, size // 2, size // 2)
    for field, colour in enumerate(fields):
        yuv = cv2.cvtColor(np.full((2, 2, 3), colour, np.uint8), cv2.COLOR_BGR2YUV_I420).ravel()
        planes[field:size:2] = yuv[0]
        chroma[:, field::2] = yuv[4:, None, None]
    path = tmp_path / "vid.mpg"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25, options={"flags": "+ildct+ilme", "qscale": "2"})
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(planes, "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frames = read(path)
    assert len(frames) == 3
    for _, _, pixels in frames:
        for field, colour in enumerate(fields):
            assert np.abs(pixels[field::2].astype(int) - colour).max() <= 6


def test_a_rotation_is_not_applied(tmp_path: Path) -> None:
    write(tmp_path / "plain.mp4", "mpeg4")
    data = (tmp_path / "plain.mp4").read_bytes()
    unit = np.array([1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30], ">i4").tobytes()
    turned = np.array([0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30], ">i4").tobytes()
    (tmp_path / "turned.mp4").write_bytes(turned.join(data.rsplit(unit, 1)))
    assert cv2.VideoCapture(str(tmp_path / "turned.mp4")).read()[1].shape == (WIDTH, HEIGHT, 3)
    for one, other in zip(read(tmp_path / "plain.mp4"), read(tmp_path / "turned.mp4"), strict=True):
        np.testing.assert_array_equal(one[2], other[2])


@pytest.mark.parametrize(
    "content", [b"", b"no video", b"#EXTM3U\n#EXTINF:1,\nplain.mp4\n", b"ffconcat version 1.0\nfile plain.mp4\n"]
)
def test_what_is_no_video_or_names_other_files_is_refused(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "plain.mp4", "mpeg4")
    (tmp_path / "vid.avi").write_bytes(content)
    with pytest.raises(PictureError, match=r"vid\.avi is damaged, empty or of an unknown kind"):
        VideoReader(tmp_path / "vid.avi")


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "vid.avi"), "w") as container:
        audio = container.add_stream("pcm_s16le", rate=48000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.int16), "s16", "mono")
        silence.sample_rate = 48000
        container.mux(audio.encode(silence))
        container.mux(audio.encode())
    with pytest.raises(PictureError, match=r"vid\.avi"):
        VideoReader(tmp_path / "vid.avi")


def test_an_error_while_reading_is_not_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "vid.avi", "mjpeg", "yuvj420p")
    monkeypatch.setattr("ls3dw.core.formats.videos.BUFFER", 4096)

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 12_000:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().read(size)

    data = (tmp_path / "vid.avi").read_bytes()
    monkeypatch.setattr(Path, "open", lambda self, mode: Failing(data))
    assert len(data) > 20_000
    with pytest.raises(OSError, match="Input/output error"):
        read(tmp_path / "vid.avi")


def test_damaged_files_end_in_frames_or_an_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, codec in (("a.avi", "mpeg4"), ("b.mp4", "libx264"), ("c.mkv", "mpeg4"), ("d.mpg", "mpeg2video")):
        write(tmp_path / name, codec)
        whole = np.frombuffer((tmp_path / name).read_bytes(), np.uint8)
        for _ in range(15):
            damaged = whole.copy()
            damaged[rng.integers(0, len(whole), 8)] = rng.integers(0, 256, 8)
            (tmp_path / f"bad{name}").write_bytes(damaged[: rng.integers(len(whole) // 2, len(whole))].tobytes())
            try:
                with VideoReader(tmp_path / f"bad{name}") as reader:
                    for frame in reader.frames():
                        if frame.damage is None:
                            reader.picture(frame)
            except PictureError:
                continue
