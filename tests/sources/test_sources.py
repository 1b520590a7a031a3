"""The readers of stills: layouts, conventions, and a reason for everything that is left out."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import pickle
import shutil
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers import pts
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import loadmat, savemat

from ls3dw.core.crops import cut_stored, cut_window
from ls3dw.core.formats.mat import read_arrays
from ls3dw.core.formats.pictures import decode_picture
from ls3dw.core.geometry import apply, compose, invert
from ls3dw.core.sample import Drop, Sample
from ls3dw.errors import PictureError, SourceError
from ls3dw.sources import SOURCES, Source, open_source
from ls3dw.sources.aflw2000 import parse_mat
from ls3dw.sources.face import Rejected, printable

REAL = Path(__file__).parents[3] / "shared" / "real" / "AFLW2000"
WIDTH, HEIGHT = 40, 30


def points(count: int = 68, seed: int = 0) -> np.ndarray:
    """1-based points, as files have them."""
    return np.random.default_rng(seed).uniform(2, 28, (count, 2)).round(3)


def png(mode: str = "RGB") -> bytes:
    pixels = np.random.default_rng(1).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


def mat(**fields: object) -> bytes:
    solid = np.vstack((points().T, np.linspace(-9, 9, 68))).astype(np.float32)
    flat = np.full((2, 21), 7.0)
    flat[:, 3] = -1
    pose = np.radians([[10.0, -20.0, 30.0, 0, 0, 0, 0]])
    buffer = io.BytesIO()
    savemat(buffer, {"pt3d_68": solid, "pt2d": flat, "Pose_Para": pose, **fields})
    return buffer.getvalue()


def put(folder: Path, stem: str, picture: bytes | None, annotation: bytes | None, suffix: str = ".pts") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if picture is not None:
        (folder / f"{stem}.png").write_bytes(picture)
    if annotation is not None:
        (folder / f"{stem}{suffix}").write_bytes(annotation)


def reasons(source: Source) -> dict[str, str]:
    return {drop.id: drop.reason for drop in source.drops}


@pytest.mark.parametrize("outer", ["", "300W/"])
def test_300w_layouts_give_the_same_faces(tmp_path: Path, outer: str) -> None:
    put(tmp_path / outer / "01_Indoor", "indoor_001", png(), pts(points()))
    put(tmp_path / outer / "02_Outdoor", "outdoor_087_0", png(), pts(points()))
    put(tmp_path / "ibug", "image_092 _01", png(), pts(points()))
    source = open_source("300w", tmp_path)
    first, second = source
    assert (first.id, second.id) == ("300w/01_Indoor/indoor_001", "300w/02_Outdoor/outdoor_087_0")
    assert (first.subset, first.media) == ("indoor", f"{outer}01_Indoor/indoor_001.png")
    np.testing.assert_array_equal(first.annotation, (points() - 1).astype(np.float32))
    np.testing.assert_array_equal(first.box, [*first.annotation.min(0), *first.annotation.max(0)])
    assert first.image().shape == (HEIGHT, WIDTH, 3)
    assert source.report() == [("indoor", 1, 300), ("outdoor", 1, 300), ("ibug", 1, 135)]
    (media,) = source.media(["ibug"])
    ((_, outcome),) = media.read(lambda number: False)
    assert outcome.id == "300w/ibug/image_092 _01"


def test_training_parts_are_read_only_when_asked_for(tmp_path: Path) -> None:
    put(tmp_path / "helen" / "trainset", "1", png(), pts(points()))
    source = open_source("300w", tmp_path)
    with pytest.raises(SourceError, match="only helen-train; ask for them with --subset"):
        source.media()
    with pytest.raises(SourceError, match="no subset indoor"):
        source.media(["indoor"])
    assert [media.name for media in source.media(["helen-train"])] == ["helen-train"]


def test_half_a_test_set_is_reported(tmp_path: Path) -> None:
    put(tmp_path / "01_Indoor", "indoor_001", png(), pts(points()))
    assert open_source("300w", tmp_path).report() == [("indoor", 1, 300), ("outdoor", 0, 300)]


def test_every_fault_has_its_reason_and_loses_no_neighbour(tmp_path: Path) -> None:
    folder = tmp_path / "01_Indoor"
    outlier, flat = points(), points()
    outlier[5, 1], flat[:, 0] = np.nan, 7
    faults = {
        "missing picture": (None, pts(points())),
        "missing annotation": (png(), None),
        "malformed annotation": (png(), b"68 points"),
        "wrong number of points": (png(), pts(points(67))),
        "non-finite points": (png(), pts(outlier)),
        "empty box": (png(), pts(flat)),
        "outside picture": (png(), pts(points() + 1000)),
        "unreadable picture": (png()[:-800], pts(points())),
    }
    for index, (picture, annotation) in enumerate(faults.values()):
        put(folder, f"{index}_bad", picture, annotation)
        put(folder, f"{index}_good", png(), pts(points(seed=index)))
    more = {"empty": b"", "fake": b"<html>", "sixteen": sixteen_bits()}
    for stem, picture in more.items():
        put(folder, stem, picture, pts(points()))
    put(folder, "huge", png(), pts(points() * 1e300))
    put(folder, "twice", png(), pts(points()))
    (folder / "twice.jpg").write_bytes(png())
    (folder / "broken_link.png").symlink_to(tmp_path / "nowhere")
    put(folder, "broken_link", None, pts(points()))
    (folder / "folder.png").mkdir()
    put(folder, "folder", None, pts(points()))

    source = open_source("300w", tmp_path)
    good = list(source)
    assert [sample.id for sample in good] == [f"300w/01_Indoor/{i}_good" for i in range(len(faults))]
    expected = {f"300w/01_Indoor/{i}_bad": reason for i, reason in enumerate(faults)}
    expected |= {f"300w/01_Indoor/{stem}": "unreadable picture" for stem in (*more, "broken_link", "folder")}
    expected |= {"300w/01_Indoor/huge": "non-finite points", "300w/01_Indoor/twice": "repeated id"}
    assert reasons(source) == expected
    assert len(good) + len(source.drops) == sum(media.expected for media in source.media())
    assert all(" at 0x" not in drop.detail for drop in source.drops)


@pytest.mark.parametrize(
    ("name", "kind", "mode"),
    [
        ("a.jfif", "JPEG", "RGB"),
        ("b.JPE", "JPEG", "RGB"),
        ("c.pgm", "PPM", "L"),
        ("d.pbm", "PPM", "1"),
        ("e.pnm", "PPM", "RGB"),
        ("g.tif", "TIFF", "RGB"),
        ("__h.png", "PNG", "RGB"),
        (".i.webp", "WEBP", "RGB"),
    ],
)
def test_every_suffix_and_name_of_a_picture_is_read(tmp_path: Path, name: str, kind: str, mode: str) -> None:
    folder = tmp_path / "01_Indoor"
    folder.mkdir()
    Image.open(io.BytesIO(png(mode))).save(folder / name, kind)
    (folder / name).with_suffix(".pts").write_bytes(pts(points()))
    (sample,) = open_source("300w", tmp_path)
    assert sample.image().shape == (HEIGHT, WIDTH, 3)


def test_files_of_operating_systems_are_no_faces(tmp_path: Path) -> None:
    folder = tmp_path / "01_Indoor"
    put(folder, "a", png(), pts(points()))
    for junk in ("._a.png", "._a.pts", "Thumbs.db", "desktop.ini", ".DS_Store"):
        (folder / junk).write_bytes(b"\0\5\x16\7")
    put(tmp_path / "__MACOSX" / "01_Indoor", "._a", b"", b"")
    source = open_source("300w", tmp_path)
    assert [sample.id for sample in source] == ["300w/01_Indoor/a"]
    assert not source.drops


def test_a_missing_file_names_what_may_be_meant(tmp_path: Path) -> None:
    folder = tmp_path / "01_Indoor"
    put(folder, "animation", None, pts(points()))
    (folder / "animation.gif").write_bytes(png())
    put(folder, "Upper", png(), None)
    put(folder, "upper", None, pts(points()))
    put(folder, unicodedata.normalize("NFC", "caf\xe9"), png(), None)
    put(folder, unicodedata.normalize("NFD", "caf\xe9"), None, pts(points()))
    source = open_source("300w", tmp_path)
    assert not list(source)
    details = {drop.id.rpartition("/")[2]: drop.detail for drop in source.drops}
    assert len(details) == 5
    assert "animation.gif is not read: pictures are .bmp, " in details["animation"]
    assert "'upper'.pts has another letter case than 'Upper'" in details["Upper"]
    assert "has another Unicode form (NFC, NFD) than 'caf\\xe9'" in details["caf\xe9"]


def test_a_passing_error_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "01_Indoor", "a", png(), pts(points()))
    put(tmp_path / "01_Indoor", "b", png(), pts(points()))
    source = open_source("300w", tmp_path)
    for number in (errno.EIO, errno.EMFILE, errno.ESTALE, errno.ENOMEM, errno.EACCES):
        for suffix in (".pts", ".png"):

            def fail(path: Path, number: int = number, suffix: str = suffix) -> bytes:
                if path.name == f"b{suffix}":
                    raise OSError(number, os.strerror(number), str(path))
                with path.open("rb") as file:
                    return file.read()

            with monkeypatch.context() as patch:
                patch.setattr(Path, "read_bytes", fail)
                with pytest.raises(SourceError, match=rf"b\{suffix}: cannot be read .* run again"):
                    list(source)
                assert not source.drops


def sixteen_bits() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), 4000, dtype=np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()


def test_names_that_are_not_text(tmp_path: Path) -> None:
    folder = tmp_path / "01_Indoor"
    folder.mkdir()
    Path(os.fsdecode(bytes(folder) + b"/caf\xe9\n.png")).write_bytes(png())
    Path(os.fsdecode(bytes(folder) + b"/caf\xe9\n.pts")).write_bytes(pts(points()))
    (sample,) = open_source("300w", tmp_path)
    assert sample.id == "300w/01_Indoor/caf\\udce9\\n"
    assert sample.media.isprintable()


@given(st.text())
def test_printable(text: str) -> None:
    assert printable(text).isprintable()


def test_media_are_small_picklable_pieces(tmp_path: Path) -> None:
    for index in range(5):
        put(tmp_path / "01_Indoor", f"{index}", png(), pts(points()))
    media = pickle.loads(pickle.dumps(open_source("300w", tmp_path).media(piece=2)))  # noqa: S301 - our own bytes
    assert [(piece.name, piece.start, piece.expected) for piece in media] == [
        ("indoor", 0, 2),
        ("indoor", 2, 2),
        ("indoor", 4, 1),
    ]
    ((number, outcome),) = media[1].read(lambda number: number == 2)
    assert number == 3
    assert isinstance(outcome, Sample)
    assert outcome.id == "300w/01_Indoor/3"
    assert outcome.image() is outcome.image(), "decoded twice"


def test_menpo_flat_folder_with_both_mark_ups(tmp_path: Path) -> None:
    outline = np.column_stack((np.linspace(5, 25, 12), np.linspace(5, 25, 12)))
    profile = np.vstack((outline, points(27)))
    put(tmp_path, "aflw__face_39844", png(), pts(points()))
    put(tmp_path, "aflw__face_40000", png(), pts(profile))
    put(tmp_path, "aflw__face_40001", png(), pts(profile * (-1, 1) + (30, 0)))
    frontal, left, right = open_source("menpo", tmp_path)
    assert frontal.id == "menpo/aflw__face_39844"
    assert [int(sample.extra["side"]) for sample in (frontal, left, right)] == [0, 1, -1]
    assert np.isnan(frontal.extra["profile"]).all()
    assert np.isnan(left.annotation).all()
    np.testing.assert_array_equal(left.extra["profile"], (profile - 1).astype(np.float32))
    np.testing.assert_array_equal(left.box, [*left.extra["profile"].min(0), *left.extra["profile"].max(0)])


def test_menpo_profile_that_is_not_finite(tmp_path: Path) -> None:
    put(tmp_path, "aflw__face_1", png(), pts(np.full((39, 2), np.inf)))
    source = open_source("menpo", tmp_path)
    assert list(source) == []
    assert reasons(source) == {"menpo/aflw__face_1": "non-finite points"}


def test_aflw2000_pose_that_is_nonsense(tmp_path: Path) -> None:
    put(tmp_path, "a", png(), mat(Pose_Para=np.full((1, 7), 1e38)), ".mat")
    put(tmp_path, "b", png(), mat(Pose_Para=np.full((1, 7), 1e300)), ".mat")
    assert [sample.yaw for sample in open_source("aflw2000", tmp_path)] == [None, None]


def test_menpo_released_again(tmp_path: Path) -> None:
    put(tmp_path / "Menpo2D" / "Train" / "image" / "profile", "aflw__face_1", png(), pts(points(39)))
    put(tmp_path / "Menpo2D" / "Test" / "image" / "semifrontal", "aflw__face_2", png(), pts(points(40)))
    source = open_source("menpo", tmp_path)
    assert [(sample.id, sample.subset) for sample in source] == [("menpo/aflw__face_1", "train")]
    assert reasons(source) == {"menpo/aflw__face_2": "wrong number of points"}
    assert source.report() == [("train", 1, 8943), ("test", 1, 7281)]


def test_aflw2000_fields(tmp_path: Path) -> None:
    put(tmp_path / "AFLW2000", "image00002", png(), mat(), ".mat")
    (sample,) = open_source("aflw2000", tmp_path)
    assert sample.id == "aflw2000/image00002"
    np.testing.assert_allclose(sample.annotation, points() - 1, atol=1e-5)
    np.testing.assert_allclose(sample.extra["z"], np.linspace(-9, 9, 68), atol=1e-5)
    np.testing.assert_allclose(sample.extra["pose"], [-20, 10, 30], atol=1e-4)
    assert sample.yaw == pytest.approx(-20)
    assert np.flatnonzero(np.isnan(sample.extra["pt2d"]).all(axis=1)).tolist() == [3]
    assert sample.extra["pt2d"][0].tolist() == [6, 6]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "malformed annotation"),
        (b"MATLAB 5.0 MAT-file" * 20, "malformed annotation"),
        (mat()[:-300], "malformed annotation"),
        (mat(pt3d_68="text"), "malformed annotation"),
        (mat(pt3d_68=np.ones((2, 68))), "malformed annotation"),
        (mat(pt3d_68=np.ones((3, 21))), "wrong number of points"),
        (mat(pt3d_68=np.full((3, 68), np.inf)), "non-finite points"),
        (mat(pt3d_68=np.full((3, 68), 1e300)), "non-finite points"),
        (b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(600), "malformed annotation"),
    ],
)
def test_aflw2000_faults(tmp_path: Path, data: bytes, reason: str) -> None:
    put(tmp_path, "a", png(), data, ".mat")
    put(tmp_path, "b", png(), mat(), ".mat")
    source = open_source("aflw2000", tmp_path)
    assert [sample.id for sample in source] == ["aflw2000/b"]
    assert reasons(source) == {"aflw2000/a": reason}


def test_what_aflw2000_need_not_have_never_costs_a_face(tmp_path: Path) -> None:
    put(tmp_path, "a", png(), mat(pt2d=np.ones((2, 23)), Pose_Para=np.ones((1, 2))), ".mat")
    put(tmp_path, "b", png(), mat(pt2d="text", Pose_Para="text"), ".mat")
    put(tmp_path, "c", png(), mat(), ".mat")
    source = open_source("aflw2000", tmp_path)
    odd, absent, whole = source
    for sample in (odd, absent):
        assert sample.yaw is None
        assert np.isnan(sample.extra["pt2d"]).all()
        assert np.isnan(sample.extra["pose"]).all()
        np.testing.assert_array_equal(sample.annotation, whole.annotation)
    assert odd.flags == ("odd pt2d", "odd Pose_Para")
    assert source.notes == {"odd pt2d": 1, "odd Pose_Para": 1}
    assert not source.drops


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(600), "a Matlab 7.3 file, which is HDF5; save it again"),
        (b"x" * 200, "not a Matlab 5 file"),
        (mat(pt3d_68="text"), "no numeric pt3d_68"),
    ],
)
def test_a_mat_file_that_cannot_be_read_names_the_cause(data: bytes, cause: str) -> None:
    with pytest.raises(Rejected, match=cause):
        parse_mat(data)


@pytest.mark.parametrize("compressed", [False, True])
def test_matlab_arrays_are_as_scipy_reads_them(compressed: bool) -> None:
    rng = np.random.default_rng(0)
    written = {
        "double": rng.normal(size=(3, 68)),
        "single": rng.normal(size=(2, 3, 4)).astype(np.float32),
        "bytes": np.array([[1, 200]], dtype=np.uint8),
        "signed": np.array([[-5]], dtype=np.int16),
        "none": np.empty((0, 3)),
    }
    buffer = io.BytesIO()
    others = {"text": "words", "cell": np.array([1, "a"], dtype=object), "complex": np.array([1j])}
    savemat(buffer, {**others, **written}, do_compression=compressed)
    arrays = read_arrays(buffer.getvalue(), [*written, *others])
    assert arrays.keys() == written.keys()
    buffer.seek(0)
    for name, reference in loadmat(buffer, variable_names=list(written)).items():
        if name in written:
            np.testing.assert_array_equal(arrays[name], reference)


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, len(mat()) - 1), value=st.binary(min_size=1, max_size=8))
def test_a_damaged_mat_file_is_a_face_or_a_fault(position: int, value: bytes) -> None:
    whole = mat()
    with contextlib.suppress(Rejected):
        assert parse_mat(whole[:position] + value + whole[position + len(value) :]).points.shape == (68, 2)


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, len(png()) - 1), value=st.binary(min_size=1, max_size=8))
def test_a_damaged_picture_is_a_picture_or_an_error(position: int, value: bytes) -> None:
    whole = png()
    with contextlib.suppress(PictureError):
        assert decode_picture(whole[:position] + value + whole[position + len(value) :]).pixels.dtype == np.uint8


def test_pictures_become_rgb_as_stored() -> None:
    image = Image.fromarray(np.zeros((2, 3, 3), dtype=np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6  # shown turned by 90 degrees
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    assert decode_picture(buffer.getvalue()).pixels.shape == (2, 3, 3)
    for mode in ("L", "P", "RGBA", "1"):
        assert decode_picture(png(mode)).pixels.shape == (HEIGHT, WIDTH, 3)


def test_what_decodes_to_too_much_is_refused() -> None:
    buffer = io.BytesIO()
    Image.new("1", (40_000, 40_000)).save(buffer, "PNG")
    with pytest.raises(PictureError, match="40000x40000 pixels decode to 1600000000 bytes; the limit is 1073741824"):
        decode_picture(buffer.getvalue())


KINDS = (("PNG", "RGB"), ("PNG", "P"), ("PNG", "1"), ("JPEG", "RGB"), ("JPEG", "CMYK"))


@pytest.mark.parametrize(("kind", "mode"), KINDS)
def test_a_large_picture_is_reduced(kind: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small = np.zeros((11, 13, 3), np.uint8)
    small[4, 5] = 255
    image = Image.fromarray(small.repeat(8, 0).repeat(8, 1)[:-1, :-1]).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind)
    whole = decode_picture(buffer.getvalue())
    assert (whole.size, whole.reduction, whole.pixels.shape) == ((103, 87), 1, (87, 103, 3))
    monkeypatch.setattr("ls3dw.core.formats.pictures.WHOLE_PIXELS", 1000)
    reduced = decode_picture(buffer.getvalue())
    assert (reduced.size, reduced.reduction, reduced.pixels.shape) == ((103, 87), 4, (22, 26, 3))
    assert reduced.pixels[8:10, 10:12].min() > 200
    assert np.median(reduced.pixels) < 10


def test_a_reduced_picture_keeps_coordinates_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = np.meshgrid(np.arange(256), np.arange(192))
    pixels = np.stack((x, y, 0 * x), axis=2).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    marks = points() * 5
    put(tmp_path / "01_Indoor", "a", buffer.getvalue(), pts(marks))
    (whole,) = open_source("300w", tmp_path)
    monkeypatch.setattr("ls3dw.core.formats.pictures.WHOLE_PIXELS", 20_000)
    (reduced,) = open_source("300w", tmp_path)
    assert reduced.image().shape == (96, 128, 3)
    assert (reduced.size, reduced.reduction) == ((256, 192), 2)
    np.testing.assert_array_equal(reduced.annotation, whole.annotation)
    np.testing.assert_array_equal(reduced.box, whole.box)
    first, second = (cut_window(one.image(), one.box, "subpixel", one.reduction) for one in (whole, reduced))
    np.testing.assert_allclose(first.crop, second.crop, atol=1e-9)
    kept = [cut_stored(one.image(), one.box, one.reduction) for one in (whole, reduced)]
    # Red is x and green is y: each pixel names the place in the file that it shows.
    to_window = compose(invert(second.to_crop), second.crop)
    for cut, to_own in ((second.pixels, to_window), (kept[1].pixels, kept[1].to_picture)):
        spot = np.array([[60.5, 70.5]])
        column, row = np.rint(apply(to_own, spot)[0]).astype(int)
        shown = apply(invert(to_own), np.array([[column, row]], dtype=float))[0]
        np.testing.assert_allclose(cut[row, column, :2], shown, atol=1.01)


@pytest.mark.parametrize("name", SOURCES)
def test_a_wrong_root_is_said_in_one_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match="not a folder"):
        open_source(name, tmp_path / "missing")
    with pytest.raises(SourceError, match="empty"):
        open_source(name, tmp_path)
    (tmp_path / "readme.txt").touch()
    with pytest.raises(SourceError, match=f"(?s)expected .*--root {name}=DIR") as caught:
        open_source(name, tmp_path)
    assert "\n" not in str(caught.value)


def test_an_ambiguous_root_is_refused_unless_a_name_settles_it(tmp_path: Path) -> None:
    put(tmp_path / "first", "a", png(), mat(), ".mat")
    put(tmp_path / "second", "a", png(), mat(), ".mat")
    with pytest.raises(SourceError, match="first, second"):
        open_source("aflw2000", tmp_path)
    put(tmp_path / "AFLW2000", "a", png(), mat(), ".mat")
    (sample,) = open_source("aflw2000", tmp_path)
    assert sample.media == "AFLW2000/a.png"


def test_unknown_source(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="choose from 300w"):
        open_source("lfw", tmp_path)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real pictures are not here")
def test_real_aflw2000(tmp_path: Path) -> None:
    shutil.copytree(REAL, tmp_path / "AFLW2000")
    (tmp_path / "AFLW2000" / "image00002.jpg").write_bytes(b"\xff\xd8 cut")
    source = open_source("aflw2000", tmp_path)
    samples = list(source)
    assert len(samples) == 8
    assert Counter(drop.reason for drop in source.drops) == {"missing annotation": 1}
    for sample in samples:
        fields = loadmat(REAL / f"{sample.id.split('/')[1]}.mat")
        np.testing.assert_array_equal(sample.annotation, (fields["pt3d_68"][:2].T.astype(float) - 1).astype(np.float32))
        assert sample.yaw == pytest.approx(np.degrees(fields["Pose_Para"][0, 1]), abs=1e-4)
        assert sample.image().shape == (450, 450, 3)
    assert min(sample.yaw or 0 for sample in samples) < -50
    assert isinstance(source.drops[0], Drop)
