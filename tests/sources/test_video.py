"""Videos: every frame keeps its number, whatever is missing, cut or skipped."""

from __future__ import annotations

import errno
import itertools
import os
import pickle
import shutil
import struct
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from helpers import pts

from ls3dw.building.bench.material import embedded_video
from ls3dw.building.prepare import DecodeTask
from ls3dw.core.crops import cut_stored, cut_window, decode_stored
from ls3dw.core.phash import face_hash
from ls3dw.core.sample import Drop, Outcome, Sample
from ls3dw.errors import SourceError
from ls3dw.sources import open_source
from ls3dw.sources.vw300 import broken_frames

REAL = Path(__file__).parents[3] / "shared" / "real" / "video" / "obama.mp4"
SIDE = 128
FRAMES = 12
POINTS = np.random.default_rng(0).uniform(2, SIDE - 2, (68, 2)).round(3)


def pattern(number: int) -> np.ndarray:
    """A picture with its number as 8 black or white stripes on top, over noise; red at the bottom. BGR."""
    frame = np.random.default_rng(number).integers(90, 160, (SIDE, SIDE, 3), dtype=np.uint8)
    for bit in range(8):
        frame[:32, 16 * bit : 16 * bit + 16] = 255 * (number >> bit & 1)
    frame[-32:] = (0, 0, 255)
    return frame


def number_in(picture: np.ndarray) -> int:
    return sum(int(picture[8:24, 16 * bit + 4 : 16 * bit + 12].mean() > 128) << bit for bit in range(8))


def make_video(folder: Path, codec: str = "XVID", frames: int = FRAMES, labels: int = FRAMES) -> Path:
    (folder / "annot").mkdir(parents=True)
    writer = cv2.VideoWriter(str(folder / "vid.avi"), cv2.VideoWriter.fourcc(*codec), 25, (SIDE, SIDE))
    for number in range(1, frames + 1):
        writer.write(pattern(number))
    writer.release()
    for number in range(1, labels + 1):
        (folder / "annot" / f"{number:06d}.pts").write_bytes(pts(POINTS))
    return folder / "vid.avi"


def read(root: Path, skip: frozenset[int] = frozenset()) -> list[tuple[int, Outcome]]:
    (media,) = pickle.loads(pickle.dumps(open_source("300vw", root).media()))  # noqa: S301 - our own bytes
    return list(media.read(skip.__contains__))


def reasons(outcomes: list[tuple[int, Outcome]]) -> dict[int, str]:
    return {number: outcome.reason for number, outcome in outcomes if isinstance(outcome, Drop)}


@pytest.mark.parametrize("codec", ["XVID", "MJPG"])
def test_every_frame_has_its_own_annotation(tmp_path: Path, codec: str) -> None:
    make_video(tmp_path / "300VW_Dataset_2015_12_14" / "001", codec)
    outcomes = read(tmp_path)
    assert [number for number, _ in outcomes] == list(range(FRAMES))
    for number, sample in outcomes:
        assert isinstance(sample, Sample)
        assert sample.frame == number + 1 == number_in(sample.image())
        assert (sample.id, sample.subset) == (f"300vw/001/{number + 1:06d}", "train")
        np.testing.assert_array_equal(sample.annotation, (POINTS - 1).astype(np.float32))
        red, _, blue = sample.image()[-16:].mean(axis=(0, 1))
        assert red > 200 > blue


def test_skipped_frames_keep_the_numbers_of_the_others(tmp_path: Path) -> None:
    make_video(tmp_path / "001", labels=FRAMES + 2)
    outcomes = read(tmp_path, skip=frozenset({0, 1, 5, FRAMES + 1}))
    assert [number for number, _ in outcomes] == [2, 3, 4, *range(6, FRAMES + 1)]
    for number, sample in outcomes[:-1]:
        assert isinstance(sample, Sample)
        assert number_in(sample.image()) == number + 1
    assert reasons(outcomes) == {FRAMES: "annotation without frame"}


