"""`ls3dw regenerate`: new annotations on pictures that stay, whole or in part, and the same after a kill."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import Command
from hypothesis import given
from hypothesis import strategies as st

from ls3dw.building.options import BuildOptions
from ls3dw.building.pipeline import Build
from ls3dw.building.selection import select
from ls3dw.core.crops import StoredPicture, cut_stored, cut_stored_window, cut_window
from ls3dw.core.files import sha256_file
from ls3dw.core.geometry import apply, crop_affine
from ls3dw.core.resources import folder
from ls3dw.dataset.open import open_dataset
from ls3dw.dataset.verify import verify
from ls3dw.errors import ConfigurationError, PictureError

LIMIT, SHARD_SIZE = 12, 7


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, str]) -> Path:
    """A data set of 48 faces in shards that divide nothing evenly; only for reading."""
    options = BuildOptions(
        out=tmp_path_factory.mktemp("built") / "data",
        model_2d=tiny_models["2d"],
        model_3d=tiny_models["3d"],
        model_depth="none",
        gpu="none",
        workers=0,
        flip=False,
        limit=LIMIT,
        shard_size=SHARD_SIZE,
    )
    Build(options).run(lambda plan: None, lambda chunk: None)
    return options.out


@pytest.fixture
def data(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "data"))


@pytest.fixture(scope="module")
def same(quick: list[str]) -> list[str]:
    """The networks of v1."""
    return [word for word in quick if word != "--no-flip"]


@pytest.fixture(scope="module")
def other(same: list[str]) -> list[str]:
    """Another annotation than v1's: averaged with the mirrored picture's."""
    return [*same, "--flip"]


def states(root: Path) -> dict[str, tuple[int, int, str]]:
    """Inode, time and content of every file: whatever was written again differs."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns, sha256_file(path)) for path in files}


def shards(root: Path, version: str) -> dict[str, str]:
    """SHA-256 of all shards and markers of a version."""
    base = root / "annotations" / version
    return {path.relative_to(base).as_posix(): sha256_file(path) for path in sorted(base.glob("*/*"))}


def test_a_new_version_writes_no_picture_and_the_old_one_stays(ls3dw: Command, data: Path, other: list[str]) -> None:
    faces, old = states(data / "faces"), states(data / "annotations")
    done = ls3dw("regenerate", data, *other, "--json")
    assert done.status == 0, done.err
    said = json.loads(done.out)
    assert (said["version"], said["made_again"], said["faces"]) == ("v2", 48, 48)
    assert states(data / "faces") == faces
    assert {path: state for path, state in states(data / "annotations").items() if "/v2/" not in path} == old
    assert verify(data, "v1")[1] == verify(data, "v2")[1] == []
    first, second = open_dataset(data, "v1"), open_dataset(data)
    assert (second.version, second.versions) == ("v2", ("v1", "v2"))
    assert first.index["id"].tolist() == second.index["id"].tolist()
    assert (first.column("landmarks_2d") != second.column("landmarks_2d")).any(axis=(1, 2)).all()
    for name in ("annotation", "box", "crop"):
        np.testing.assert_array_equal(first.column(name), second.column(name))
    assert set(first.index["made_by"]) == {"v1"}
    assert set(second.index["made_by"]) == set(second.column("made_by")) == {"v2"}


def test_lineage(ls3dw: Command, data: Path, other: list[str], same: list[str]) -> None:
    assert ls3dw("regenerate", data, *other, "--only", "source:menpo").status == 0
    assert ls3dw("regenerate", data, *same, "--no-flip", "--version-name", "third").status == 0
    manifests = {v: json.loads((data / "annotations" / v / "manifest.json").read_text()) for v in ("v1", "v2", "third")}
    assert [manifests[v]["parent"] for v in manifests] == [None, "v1", "v2"]
    assert [entry["version"] for entry in manifests["third"]["lineage"]] == ["v1", "v2"]
    assert manifests["third"]["lineage"][1]["configuration"] == manifests["v2"]["configuration"]
    asked = manifests["v2"]["configuration"]["regenerated"]
    assert asked == {
        "parent": "v1",
        "from": "stored",
        "only": ["source:menpo"],
        "manifests": {"v1": sha256_file(data / "annotations/v1/manifest.json")},
    }
    listed = json.loads((data / "dataset.json").read_text())
    assert listed["lineage"]["v2"] == asked
    assert (listed["newest"], list(listed["lineage"])) == ("third", ["third", "v2"])
    assert manifests["v2"]["counts"] == manifests["v1"]["counts"]


