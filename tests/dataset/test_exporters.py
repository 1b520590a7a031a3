"""`ls3dw export`: trees in the release's layout, and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import release
from conftest import Command
from PIL import Image

from ls3dw.core.formats import t7
from ls3dw.core.formats.ljson import dump_ljson, parse_ljson
from ls3dw.dataset.exporters.base import to_whole_pixels
from ls3dw.dataset.exporters.release import release_place
from ls3dw.dataset.open import open_dataset
from ls3dw.errors import DatasetError
from ls3dw.sources import open_source


def places(root: Path) -> list[str]:
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.t7"))


def test_every_face_of_the_sample_goes_where_the_release_has_it(
    ls3dw: Command, sample_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "LS3D-W"
    told = json.loads(ls3dw("export", sample_data, "--format", "ls3d-w", "--out", out, "--json").out)
    assert (told["written"], told["left_out"], told["version"]) == (132, {}, "v1")
    found = places(out)
    assert len(found) == 132
    assert {"300W-Testset-3D/indoor_001", "300W-Testset-3D/outdoor_006", "Menpo-3D/aflw__face_00011"} <= set(found)
    assert {"300VW-3D/Trainset/001/000001", "300VW-3D/CatA/114/000048"} <= set(found)
    assert "AFLW2000-3D-Reannotated/image00007" in found
    assert not list(tmp_path.glob("*.partial"))

    dataset = open_dataset(sample_data)
    for face in (dataset["300vw/114/000048"], dataset["aflw2000/image00007"]):
        place = "300VW-3D/CatA/114/000048" if "300vw" in face.id else "AFLW2000-3D-Reannotated/image00007"
        assert (out / f"{place}.jpg").read_bytes() == face.jpeg.tobytes()
        points = t7.load(out / f"{place}.t7")
        assert (points.dtype, points.shape) == (np.float64, (68, 2))
        np.testing.assert_array_equal(points, face.to_picture(face.landmarks_3d)[:, :2])
        with Image.open(out / f"{place}.jpg") as picture:
            assert (picture.height, picture.width, 3) == face.image.shape


def test_what_was_exported_reads_back_to_the_bit(ls3dw: Command, sample_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "LS3D-W"
    assert ls3dw("export", sample_data, "--format", "ls3d-w", "--out", out).status == 0
    source = open_source("ls3dw", out)
    read = {sample.id.removeprefix("ls3dw/"): sample.annotation for sample in source}
    assert source.drops == []
    for face in open_dataset(sample_data):
        stem = face.id.rpartition("/")[2]
        (place,) = [place for place in read if place.endswith(f"/{stem}") and _same_video(place, face.id)]
        np.testing.assert_array_equal(read[place], face.to_picture(face.landmarks_3d)[:, :2])


def _same_video(place: str, face: str) -> bool:
    return not face.startswith("300vw/") or place.split("/")[-2] == face.split("/")[1]


def test_a_tree_by_hand_comes_back_as_it_was(ls3dw: Command, tmp_path: Path) -> None:
    """Release to data set to release: the faces are small enough that their pictures are kept whole."""
    root = release.make_release(tmp_path / "LS3D-W")
    release.put(root, "new_dataset/1", 8)
    words = ("--annotations", "published", "--workers", "0", "--subset", "300vw,300w,menpo,aflw2000,balanced")
    assert ls3dw("build", "--source", "ls3dw", "--root", root, "--out", tmp_path / "data", *words).status == 0
    out = tmp_path / "out"
    assert ls3dw("export", tmp_path / "data", "--format", "ls3d-w", "--out", out).status == 0
    assert places(out) == places(root)
    whole = 0
    for face in open_dataset(tmp_path / "data"):
        place = face.id.removeprefix("ls3dw/")
        points = t7.load(out / f"{place}.t7")
        np.testing.assert_array_equal(points, face.to_picture(face.landmarks_3d)[:, :2])
        if np.array_equal(face.picture_affine, np.eye(2, 3)):
            assert (out / f"{place}.t7").read_bytes() == (root / f"{place}.t7").read_bytes()
            whole += 1
    assert whole >= 5


def test_round_truncates_as_the_release_did(ls3dw: Command, sample_data: Path, tmp_path: Path) -> None:
    words = ("export", sample_data, "--format", "ls3d-w", "--source", "menpo", "--round", "--out", tmp_path / "out")
    assert ls3dw(*words).status == 0
    face = open_dataset(sample_data)["menpo/aflw__face_00011"]
    points = t7.load(tmp_path / "out" / "Menpo-3D" / "aflw__face_00011.t7")
    assert (points == np.trunc(points)).all()
    assert np.abs(points - face.to_picture(face.landmarks_3d)[:, :2]).max() <= 0.5 + 1e-4
    assert to_whole_pixels(np.array([3.49, 3.5, 3.99, 0.2])).tolist() == [3, 4, 4, 0]


def test_only_some_sources_and_what_has_no_place(
    ls3dw: Command, sample_data: Path, tmp_path: Path, quick: list[str]
) -> None:
    words = ("export", sample_data, "--format", "ls3d-w", "--out")
    assert ls3dw(*words, tmp_path / "some", "--source", "300w", "--source", "menpo").status == 0
    assert len(places(tmp_path / "some")) == 24
    refused = ls3dw(*words, tmp_path / "none", "--source", "lfw")
    assert (refused.status, "no source lfw" in refused.error) == (1, True)
    assert not (tmp_path / "none").exists()

    for place in ("afw/1", "ibug/image_092 _01"):
        release.put(tmp_path / "300W", place, 0, suffix=".png")
        points = release.faces()[0].annotation + 1
        rows = "\n".join(f"{x} {y}" for x, y in points)
        (tmp_path / "300W" / f"{place}.pts").write_text(f"version: 1\nn_points: 68\n{{\n{rows}\n}}\n")
    subsets = ("--subset", "afw,ibug")
    build = ("build", "--source", "300w", "--root", tmp_path / "300W", "--out", tmp_path / "data", *quick, *subsets)
    assert ls3dw(*build).status == 0
    nothing = ls3dw("export", tmp_path / "data", "--format", "ls3d-w", "--out", tmp_path / "none")
    assert nothing.status == 1
    assert "none of its faces (300w/afw, 300w/ibug) has a place in LS3D-W" in nothing.error


def test_faces_that_would_share_a_file_are_refused(ls3dw: Command, tmp_path: Path, quick: list[str]) -> None:
    root = tmp_path / "root"
    assert ls3dw("sample", root).status == 0
    release.put(root / "LS3D-W", "AFLW2000-3D-Reannotated/image00007", 1)
    roots = ("--root", f"aflw2000={root}", "--root", f"ls3dw={root / 'LS3D-W'}")
    words = ("build", "--source", "aflw2000,ls3dw", *roots, "--out", tmp_path / "data", *quick)
    assert ls3dw(*words).status == 0
    export = ("export", tmp_path / "data", "--format", "ls3d-w", "--out", tmp_path / "out")
    refused = ls3dw(*export)
    assert refused.status == 1
    assert "export one --source at a time" in refused.error
    assert not (tmp_path / "out").exists()
    assert ls3dw(*export, "--source", "ls3dw").status == 0
    assert places(tmp_path / "out") == ["AFLW2000-3D-Reannotated/image00007"]


def test_a_folder_that_is_in_use_is_left_alone(ls3dw: Command, sample_data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    ended = ls3dw("export", sample_data, "--format", "ls3d-w", "--out", tmp_path / "out")
    assert ended.status == 1
    assert "not empty; choose a new folder" in ended.error
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine"]


@pytest.mark.parametrize("words", [("--format", "zip"), ()])
def test_wrong_usage(ls3dw: Command, sample_data: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    assert ls3dw("export", sample_data, "--out", tmp_path / "out", *words).status == 2


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # menpo leaves files open
def test_menpo_reads_what_was_exported_for_it(ls3dw: Command, sample_data: Path, tmp_path: Path) -> None:
    import menpo.io as mio

    out = tmp_path / "menpo"
    told = json.loads(ls3dw("export", sample_data, "--format", "menpo", "--out", out, "--json").out)
    dataset = open_dataset(sample_data)
    assert (told["written"], told["left_out"]) == (len(dataset), {})
    for face in (dataset["300vw/114/000048"], dataset["aflw2000/image00007"]):
        image = mio.import_image(out / f"{face.id}.jpg", normalize=False)
        read = mio.import_landmark_file(out / f"{face.id}.ljson")
        own = dataset.to_menpo(face.id)
        assert own.shape == image.shape == face.image.shape[:2]
        np.testing.assert_array_equal(np.moveaxis(own.pixels, 0, 2), face.image)
        assert set(read) == {"landmarks_2d", "landmarks_3d", "annotation"}
        for name in own.landmarks:
            points = face.to_picture(getattr(face, name)[:, :2])[:, ::-1]
            np.testing.assert_allclose(own.landmarks[name].points, points, atol=1e-3)
            np.testing.assert_allclose(read[name].points, points, atol=1e-3)
            assert "jaw" in read[name].labels
    assert "--round" in ls3dw("export", sample_data, "--format", "menpo", "--round", "--out", tmp_path / "b").error


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_ljson_of_menpo_is_read(tmp_path: Path) -> None:
    import menpo.io as mio
    from menpo.shape import PointCloud

    points = np.random.default_rng(0).uniform(0, 99, (68, 2))
    points[3] = np.nan
    assert_read = np.testing.assert_array_equal
    mio.export_landmark_file(PointCloud(points[:, ::-1]), tmp_path / "a.ljson")
    assert_read(parse_ljson((tmp_path / "a.ljson").read_bytes())["LJSON"], points)
    assert_read(parse_ljson(dump_ljson({"x": points, "y": points + 1}))["y"], points + 1)
    old = {"version": 2, "landmarks": {"points": points[4:, ::-1].tolist()}}
    assert_read(parse_ljson(json.dumps(old).encode())["LJSON"], points[4:])
    for damaged in (b"", b"[]", b"{}", b'{"version": 3}', b'{"version": 3, "groups": {"a": []}}', b"[" * 99999):
        with pytest.raises(ValueError, match=r"."):
            parse_ljson(damaged)


def test_ids_that_leave_the_folder_are_refused() -> None:
    for face in ("300w/../x", "/etc/x", "300w//x", "300w/a\0", "300w", "menpo/x"):
        with pytest.raises(DatasetError):
            release_place(face, "300w", "indoor")