def test_faults_of_single_frames(tmp_path: Path) -> None:
    make_video(tmp_path / "001")
    annotations = tmp_path / "001" / "annot"
    (annotations / "000003.pts").unlink()
    (annotations / "000005.pts").write_bytes(b"nothing")
    (annotations / "000006.pts").write_bytes(pts(POINTS[:51]))
    (annotations / "000007.pts").write_bytes(pts(POINTS * np.nan))
    (annotations / "000008.pts").write_bytes(pts(POINTS * 0 + 5))
    (annotations / "000009.pts").write_bytes(pts(POINTS - 4000))
    for stray in ("notes", "0", "7"):
        (annotations / f"{stray}.pts").write_bytes(pts(POINTS))
    outcomes = read(tmp_path)
    assert reasons(outcomes) == {
        2: "frame without annotation",
        4: "malformed annotation",
        5: "wrong number of points",
        6: "non-finite points",
        7: "empty box",
        8: "outside picture",
        FRAMES: "annotation without frame",
        FRAMES + 1: "annotation without frame",
        FRAMES + 2: "annotation without frame",
    }
    assert len(outcomes) == FRAMES + 3


def test_annotations_beyond_the_end(tmp_path: Path) -> None:
    make_video(tmp_path / "001", labels=FRAMES + 2)
    outcomes = read(tmp_path)
    assert reasons(outcomes) == {FRAMES: "annotation without frame", FRAMES + 1: "annotation without frame"}
    last = outcomes[-1][1]
    assert isinstance(last, Drop)
    assert f"ended at frame {FRAMES}" in last.detail


@pytest.mark.parametrize("content", [b"", b"not a video", None])
def test_an_unreadable_video_drops_its_annotations_only(tmp_path: Path, content: bytes | None) -> None:
    video = make_video(tmp_path / "001", labels=2)
    video.unlink()
    if content is not None:
        video.write_bytes(content)
    make_video(tmp_path / "002")
    source = open_source("300vw", tmp_path)
    assert [sample.id for sample in source] == [f"300vw/002/{number:06d}" for number in range(1, FRAMES + 1)]
    assert [(drop.id, drop.reason) for drop in source.drops] == [
        ("300vw/001/000001", "unreadable video"),
        ("300vw/001/000002", "unreadable video"),
    ]


def test_an_unreadable_video_without_annotations_is_one_drop(tmp_path: Path) -> None:
    (tmp_path / "001").mkdir()
    (tmp_path / "001" / "vid.mp4").touch()
    ((number, outcome),) = read(tmp_path)
    assert number == 0
    assert isinstance(outcome, Drop)
    assert (outcome.id, outcome.reason) == ("300vw/001", "unreadable video")