def test_only_some_faces(ls3dw: Command, data: Path, other: list[str]) -> None:
    """The others keep every value of the parent; those that are made again are what they are in a whole version."""
    assert ls3dw("regenerate", data, *other, "--version-name", "whole").status == 0
    only = ("--only", "subset:300W/Indoor", "--only", "source:aflw2000", "--parent", "v1")
    assert ls3dw("regenerate", data, *other, *only).status == 0
    first, whole, part = (open_dataset(data, version) for version in ("v1", "whole", "v2"))
    again = ((part.index["subset"] == "indoor") | (part.index["source"] == "aflw2000")).to_numpy()
    assert 0 < again.sum() < len(again)
    assert part.index["made_by"].tolist() == np.where(again, "v2", "v1").tolist()
    for name in ("landmarks_2d", "landmarks_3d", "confidence_3d", "pose", "nme"):
        np.testing.assert_array_equal(part.column(name)[again], whole.column(name)[again])
        np.testing.assert_array_equal(part.column(name)[~again], first.column(name)[~again])
    assert verify(data, "v2")[1] == []


def test_only_failures(ls3dw: Command, data: Path, other: list[str]) -> None:
    """Of a random network all are failures, so v1 gets good errors on the faces of odd rows."""
    for path in data.glob("annotations/v1/*/*.h5"):
        with h5py.File(path, "r+") as file:
            file["nme"][:] = np.where(np.arange(len(file["id"])) % 2, 0.01, 0.5)
    rebuild_head(data)
    assert ls3dw("regenerate", data, *other, "--only", "failures:v1").status == 0
    index = open_dataset(data).index
    assert index["made_by"].tolist() == np.where(index["row"] % 2, "v1", "v2").tolist()
    nme = open_dataset(data).column("nme")
    np.testing.assert_array_equal(nme[index["row"] % 2 == 1], np.float32(0.01))


def rebuild_head(data: Path) -> None:
    """Make markers, index and manifest of v1 again after its shards were edited."""
    from ls3dw.building.finish import finish_version
    from ls3dw.dataset.store import Store

    store = Store(data)
    for path in data.glob("annotations/v1/*/*.json"):
        marker = json.loads(path.read_text())
        for file in marker["files"]:
            file |= {"size": (data / file["path"]).stat().st_size, "sha256": sha256_file(data / file["path"])}
        path.write_text(json.dumps(marker))
    (data / "annotations/v1/manifest.json").unlink()
    finish_version(store, "v1", json.loads((data / "annotations/v1/configuration.json").read_text()))


def test_from_the_sources_it_is_the_build_to_the_bit(ls3dw: Command, data: Path, same: list[str]) -> None:
    faces = states(data / "faces")
    assert ls3dw("regenerate", data, *same, "--from", "sources", "--only", "source:300vw").status == 0
    assert ls3dw("regenerate", data, *same, "--from", "sources", "--parent", "v1").status == 0
    assert states(data / "faces") == faces
    first = open_dataset(data, "v1")
    for version in ("v2", "v3"):
        second = open_dataset(data, version)
        assert verify(data, version)[1] == []
        for name in ("landmarks_2d", "landmarks_3d", "crop", "nme"):
            np.testing.assert_array_equal(first.column(name), second.column(name))


def test_a_source_that_changed_is_refused(ls3dw: Command, tmp_path: Path, quick: list[str]) -> None:
    root, out = Path(shutil.copytree(folder("embedded") / "300W", tmp_path / "300W")), tmp_path / "d"
    words = ("--source", "300w", "--root", root, "--shard-size", "4")
    assert ls3dw("build", "--out", out, *quick, *words).status == 0
    again = ("regenerate", out, *quick, "--from", "sources")
    assert "needs its folder" in ls3dw(*again).err
    points = root / "01_Indoor" / "indoor_002.pts"
    moved = points.read_text()
    points.write_text(moved.replace(moved.splitlines()[3], "1.5 2.5"))
    refused = ls3dw(*again, "--root", root)
    assert "300w/indoor: had 8 files" in refused.error
    assert "the source changed since" in refused.error
    points.unlink()
    assert "had 8 files" in ls3dw(*again, "--root", root).error
    points.write_text(moved)
    assert ls3dw(*again, "--root", root).status == 0
    assert (open_dataset(out).version, verify(out)[1]) == ("v2", [])


def test_run_again_it_does_nothing_twice(ls3dw: Command, data: Path, other: list[str]) -> None:
    words = ("regenerate", data, *other, "--only", "source:300w")
    first = ls3dw(*words)
    before = states(data)
    again = ls3dw(*words)
    assert (again.status, again.out) == (first.status, first.out) == (0, first.out)
    assert states(data) == before
    named = ls3dw(*words, "--version-name", "v2", "--only", "source:menpo")
    assert named.status == 1
    assert "made with another configuration (regenerated: " in named.error
    assert "does not build on" in ls3dw("regenerate", data, *other, "--version-name", "v1").err


