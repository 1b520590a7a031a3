"""`ls3dw gallery`: which faces, in which order, with which points; the same bytes twice; sheets of the worst."""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import Command
from PIL import Image

from ls3dw.core.files import sha256_file
from ls3dw.core.geometry import apply
from ls3dw.core.metrics import FAILURE
from ls3dw.dataset.open import Dataset, open_dataset
from ls3dw.review.gallery.choose import GalleryOptions, choose
from ls3dw.review.gallery.measures import neighbours
from ls3dw.review.gallery.scripts import MISSING, NUMBERS, STEPS, head_script
from ls3dw.review.gallery.tiles import TILE, encode_tile, to_tile
from ls3dw.review.gallery.writer import write_gallery


@pytest.fixture(scope="module")
def data(sample_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sample's data set, to write galleries into."""
    return shutil.copytree(sample_data, tmp_path_factory.mktemp("gallery") / "data")


@pytest.fixture
def dataset(data: Path) -> Dataset:
    return open_dataset(data)


def read_data(folder: Path) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Read data.js as a browser would."""
    text = (folder / "data.js").read_text(encoding="ascii")
    body = text.removeprefix("gallery.start(").removesuffix(");\n")
    return tuple(json.loads(f"[{body}]"))


def read_points(folder: Path) -> np.ndarray:
    parts = []
    for path in sorted(folder.glob("data-*.js")):
        packed = re.fullmatch(r'gallery\.points\(\d+, "([^"]*)"\);\n', path.read_text(encoding="ascii"))
        assert packed
        parts.append(np.frombuffer(base64.b64decode(packed[1]), dtype="<i2").reshape(-1, NUMBERS))
    return np.concatenate(parts)


def test_worst_first(dataset: Dataset) -> None:
    chosen = choose(dataset, GalleryOptions("worst", limit=10))
    errors = dataset.index["nme"].to_numpy()
    assert errors[chosen.rows].tolist() == sorted(errors[np.isfinite(errors)], reverse=True)[:10]
    assert chosen.total == np.isfinite(errors).sum()


@pytest.mark.parametrize("show", ["worst", "failures", "confidence", "disagreement", "pose", "jumps", "random"])
def test_every_show_is_in_its_order(dataset: Dataset, show: str) -> None:
    chosen = choose(dataset, GalleryOptions(show, limit=20))
    scores = chosen.scores if chosen.show.largest else -chosen.scores
    assert (np.diff(scores) <= 0).all()
    assert len(set(chosen.rows.tolist())) == len(chosen.rows) == min(20, chosen.total) > 0


def test_failures_are_those_above_the_threshold(dataset: Dataset) -> None:
    assert choose(dataset, GalleryOptions("failures")).total == int((dataset.index["nme"] > FAILURE).sum())


def test_disagreement_by_a_plain_loop(dataset: Dataset) -> None:
    chosen = choose(dataset, GalleryOptions("disagreement", limit=3))
    for row, score in zip(chosen.rows, chosen.scores, strict=True):
        face = dataset[int(row)]
        width, height = np.ptp(face.landmarks_3d[:, :2], axis=0)
        gaps = [np.hypot(*(face.landmarks_2d[point] - face.landmarks_3d[point, :2])) for point in range(17, 68)]
        assert score == pytest.approx(np.mean(gaps) / np.sqrt(width * height), rel=1e-4)


def test_a_frame_out_of_line_is_a_jump(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steady motion is none, however fast; one frame that is moved by a tenth of the face is the first."""
    rows = np.flatnonzero(dataset.index["media"] == dataset.index["media"][dataset.index["frame"] > 0].iloc[0])
    points = dataset.column("landmarks_3d").copy()
    points[rows] = points[rows[0]] + 9 * np.arange(len(rows))[:, None, None]
    size = np.sqrt(np.prod(np.ptp(points[rows[0], :, :2], axis=0)))
    points[rows[4], :, 0] += 0.1 * size
    monkeypatch.setattr(dataset, "column", lambda name: points)
    scores = choose(dataset, GalleryOptions("jumps", limit=len(dataset)))
    found = dict(zip(scores.rows.tolist(), scores.scores.tolist(), strict=True))
    assert found[rows[4]] == pytest.approx(0.1, rel=1e-3)
    assert [found[rows[3]], found[rows[5]]] == pytest.approx([0.05, 0.05], rel=1e-3)
    assert found[rows[8]] == pytest.approx(0, abs=1e-5)
    assert scores.rows[0] == rows[4] or scores.scores[0] > 0.1, "those of other videos are predictions of tiny networks"
    assert rows[0] not in found, "the first frame has no frame before it"


def test_neighbours_are_the_frames_beside(dataset: Dataset) -> None:
    index = dataset.index
    after = neighbours(dataset, 2)
    for row in range(0, len(dataset), 5):
        if after[row] >= 0:
            assert index["media"][after[row]] == index["media"][row]
            assert index["frame"][after[row]] == index["frame"][row] + 2
    assert (after[index["frame"].to_numpy() == 0] == -1).all()


def test_filters(dataset: Dataset) -> None:
    index = dataset.index
    chosen = choose(dataset, GalleryOptions("random", sources=("300w", "menpo"), yaw=("30-60", "60-90")))
    expected = index["source"].isin(["300w", "menpo"]) & (index["yaw"].abs() > 30) & (index["yaw"].abs() <= 90)
    assert sorted(chosen.rows) == np.flatnonzero(expected).tolist()
    chosen = choose(dataset, GalleryOptions("random", subsets=("indoor",)))
    assert set(index["subset"].iloc[chosen.rows]) == {"indoor"}


def test_the_random_sample_follows_its_seed(dataset: Dataset) -> None:
    first, again, other = (
        choose(dataset, GalleryOptions("random", limit=9, seed=seed)).rows.tolist() for seed in (1, 1, 2)
    )
    assert first == again != other


def test_points_and_pictures_are_those_of_the_faces(dataset: Dataset) -> None:
    written = write_gallery(dataset, GalleryOptions("worst", limit=7))
    folder = written.page.parent
    head, faces = read_data(folder)
    assert (head["shown"], written.faces) == (7, 7)
    points = read_points(folder)
    assert len(points) == len(faces["id"]) >= 7
    for number, name in enumerate(faces["id"]):
        face = dataset[name]
        stored = np.where(points[number] == MISSING, np.nan, points[number] / STEPS)
        expected = (face.annotation, face.landmarks_2d, face.landmarks_3d)
        whole = np.concatenate([face.to_picture(each).ravel() for each in expected])
        inside = np.abs(whole) < 2000
        np.testing.assert_allclose(stored[inside], whole[inside], atol=0.5 / STEPS)
        np.testing.assert_array_equal(np.isnan(stored), np.isnan(whole))
        zoom, x, y = faces["view"][number]
        mapped = apply(to_tile(face), face.to_picture(face.landmarks_2d).astype(np.float64))
        np.testing.assert_allclose(stored[136:272].reshape(68, 2) * zoom + (x, y), mapped, atol=0.1)
        assert faces["size"][number] == [face.image.shape[1], face.image.shape[0]]
    full = sorted((folder / "full").iterdir())
    assert [path.read_bytes() for path in full] == [dataset[name].jpeg.tobytes() for name in faces["id"][:7]]


@pytest.mark.parametrize("zoomed", [0.2, 0.4, 1.3])
def test_a_tile_shows_what_lies_under_its_points(dataset: Dataset, zoomed: float) -> None:
    """A white spot in a kept picture comes to where the affine says, at every reduction: within half a pixel."""
    side = TILE / zoomed / 1.6
    face = dataset[0]
    picture = np.zeros((1200, 1200, 3), dtype=np.uint8)
    spot = np.array([590.0, 610.0])
    radius = 10 / zoomed
    cv2.circle(picture, (590, 610), round(radius), (255, 255, 255), -1)
    jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].ravel()
    box = np.array([600 - side / 2, 600 - side / 2, 600 + side / 2, 600 + side / 2], dtype=np.float32)
    values = {name: getattr(face, name) for name in face.__dataclass_fields__}
    made = type(face)(**{**values, "jpeg": jpeg, "box": box, "picture_affine": np.eye(3)[:2]})
    assert to_tile(made)[0, 0] == pytest.approx(zoomed)
    tile = cv2.imdecode(np.frombuffer(encode_tile(made), dtype=np.uint8), cv2.IMREAD_GRAYSCALE).astype(float)
    ys, xs = np.indices(tile.shape)
    tile[tile < 40] = 0
    centre = np.array([(tile * xs).sum(), (tile * ys).sum()]) / tile.sum()
    np.testing.assert_allclose(centre, apply(to_tile(made), spot[None])[0], atol=0.3)