def test_a_path_that_is_no_text_is_read(tmp_path: Path) -> None:
    make_video(tmp_path / "001", labels=1)
    (tmp_path / "001").rename(Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9")))
    outcome = read(tmp_path)[0][1]
    assert isinstance(outcome, Sample)
    assert outcome.id == "300vw/caf\\udce9/000001"
    assert number_in(outcome.image()) == 1


@pytest.mark.parametrize("codec", ["XVID", "MJPG"])
def test_the_damaged_end_of_a_cut_file_is_left_out(tmp_path: Path, codec: str) -> None:
    video = make_video(tmp_path / "001", codec)
    whole = video.read_bytes()
    first, second = (nth_frame(whole, number) for number in (7, 8))
    for size in (first + 4, first + 40, (first + second) // 2, second, second + 20):
        video.write_bytes(whole[:size])
        outcomes = read(tmp_path)
        good = [outcome for _, outcome in outcomes if isinstance(outcome, Sample)]
        assert len(good) == (7 if size >= second else 6)
        assert len(outcomes) == FRAMES
        for sample in good:
            assert sample.frame == number_in(sample.image())


def nth_frame(avi: bytes, number: int) -> int:
    """Offset of the chunk of a frame."""
    position = avi.index(b"movi")
    for _ in range(number):
        position = avi.index(b"00dc", position + 1)
    return position


def make_avi(folder: Path, chunks: list[bytes], labels: int) -> Path:
    """Write an AVI of JPEG chunks as they stand, and annotations for frames 1 to `labels`."""
    index, movie = b"", b"movi"
    for data in chunks:
        index += struct.pack("<4sIII", b"00dc", 16, len(movie), len(data))
        movie += chunk(b"00dc", data)
    count = len(chunks)
    main = struct.pack("<14I", 40000, 0, 0, 16, count, 0, 1, 1 << 16, SIDE, SIDE, 0, 0, 0, 0)
    stream = b"vidsMJPG" + struct.pack("<10I4h", 0, 0, 0, 1, 25, 0, count, 1 << 16, 2**32 - 1, 0, 0, 0, SIDE, SIDE)
    picture = struct.pack("<IiiHH4sIiiII", 40, SIDE, SIDE, 1, 24, b"MJPG", SIDE * SIDE * 3, 0, 0, 0, 0)
    head = chunk(b"LIST", b"strl" + chunk(b"strh", stream) + chunk(b"strf", picture))
    head = chunk(b"LIST", b"hdrl" + chunk(b"avih", main) + head)
    (folder / "annot").mkdir(parents=True)
    (folder / "vid.avi").write_bytes(chunk(b"RIFF", b"AVI " + head + chunk(b"LIST", movie) + chunk(b"idx1", index)))
    for number in range(1, labels + 1):
        (folder / "annot" / f"{number:06d}.pts").write_bytes(pts(POINTS))
    return folder / "vid.avi"


def chunk(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def jpegs(count: int, **instead: bytes) -> list[bytes]:
    """Encode patterns 1 to `count`; instead: other bytes by number, `n5=b""`."""
    return [
        instead.get(f"n{n}", cv2.imencode(".jpg", pattern(n), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())
        for n in range(1, count + 1)
    ]


def shown(outcomes: list[tuple[int, Outcome]]) -> dict[int, int]:
    """Return for each sample its frame number, and the number in its picture."""
    samples = [outcome for _, outcome in outcomes if isinstance(outcome, Sample)]
    return {sample.frame or 0: number_in(sample.image()) for sample in samples}


@pytest.mark.parametrize("empty", [1, 5, 10])
def test_an_empty_chunk_moves_no_annotation(tmp_path: Path, empty: int) -> None:
    make_avi(tmp_path / "001", jpegs(10, **{f"n{empty}": b""}), labels=10)
    outcomes = read(tmp_path)
    assert [number for number, _ in outcomes] == list(range(10))
    assert shown(outcomes) == {number: number for number in range(1, 11) if number != empty}
    assert reasons(outcomes) == {empty - 1: "annotation without frame"}


def test_annotations_made_by_order_are_read_by_order(tmp_path: Path) -> None:
    make_avi(tmp_path / "001", jpegs(10, n5=b"", n7=b""), labels=8)
    outcomes = read(tmp_path)
    assert shown(outcomes) == dict(enumerate((1, 2, 3, 4, 6, 8, 9, 10), start=1))
    assert not reasons(outcomes)


def test_numbers_that_nothing_settles_are_drops(tmp_path: Path) -> None:
    make_avi(tmp_path / "001", jpegs(10, n5=b"", n7=b""), labels=9)
    outcomes = read(tmp_path)
    assert [number for number, _ in outcomes] == list(range(9))
    assert shown(outcomes) == {number: number for number in range(1, 5)}
    uncertain = dict.fromkeys(range(4, 8), "uncertain frame number")
    assert reasons(outcomes) == {**uncertain, 8: "annotation without frame"}


def test_skipping_does_not_change_numbers_that_had_to_be_settled(tmp_path: Path) -> None:
    make_avi(tmp_path / "001", jpegs(10, n5=b""), labels=10)
    assert shown(read(tmp_path, frozenset(range(7)))) == {8: 8, 9: 9, 10: 10}


def test_an_undecodable_frame_costs_that_frame_only(tmp_path: Path) -> None:
    make_avi(tmp_path / "001", jpegs(10, n5=bytes(500)), labels=10)
    outcomes = read(tmp_path)
    assert shown(outcomes) == {number: number for number in range(1, 11) if number != 5}
    assert reasons(outcomes) == {4: "unreadable picture"}


def test_a_frame_missing_in_a_constant_rate_file(tmp_path: Path) -> None:
    video = make_video(tmp_path / "001", frames=1)
    video.unlink()
    write(tmp_path / "001" / "vid.mp4", "mpeg4", [number for number in range(1, FRAMES + 1) if number != 4])
    outcomes = read(tmp_path)
    assert shown(outcomes) == {number: number for number in range(1, FRAMES + 1) if number != 4}
    assert reasons(outcomes) == {3: "annotation without frame"}


def test_uneven_times_leave_the_order(tmp_path: Path) -> None:
    make_video(tmp_path / "001", frames=1).unlink()
    numbers = list(range(1, FRAMES + 1))
    write(tmp_path / "001" / "vid.mkv", "mpeg4", numbers, [number * 40 + number % 3 * 11 for number in numbers])
    assert shown(read(tmp_path)) == {number: number for number in numbers}


def write(path: Path, codec: str, numbers: list[int], milliseconds: list[int] | None = None, **options: str) -> None:
    """Write the patterns of these numbers with PyAV, each at its time (default: 25 frames a second)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"qscale": "2", **options})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in zip(numbers, milliseconds or [40 * (n - 1) for n in numbers], strict=True):
            frame = av.VideoFrame.from_ndarray(pattern(number), "bgr24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_a_passing_error_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_video(tmp_path / "001")
    (media,) = open_source("300vw", tmp_path).media()

    def fail(path: Path, *args: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(SourceError, match=r"vid.avi: cannot be read \(Input/output error\)"):
        list(media.read(lambda number: False))


def test_official_split_and_report(tmp_path: Path) -> None:
    for video in ("001", "114", "203", "410", "999"):
        (tmp_path / video / "annot").mkdir(parents=True)
    source = open_source("300vw", tmp_path)
    assert [media.subset for media in source.media()] == ["train", "A", "B", "C", "other"]
    assert [media.name for media in source.media(["B", "other"])] == ["203", "999"]
    assert source.report() == [("train", 1, 50), ("A", 1, 31), ("B", 1, 19), ("C", 1, 14), ("other", 1, None)]


def test_broken_frames_are_flagged(tmp_path: Path) -> None:
    stretches = broken_frames()
    assert len(stretches) == 16
    assert sum(last - first + 1 for ranges in stretches.values() for first, last in ranges) == 2127
    video, first, last = next(
        (video, *stretch) for video, ranges in stretches.items() for stretch in ranges if stretch[1] < 200
    )
    make_video(tmp_path / video, frames=last + 1, labels=last + 1)
    ranges = stretches[video]
    for number, sample in read(tmp_path, skip=frozenset(range(first - 3))):
        assert isinstance(sample, Sample)
        assert sample.flags == (("broken",) if any(a <= number + 1 <= b for a, b in ranges) else ())


@pytest.mark.skipif(not REAL.is_file(), reason="the real video is not here")
def test_real_video_equals_a_plain_read(tmp_path: Path) -> None:
    coded = 158  # the file's edit list hides most of them from decoders that honour it, as cv2 does
    folder = tmp_path / "001"
    (folder / "annot").mkdir(parents=True)
    shutil.copy(REAL, folder / "vid.avi")
    for number in range(1, coded + 1):
        (folder / "annot" / f"{number:06d}.pts").write_bytes(pts(POINTS))
    reference = cv2.VideoCapture(str(REAL))
    (media,) = open_source("300vw", tmp_path).media()
    shown = dropped = 0
    for number, outcome in media.read(lambda number: False):
        assert number == shown + dropped
        if isinstance(outcome, Sample):
            assert np.array_equal(outcome.image(), cv2.cvtColor(reference.read()[1], cv2.COLOR_BGR2RGB))
            shown += 1
        else:
            assert outcome.reason == "annotation without frame"
            dropped += 1
    assert not reference.read()[0]
    assert shown >= 55
    assert shown + dropped == media.expected == coded


def test_frames_are_cut_and_kept_in_their_colours() -> None:
    media = embedded_video()
    work = DecodeTask("300vw", media.name, media, 3, 256, 8, "subpixel", limit=3)
    (chunk,) = work()
    assert chunk.windows is not None
    samples = [outcome for _, outcome in itertools.islice(media.read(lambda number: False), 3)]
    for face, sample, window in zip(chunk.faces, samples, chunk.windows.pixels.array(), strict=True):
        assert isinstance(sample, Sample)
        expected = cut_window(sample.image(), sample.box).pixels
        np.testing.assert_array_equal(window[: expected.shape[0], : expected.shape[1]], expected)
        kept = cut_stored(sample.image(), sample.box)
        assert np.abs(decode_stored(face.picture).astype(int) - kept.pixels).mean() < 2
        assert face.phash == face_hash(kept.pixels, kept.to_picture, sample.box)