def test_an_interrupted_one_goes_on_under_its_name(ls3dw: Command, data: Path, other: list[str]) -> None:
    """As after a kill: some shards are there with their markers, one without, and the version is not listed."""
    assert ls3dw("regenerate", data, *other, "--only", "source:300vw").status == 0
    plain = shards(data, "v2")
    (data / "annotations/v2/manifest.json").unlink()
    (data / "dataset.json").write_text(json.dumps({"format": 1, "newest": "v1", "versions": ["v1"]}))
    for name in ("300w/indoor-0000.json", "300w/indoor-0000.h5", "300vw/001-0001.json"):
        (data / "annotations/v2" / name).unlink()
    assert ls3dw("regenerate", data, *other, "--only", "source:300vw").status == 0
    assert open_dataset(data).versions == ("v1", "v2")
    assert shards(data, "v2") == plain


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_the_same(
    program: list[str], data: Path, other: list[str], tmp_path: Path
) -> None:
    words = [*program, "regenerate", str(data), *other]
    plain = Path(shutil.copytree(data, tmp_path / "plain"))
    subprocess.run([*program, "regenerate", str(plain), *other], check=True, capture_output=True)
    for number in range(1, 4):
        run = subprocess.Popen([*words, "--workers", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while run.poll() is None and len(list(data.glob("annotations/v2/*/*.json"))) < number:
            time.sleep(0.01)
        run.kill()
        run.communicate()
    subprocess.run([*words, "--workers", "2"], check=True, capture_output=True)
    assert shards(data, "v2") == shards(plain, "v2")
    assert open_dataset(data).versions == ("v1", "v2")
    assert list(data.rglob("*.partial")) == []
    assert verify(data)[1] == []


def test_dry_run_writes_nothing(ls3dw: Command, data: Path, other: list[str]) -> None:
    before = states(data)
    done = ls3dw("regenerate", data, *other, "--only", "source:300vw", "--dry-run")
    assert "300vw      12 faces left to annotate again, in 2 parts" in done.out
    assert "12 of 48 again; the others keep their rows of v1" in done.out
    assert "version v2; nothing was written" in done.out
    assert states(data) == before


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("--only", "300vw"), "expected source:NAME, subset:SOURCE/NAME or failures:VERSION"),
        (("--only", "source:lfw"), "no such face; choose from 300vw, 300w, aflw2000, menpo"),
        (("--only", "subset:300w/train"), "choose from 300vw/train, 300w/indoor"),
        (("--only", "failures:v7"), "no version 'v7'"),
        (("--parent", "v7"), "no version 'v7'; it has v1"),
        (("--decode", "reference"), "add --from sources"),
        (("--version-name", "../v2"), "expected letters, digits"),
    ],
)
def test_faults(ls3dw: Command, data: Path, other: list[str], words: tuple[str, ...], fault: str) -> None:
    before = states(data)
    refused = ls3dw("regenerate", data, *other, *words)
    assert refused.status in (1, 2)
    assert fault in refused.err
    assert {path: state for path, state in states(data).items() if not path.endswith(".lock")} == {
        path: state for path, state in before.items() if not path.endswith(".lock")
    }


def test_what_is_not_asked_for_is_as_in_the_parent(ls3dw: Command, data: Path, same: list[str]) -> None:
    file = ls3dw("regenerate", data, "--gpu", "none")
    assert "the parent's tiny-2d" in file.err
    assert "is not bundled: name it by --model-2d" in file.err
    assert ls3dw("regenerate", data, *same).status == 0
    configuration = open_dataset(data).manifest["configuration"]
    assert configuration | {"regenerated": 0} == open_dataset(data, "v1").manifest["configuration"] | {"regenerated": 0}


def test_a_damaged_parent_is_refused(ls3dw: Command, data: Path, other: list[str]) -> None:
    shard = data / "annotations/v1/300w/indoor-0000.h5"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "run ls3dw verify" in ls3dw("regenerate", data, *other).error


def test_a_damaged_picture_is_refused(ls3dw: Command, data: Path, other: list[str]) -> None:
    with h5py.File(data / "faces/menpo/train-0000.h5", "r+") as file:
        file["pictures"][:] = 0
    refused = ls3dw("regenerate", data, *other).error
    assert "menpo/train-0000" in refused
    assert "not a JPEG" in refused


@pytest.mark.slow
def test_landmarks_from_kept_pictures_agree_with_those_from_the_sources(ls3dw: Command, tmp_path: Path) -> None:
    """With the bundled networks, on some faces of each source: 0.03 pixels of the crop; a tenth is allowed."""
    words = ("--gpu", "none", "--workers", "0", "--no-flip")
    assert ls3dw("build", "--out", tmp_path, *words, "--limit", "2").status == 0
    assert ls3dw("regenerate", tmp_path, *words).status == 0
    first, second = open_dataset(tmp_path, "v1"), open_dataset(tmp_path)
    zoom = first.column("crop")[:, 0, 0]
    for name in ("landmarks_2d", "landmarks_3d"):
        shift = np.linalg.norm(first.column(name)[..., :2] - second.column(name)[..., :2], axis=2).mean(axis=1) * zoom
        assert 0 < shift.mean() < 0.1