def test_frames_beside_come_along(dataset: Dataset) -> None:
    folder = write_gallery(dataset, GalleryOptions("jumps", limit=2)).page.parent
    head, faces = read_data(folder)
    assert len(faces["id"]) > head["shown"] == 2
    for number in range(2):
        beside = [faces["frame"][other] - faces["frame"][number] for other in faces["beside"][number]]
        assert beside
        assert set(beside) <= {-2, -1, 1, 2}
        assert {faces["media"][other] for other in faces["beside"][number]} == {faces["media"][number]}
    assert len(list((folder / "full").iterdir())) == 2
    assert len(list((folder / "tiles").iterdir())) == len(faces["id"])


def test_written_twice_it_has_the_same_bytes(ls3dw: Command, data: Path, tmp_path: Path) -> None:
    words = ("gallery", data, "--show", "worst", "--show", "random", "--limit", "12")
    found = []
    for name in ("a", "b"):
        ended = ls3dw(*words, "--sheet", tmp_path / f"{name}.pdf", "--json")
        pages = [Path(each["page"]).parent for each in json.loads(ended.out)["galleries"]]
        assert [page.name for page in pages] == ["worst", "random"]
        files = [path for page in pages for path in sorted(page.rglob("*")) if path.is_file()]
        found.append({path: sha256_file(path) for path in files})
    assert found[0] == found[1]
    assert len(found[0]) > 50
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()
    assert {path.name for path in (data / "galleries" / "v1").iterdir() if path.name.startswith(".")} == set()


