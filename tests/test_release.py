"""LS3D-W as released: the reader, the version without networks, and the origins of the balanced set."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import release
from conftest import Command
from helpers import REAL

from ls3dw.building.options import BuildOptions
from ls3dw.core.formats import t7
from ls3dw.core.pose import head_pose
from ls3dw.core.resources import folder
from ls3dw.dataset.open import open_dataset
from ls3dw.errors import SourceError
from ls3dw.sources import open_source
from ls3dw.sources.face import Rejected
from ls3dw.sources.release import parse_t7

PUBLISHED = ("--annotations", "published", "--workers", "0")
SUBSETS = ["300vw-train", "300vw-a", "300vw-b", "300vw-c", "300w", "menpo", "aflw2000"]
BINS = ["balanced-0-30", "balanced-30-60", "balanced-60-90"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return release.make_release(tmp_path / "LS3D-W")


def build(ls3dw: Command, root: Path, out: Path, *words: object) -> None:
    ended = ls3dw("build", "--source", "ls3dw", "--root", root, "--out", out, *PUBLISHED, *words)
    assert ended.status == 0, ended.err


def test_every_folder_is_a_subset_and_every_point_is_as_written(root: Path) -> None:
    source = open_source("ls3dw", root)
    assert list(source.subsets) == SUBSETS
    samples = {sample.id: sample for sample in source}
    assert source.drops == []
    assert set(samples) == {f"ls3dw/{place}" for place in release.PLACES}
    for place, number in release.PLACES.items():
        sample = samples[f"ls3dw/{place}"]
        truth = release.faces()[number]
        np.testing.assert_array_equal(sample.annotation, release.released(truth))
        np.testing.assert_array_equal(sample.box, [*sample.annotation.min(0), *sample.annotation.max(0)])
        assert sample.image().shape == truth.image().shape
        assert sample.media.rpartition(".")[0] == place
    assert samples["ls3dw/300VW-3D/CatA/114/0002"].subset == "300vw-a"
    np.testing.assert_array_equal(samples["ls3dw/300W-Testset-3D/indoor_001"].image(), release.faces()[5].image())


def test_published_counts_are_reported(root: Path) -> None:
    expected = {count.subset: (count.found, count.expected) for count in open_source("ls3dw", root).report()}
    assert expected == {
        "300vw-train": (1, None),
        "300vw-a": (2, 62643),
        "300vw-b": (1, 32872),
        "300vw-c": (1, 27245),
        "300w": (1, 600),
        "menpo": (1, 8955),
        "aflw2000": (1, 2000),
    }


@pytest.mark.parametrize("name", ["LS3D-W_balanced", "new_dataset", "LS3D-W_balanced/new_dataset"])
def test_balanced_bins_by_number_and_only_when_asked_for(root: Path, name: str) -> None:
    for number in range(1, 8):
        release.put(root, f"{name}/{number}", number)
    release.put(root, f"{name}/cover", 8)
    source = open_source("ls3dw", root)
    assert list(source.subsets) == [*SUBSETS, *BINS, "balanced-other"]
    assert list(source.default_subsets) == SUBSETS
    by_bin = {
        media.subset: [outcome.id.rpartition("/")[2] for _, outcome in media.read(lambda number: False)]
        for media in source.media(["balanced"])
    }
    assert by_bin == {BINS[0]: ["1", "4", "7"], BINS[1]: ["2", "5"], BINS[2]: ["3", "6"], "balanced-other": ["cover"]}
    assert [media.subset for media in source.media(["balanced-30-60", "300w"])] == ["300w", "balanced-30-60"]


def test_the_balanced_set_alone_is_read(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        release.put(tmp_path, f"new_dataset/{number}", number)
    for root in (tmp_path, tmp_path / "new_dataset"):
        source = open_source("ls3dw", root)
        assert [sample.id for sample in source] == [f"ls3dw/new_dataset/{number}" for number in (1, 2, 3)]


def test_one_of_its_folders_as_the_root(root: Path) -> None:
    assert [sample.subset for sample in open_source("ls3dw", root / "Menpo-3D")] == ["menpo"]
    assert len(list(open_source("ls3dw", root / "300VW-3D"))) == 5


def test_two_balanced_folders_are_ambiguous(root: Path) -> None:
    release.put(root, "new_dataset/1", 1)
    release.put(root, "LS3D-W_balanced/1", 1)
    with pytest.raises(SourceError, match="LS3D-W_balanced and new_dataset could each be the balanced set"):
        open_source("ls3dw", root)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
def test_tensors_of_any_numbers(dtype: type) -> None:
    points = release.released(release.faces()[0]).astype(dtype)
    np.testing.assert_array_equal(parse_t7(t7.dumps(points)).annotation, points.astype(np.float32))


def test_a_transposed_view_is_read_as_what_it_shows() -> None:
    points = release.released(release.faces()[0])
    np.testing.assert_array_equal(parse_t7(t7.dumps(points.T.copy().T)).annotation, points)


good = np.arange(136, dtype=np.float64).reshape(68, 2)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "malformed annotation"),
        (t7.dumps(good)[:-1], "malformed annotation"),
        (b"version: 1\nn_points: 68\n", "malformed annotation"),
        (t7.dumps({"points": good}), "malformed annotation"),
        (t7.dumps(good.ravel()), "malformed annotation"),
        (t7.dumps(good.T.copy()), "malformed annotation"),
        (t7.dumps(np.zeros((68, 3))), "malformed annotation"),
        (t7.dumps(np.zeros((67, 2))), "wrong number of points"),
        (t7.dumps(np.where(good == 7, np.nan, good)), "non-finite points"),
        (t7.dumps(np.where(good == 7, 1e300, good)), "non-finite points"),
        (t7.dumps(np.zeros((68, 2))), "empty box"),
        (t7.dumps(good + 10_000), "outside picture"),
    ],
)
def test_every_fault_is_a_drop_and_loses_no_neighbour(root: Path, data: bytes, reason: str) -> None:
    release.put(root, "Menpo-3D/bad", 8)
    (root / "Menpo-3D" / "bad.t7").write_bytes(data)
    source = open_source("ls3dw", root)
    assert len(list(source)) == len(release.PLACES)
    assert [(drop.id, drop.reason) for drop in source.drops] == [("ls3dw/Menpo-3D/bad", reason)]


def test_a_damaged_tensor_is_rejected_whatever_it_is() -> None:
    whole = t7.dumps(good)
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(whole)
        data[rng.integers(0, 80)] = rng.integers(0, 256)
        with contextlib.suppress(Rejected):
            assert parse_t7(bytes(data)).annotation.shape == (68, 2)


def test_published_points_become_a_version(ls3dw: Command, root: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    build(ls3dw, root, out)
    dataset = open_dataset(out)
    assert (dataset.version, len(dataset)) == ("published", len(release.PLACES))
    assert dataset.manifest["configuration"]["models"] == {"2d": None, "3d": None, "depth": None}
    for place, number in release.PLACES.items():
        face = dataset[f"ls3dw/{place}"]
        points = release.released(release.faces()[number]).astype(np.float32)
        np.testing.assert_array_equal(face.landmarks_3d[:, :2], points)
        np.testing.assert_array_equal(face.annotation, points)
        assert np.isnan(face.landmarks_3d[:, 2]).all()
        assert np.isnan(face.landmarks_2d).all()
        assert np.isnan([*face.confidence_2d, *face.confidence_3d, face.nme]).all()
        np.testing.assert_allclose(face.pose, head_pose(points[None])[0])
    assert ls3dw("verify", out).status == 0
    assert "none, the points as published" in ls3dw("info", out).out
    assert "no network ran" in (out / "DATASET_CARD.md").read_text()
    assert ls3dw("evaluate", out).status == 1, "there is nothing to compare it with"


def test_a_network_makes_a_second_version_of_the_same_pictures(
    ls3dw: Command, root: Path, tmp_path: Path, quick: list[str]
) -> None:
    out = tmp_path / "data"
    build(ls3dw, root, out)
    assert ls3dw("build", "--source", "ls3dw", "--root", root, "--out", out, *quick).status == 0
    published, predicted = open_dataset(out, "published"), open_dataset(out, "v1")
    assert published.versions == ("published", "v1")
    assert published.index["id"].tolist() == predicted.index["id"].tolist()
    assert np.isfinite(predicted.column("landmarks_3d")[..., :2]).all()
    np.testing.assert_array_equal(published.column("crop"), predicted.column("crop"))
    truth = published.column("landmarks_3d")[..., :2]
    errors = np.linalg.norm(predicted.column("landmarks_3d")[..., :2] - truth, axis=2).mean(axis=1)
    sizes = np.sqrt(np.prod(np.ptp(truth.astype(float), axis=1), axis=1))
    np.testing.assert_allclose(predicted.index["nme"], errors / sizes, rtol=1e-4)


def test_any_source_of_3d_points_can_be_a_version(ls3dw: Command, tmp_path: Path) -> None:
    assert ls3dw("sample", tmp_path / "sample").status == 0
    words = ("--root", tmp_path / "sample", *PUBLISHED, "--out", tmp_path / "data")
    assert ls3dw("build", "--source", "aflw2000", *words).status == 0
    dataset = open_dataset(tmp_path / "data", "published")
    np.testing.assert_array_equal(dataset.column("landmarks_3d")[..., :2], dataset.column("annotation"))
    for source in ("300w", "300vw", "menpo", "sample"):
        refused = ls3dw("build", "--source", source, *words)
        assert refused.status == 2
        assert f"source {source!r} has no 3D points of its own" in refused.err


@pytest.mark.parametrize("word", [("--model-2d", "x"), ("--model-depth", "none"), ("--guidance", "annotated")])
def test_options_of_networks_are_refused(ls3dw: Command, root: Path, word: tuple[str, ...]) -> None:
    ended = ls3dw("build", "--source", "ls3dw", "--root", root, *PUBLISHED, *word)
    assert ended.status == 2
    assert "no network runs, so leave out" in ended.err


def test_name_of_the_version() -> None:
    options = BuildOptions(("ls3dw",), Path())
    published = BuildOptions(("ls3dw",), Path(), annotations="published")
    assert (options.version_name, published.version_name) == ("v1", "published")
    assert replace(published, version_name="first").version_name == "first"


def origins(out: Path) -> pd.DataFrame:
    return pd.read_parquet(out / "subsets" / "published" / "published-balanced.parquet").set_index("id")


def test_origins_of_the_balanced_set(ls3dw: Command, root: Path, tmp_path: Path) -> None:
    """The same file, the same pixels in another file, a smaller JPEG, and a face that is not among the others."""
    folder = root / "LS3D-W_balanced"
    folder.mkdir()
    shutil.copy(root / "Menpo-3D" / "aflw__face_1.jpg", folder / "1.jpg")
    shutil.copy(root / "Menpo-3D" / "aflw__face_1.t7", folder / "1.t7")
    indoor = release.faces()[5]
    (folder / "2.bmp").write_bytes(release.encode(indoor.image(), ".bmp"))
    t7.save(folder / "2.t7", release.released(indoor) + 1)
    frame = release.faces()[2]
    small = cv2.resize(np.ascontiguousarray(frame.image()), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    (folder / "3.jpg").write_bytes(release.encode(small, ".jpg", 75))
    t7.save(folder / "3.t7", np.trunc((frame.annotation.astype(float) + 0.5) / 2))
    release.put(root, "LS3D-W_balanced/4", 10)

    out = tmp_path / "data"
    build(ls3dw, root, out, "--subset", ",".join([*SUBSETS, "balanced"]))
    table = origins(out)
    assert list(table.columns) == ["bin", "origin", "how", "distance", "nme", "candidates"]
    rows = [table.loc[f"ls3dw/LS3D-W_balanced/{number}"] for number in (1, 2, 3, 4)]
    assert [row["bin"] for row in rows] == ["0-30", "30-60", "60-90", "0-30"]
    assert [(row["how"], row["origin"]) for row in rows] == [
        ("bytes", "ls3dw/Menpo-3D/aflw__face_1"),
        ("pixels", "ls3dw/300W-Testset-3D/indoor_001"),
        ("phash", "ls3dw/300VW-3D/CatA/114/0002"),
        ("none", ""),
    ]
    assert rows[0][["distance", "nme", "candidates"]].tolist() == [0, 0, 1]
    assert rows[1]["nme"] == 0, "moved points have the same shape"
    assert 0 < rows[2]["nme"] < 0.02
    assert rows[3]["distance"] > 12

    assert open_dataset(out).manifest["balanced_origins"] == {"bytes": 1, "none": 1, "phash": 1, "pixels": 1}
    assert "1 by bytes, 1 by phash, 1 by pixels; unknown: 1" in ls3dw("info", out).out
    assert ls3dw("verify", out).status == 0
    (out / "subsets" / "published" / "published-balanced.parquet").unlink()
    assert "missing" in ls3dw("verify", out).out


def test_of_equal_pictures_the_one_with_the_nearest_points_is_the_origin(
    ls3dw: Command, root: Path, tmp_path: Path
) -> None:
    """Two faces of one picture, as in Menpo and AFLW2000-3D, or a video that stands still."""
    other = release.released(release.faces()[7]) * 0.9 + 20
    other[30] += 9
    release.put(root, "AFLW2000-3D-Reannotated/image00003", 7, points=other)
    release.put(root, "LS3D-W_balanced/1", 7, points=other + 0.25)
    build(ls3dw, root, tmp_path / "data", "--subset", "menpo,aflw2000,balanced")
    (row,) = origins(tmp_path / "data").itertuples()
    assert (row.origin, row.how, row.candidates) == ("ls3dw/AFLW2000-3D-Reannotated/image00003", "bytes", 2)
    assert row.nme < 1e-6


def test_without_others_no_origin_is_known(ls3dw: Command, tmp_path: Path) -> None:
    release.put(tmp_path / "set", "new_dataset/3", 1)
    build(ls3dw, tmp_path / "set", tmp_path / "data")
    (row,) = origins(tmp_path / "data").itertuples()
    assert (row.bin, row.origin, row.how, row.distance, row.candidates) == ("60-90", "", "none", -1, 0)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real files are not here")
def test_files_of_torch7_itself() -> None:
    folder = REAL / "t7" / "landmarks"
    for name in ("pts_double", "pts_float", "pts_double_ascii"):
        truth = np.load(folder / f"{name}.npy")
        np.testing.assert_array_equal(parse_t7((folder / f"{name}.t7").read_bytes()).annotation, truth.astype("f4"))


def test_frames_of_a_video_are_told_apart(ls3dw: Command, tmp_path: Path) -> None:
    """Neighbours look alike; reduced to half and encoded again, each is still traced to itself."""
    root, frames = tmp_path / "LS3D-W", list(open_source("300vw", folder("embedded")))[:24]
    for number, frame in enumerate(frames, start=1):
        picture = np.ascontiguousarray(frame.image())
        small = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        points = release.released(frame)
        for place, pixels, at in (("300VW-3D/CatA/114", picture, points), ("new_dataset", small, points / 2 - 0.25)):
            (root / place).mkdir(parents=True, exist_ok=True)
            (root / place / f"{number}.jpg").write_bytes(release.encode(pixels, ".jpg", 75))
            t7.save(root / place / f"{number}.t7", np.trunc(at + 0.5))
    build(ls3dw, root, tmp_path / "data", "--subset", "300vw,balanced")
    table = origins(tmp_path / "data")
    assert set(table["how"]) == {"phash"}
    assert (
        table["origin"].str.rpartition("/")[2].tolist() == table.index.str.rpartition("/").get_level_values(2).tolist()
    )
    assert table["distance"].max() <= 4