@given(
    x=st.floats(0, 600),
    y=st.floats(0, 500),
    width=st.floats(20, 700),
    ratio=st.floats(0.6, 1.5),
)
def test_the_window_of_a_kept_picture_shows_the_same_crop(x: float, y: float, width: float, ratio: float) -> None:
    """A picture whose colours are its coordinates: wherever the crop looks, it sees the same place of the source."""
    rows, columns = np.mgrid[:500, :600]
    ramp = np.stack((columns * 255 / 600, rows * 255 / 500, np.full(rows.shape, 128)), axis=2).round().astype(np.uint8)
    box = np.array([x - width / 2, y - width * ratio / 2, x + width / 2, y + width * ratio / 2], dtype=np.float32)
    try:
        source, kept = cut_window(ramp, box), cut_stored(ramp, box)
    except PictureError:
        return
    stored = cut_stored_window(StoredPicture(kept.pixels, kept.to_picture), box)
    np.testing.assert_array_equal(stored.crop, source.crop)
    np.testing.assert_array_equal(stored.crop, crop_affine(box))
    # Corners and middle of the stored window's pixels, as places of the source.
    height, length = stored.pixels.shape[:2]
    places = np.array([[0, 0], [length - 1, height - 1], [length // 2, height // 2]])
    inverse = np.linalg.inv(np.vstack((stored.crop, (0, 0, 1))))[:2]
    there = apply(inverse, apply(stored.to_crop, places.astype(np.float64)))
    seen = stored.pixels[places[:, 1], places[:, 0]][:, :2].astype(float) * (600 / 255, 500 / 255)
    # A colour is rounded to 600 / 255 = 2.4 pixels.
    assert np.abs(there - seen).max() < 2.4


def test_selection_is_the_union_and_minds_no_capitals() -> None:
    index = pd.DataFrame(
        {
            "id": ["a", "b", "c", "d"],
            "source": ["300vw", "300vw", "menpo", "menpo"],
            "subset": ["A", "B", "train", "train"],
            "nme": [0.01, np.nan, 0.08, 0.07],
        }
    )
    versions = {"v1": index, "v2": index.assign(nme=[0.5, np.nan, 0.0, 0.0])}

    def chosen(*entries: str) -> str:
        return "".join(index["id"][select(index, entries, versions.__getitem__)])

    assert chosen() == "abcd"
    assert chosen("source:MENPO") == "cd"
    assert chosen("subset:300vw/b") == "b"
    assert chosen("failures:v1") == "c", "above 7 %, and not without points"
    assert chosen("failures:v2", "failures:v1") == "ac"
    assert chosen("subset:300vw/a", "source:menpo") == "acd"
    for entry in ("source:", "subset:300vw", "size:3"):
        with pytest.raises(ConfigurationError, match="only"):
            chosen(entry)


def test_in_use(ls3dw: Command, data: Path, other: list[str]) -> None:
    import fcntl

    with (data / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "in use by another ls3dw process" in ls3dw("regenerate", data, *other).error
    assert not os.path.lexists(data / "annotations" / "v2")


def test_drops_stay_counted(ls3dw: Command, tmp_path: Path, quick: list[str]) -> None:
    """Of shards of two, one has a face and a drop, and one has nothing but drops."""
    root, out = Path(shutil.copytree(folder("embedded") / "300W", tmp_path / "300W")), tmp_path / "d"
    for name in ("indoor_002", "indoor_003", "indoor_004"):
        (root / "01_Indoor" / f"{name}.pts").unlink()
    words = ("--source", "300w", "--root", root, "--shard-size", "2")
    assert ls3dw("build", "--out", out, *quick, *words).status == 0
    assert ls3dw("regenerate", out, *quick).status == 0
    assert ls3dw("regenerate", out, *quick, "--parent", "v1", "--from", "sources", "--root", root).status == 0
    first = open_dataset(out, "v1")
    assert first.manifest["counts"]["300w"] == {"read": 12, "written": 9, "dropped": {"missing annotation": 3}}
    for version in ("v2", "v3"):
        second = open_dataset(out, version)
        assert second.manifest["counts"] == first.manifest["counts"]
        assert verify(out, version)[1] == []
        drops = [pd.read_parquet(dataset.store.drops_file(dataset.version)) for dataset in (first, second)]
        pd.testing.assert_frame_equal(*drops)