def test_without_the_full_pictures(ls3dw: Command, data: Path) -> None:
    ended = ls3dw("gallery", data, "--show", "confidence", "--limit", "3", "--no-full", "--json")
    written = json.loads(ended.out)["galleries"][0]
    folder = Path(written["page"]).parent
    assert list((folder / "full").iterdir()) == []
    assert written["bytes"] == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_changed_since_a_version(ls3dw: Command, data: Path) -> None:
    ended = ls3dw("gallery", data, "--show", "changed:v1")
    assert (ended.status, "that is the version itself" in ended.error) == (1, True)
    ended = ls3dw("gallery", data, "--show", "changed:v0")
    assert (ended.status, "no version 'v0'" in ended.error) == (1, True)


def test_what_was_left_out(ls3dw: Command, data: Path) -> None:
    assert ls3dw("gallery", data, "--show", "drops").status == 0
    head, faces = read_data(data / "galleries" / "v1" / "drops")
    assert (head["pictures"], set(faces)) == (False, {"id", "source", "reason", "detail"})


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("--show", "best"), "--show best: choose from worst"),
        (("--show", "changed"), "changed:VERSION"),
        (("--show", "worst:v1"), "--show worst:v1"),
        (("--source", "lfw"), "no source lfw in it"),
        (("--subset", "lfw"), "no subset lfw in it"),
        (("--yaw", "10-20"), "--yaw 10-20: choose from 0-30"),
        (("--show", "drops", "--yaw", "0-30"), "has no subset and no yaw"),
        (("--sheet", "worst.gif"), "ends in .png or .pdf"),
    ],
)
def test_what_cannot_be_shown(ls3dw: Command, data: Path, words: tuple[str, ...], fault: str) -> None:
    ended = ls3dw("gallery", data, *words)
    assert (ended.status, ended.out) == (1, "")
    assert fault in ended.error


def test_data_cannot_leave_its_script() -> None:
    nasty = "</script><img src=x onerror=alert(1)>\u2028'\"`${1}\\"
    script = head_script({"title": nasty}, {"id": [nasty]}).decode("ascii")
    assert "<" not in script
    assert json.loads(f"[{script.removeprefix('gallery.start(').removesuffix(');' + chr(10))}]")[1]["id"] == [nasty]


def test_sheet_of_the_worst(ls3dw: Command, data: Path, tmp_path: Path) -> None:
    for name in ("worst.png", "worst.pdf"):
        ended = ls3dw("gallery", data, "--sheet", tmp_path / name)
        assert ended.status == 0
        assert ended.out == f"{tmp_path / name}  the worst of 300vw, 300w, aflw2000, menpo\n"
    assert (tmp_path / "worst.pdf").read_bytes().count(b"/Type /Page\n") == 4
    with Image.open(tmp_path / "worst.png") as sheet:
        pixels = np.asarray(sheet)
    assert (pixels == (255, 48, 40)).all(axis=2).sum() > 1000, "annotations in red"
