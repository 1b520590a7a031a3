"""The whole build of the embedded sample: what is in the data set, and what the options do to it."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import Command
from PIL import Image, JpegImagePlugin

from ls3dw.core.files import sha256_file
from ls3dw.core.resources import folder
from ls3dw.core.sample import Sample
from ls3dw.dataset.open import Dataset, open_dataset
from ls3dw.errors import DatasetError
from ls3dw.sources import open_source

COUNTS = {"300w": 12, "300vw": 96, "menpo": 12, "aflw2000": 12}
EMBEDDED = folder("embedded")

ANNOTATION_SHAPES = {
    "id": (),
    "landmarks_2d": (68, 2),
    "landmarks_3d": (68, 3),
    "confidence_2d": (68,),
    "confidence_3d": (68,),
    "annotation": (68, 2),
    "box": (4,),
    "crop": (2, 3),
    "pose": (3,),
    "nme": (),
}
INDEX_COLUMNS = {
    *("id", "source", "subset", "media", "frame", "width", "height", "shard", "row"),
    *("yaw", "pitch", "roll", "nme", "confidence"),
}


@pytest.fixture(scope="module")
def sample(sample_data: Path) -> Dataset:
    return open_dataset(sample_data)


def annotation_shards(root: Path) -> list[Path]:
    return sorted(root.glob("annotations/*/*/*.h5"))


def states(root: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every file but the lock: both change when a file is written again."""
    files = [path for path in root.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def embedded_samples() -> Iterator[Sample]:
    for name in COUNTS:
        yield from open_source(name, EMBEDDED)


def test_counts(sample: Dataset) -> None:
    assert sample.index.groupby("source").size().to_dict() == COUNTS
    assert sample.manifest["counts"] == {
        name: {"read": count, "written": count, "dropped": {}} for name, count in COUNTS.items()
    }
    drops = pd.read_parquet(sample.store.drops_file("v1"))
    assert list(drops.columns) == ["id", "source", "reason", "detail"]
    assert len(drops) == 0


def test_annotation_shards_hold_what_the_contract_says(sample: Dataset) -> None:
    shards = annotation_shards(sample.store.root)
    assert len(shards) == 6
    for path in shards:
        with h5py.File(path) as file:
            rows = len(file["id"])
            for name, shape in ANNOTATION_SHAPES.items():
                assert file[name].shape == (rows, *shape)
                assert name == "id" or file[name].dtype == ("float64" if name == "crop" else "float32")
            assert h5py.check_string_dtype(file["id"].dtype).encoding == "utf-8"
            attributes = dict(file.attrs)
            assert 0 <= file["confidence_3d"][:].min() <= file["confidence_3d"][:].max() <= 1
            assert np.isfinite(file["landmarks_3d"][:]).all()
            assert np.isfinite(file["pose"][:]).all()
        assert (attributes["format"], attributes["version"], attributes["source"]) == (1, "v1", path.parent.name)
        models = json.loads(attributes["models"])
        assert {role: model["name"] for role, model in models.items()} == {
            "2d": "tiny-2d",
            "3d": "tiny-3d",
            "depth": "tiny-depth",
        }
        assert all(len(model["sha256"]) == 64 for model in models.values())
        assert json.loads(attributes["configuration"])["models"] == models


def test_face_shards_hold_the_same_faces_and_their_pictures(sample: Dataset) -> None:
    for path in annotation_shards(sample.store.root):
        source, name = path.parent.name, path.name
        with h5py.File(path) as annotations, h5py.File(sample.store.root / "faces" / source / name) as faces:
            assert faces["id"][:].tolist() == annotations["id"][:].tolist()
            for column in ("annotation", "box"):
                np.testing.assert_array_equal(faces[column][:], annotations[column][:])
            starts, sizes = faces["picture_start"][:], faces["picture_size"][:]
            assert faces["to_picture"].dtype == "float64"
            assert dict(faces.attrs) == {"format": 1, "source": source}
            pictures = faces["pictures"][:]
        assert starts.tolist() == (np.cumsum(sizes) - sizes).tolist()
        assert sizes.sum() == len(pictures)
        assert all(pictures[start : start + 2].tobytes() == b"\xff\xd8" for start in starts)


def test_pictures_of_videos_have_half_the_colour(sample: Dataset) -> None:
    for name, group in sample.index.groupby("source"):
        jpeg = sample[int(group.index[0])].jpeg
        sampling = JpegImagePlugin.get_sampling(Image.open(io.BytesIO(jpeg.tobytes())))
        assert sampling == (2 if name == "300vw" else 0), f"{name}: Pillow calls 4:4:4 0, and 4:2:0 2"


def test_index(sample: Dataset) -> None:
    index = sample.index
    assert set(index.columns) >= INDEX_COLUMNS
    assert index["id"].is_unique
    expected = {"300w/01_Indoor/indoor_001", "300vw/001/000001", "menpo/aflw__face_00011", "aflw2000/image00007"}
    assert expected <= set(index["id"])
    rows = index.set_index("id")
    indoor, frame = rows.loc["300w/01_Indoor/indoor_001"], rows.loc["300vw/114/000048"]
    assert (indoor["subset"], indoor["media"]) == ("indoor", "300W/01_Indoor/indoor_001.png")
    assert (indoor["frame"], indoor["row"], indoor["shard"]) == (0, 0, "indoor-0000")
    assert (frame["subset"], frame["frame"], frame["row"], frame["shard"]) == ("A", 48, 47, "114-0000")
    assert (frame["width"], frame["height"]) == (320, 320)
    for (source, shard), part in index.groupby(["source", "shard"]):
        with h5py.File(sample.store.annotations("v1", source, shard)) as file:
            np.testing.assert_array_equal(part[["yaw", "pitch", "roll"]], file["pose"][:])
            np.testing.assert_array_equal(part["nme"], file["nme"][:])
            assert part["row"].tolist() == list(range(len(part)))


def test_what_a_source_does_not_have_is_nan(sample: Dataset) -> None:
    """Menpo's profile faces have 39 points, which correspond to none of the 68."""
    profiles = {"menpo/aflw__face_01331", "menpo/aflw__face_01728", "menpo/aflw__face_02197"}
    assert set(sample.index["id"][sample.index["nme"].isna()]) == profiles
    for face in map(sample.__getitem__, profiles):
        assert np.isnan(face.annotation).all()
        assert np.isfinite(face.box).all()
        assert np.isfinite(face.landmarks_3d).all()
    with h5py.File(sample.store.faces("menpo", "train-0000")) as file:
        has_profile = np.isfinite(file["extra/profile"][:]).all(axis=(1, 2))
        assert {text.decode() for text in file["id"][has_profile]} == profiles


@pytest.mark.parametrize("source", COUNTS)
def test_nme_compares_the_right_points(sample: Dataset, source: str) -> None:
    """AFLW2000-3D has projected 3D points; the others have the visible contour."""
    for face in (sample[int(row)] for row in np.flatnonzero(sample.index["source"] == source)[:3]):
        predicted = face.landmarks_3d[:, :2] if source == "aflw2000" else face.landmarks_2d
        size = np.sqrt(np.prod(np.ptp(face.annotation.astype(float), axis=0)))
        assert face.nme == pytest.approx(np.linalg.norm(predicted - face.annotation, axis=1).mean() / size, rel=1e-4)


def test_faces_by_row_and_by_id(sample: Dataset) -> None:
    assert len(sample) == sum(COUNTS.values())
    assert (sample.version, sample.versions) == ("v1", ("v1",))
    face = sample["aflw2000/image00690"]
    row = sample.index["id"].tolist().index(face.id)
    assert sample[row].id == sample[row - len(sample)].id == face.id
    assert [face.id for face in sample] == sample.index["id"].tolist()
    with pytest.raises(KeyError, match="no face"):
        sample["aflw2000/image1"]
    for outside in (len(sample), -len(sample) - 1):
        with pytest.raises(IndexError):
            sample[outside]
    with pytest.raises(DatasetError, match="no version 'v9'; it has v1"):
        open_dataset(sample.store.root, "v9")


def test_the_points_lie_on_the_kept_picture(sample: Dataset) -> None:
    """Around the annotation, the kept picture is like the source's: more so than if it were moved by 2 pixels."""
    for truth in embedded_samples():
        face = sample[truth.id]
        np.testing.assert_array_equal(face.annotation, truth.annotation)
        np.testing.assert_array_equal(face.box, truth.box)
        if np.isnan(truth.annotation).any():
            continue
        there = colours(truth.image(), truth.annotation)
        moved = {
            (x, y): np.abs(colours(face.image, face.to_picture(truth.annotation + np.array([x, y]))) - there).mean()
            for x in (-2, 0, 2)
            for y in (-2, 0, 2)
        }
        assert min(moved, key=lambda shift: moved[shift]) == (0, 0), truth.id


def colours(picture: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The colours of a picture at points, between its pixels too; black outside."""
    x, y = points.astype(np.float32).T
    return cv2.remap(picture, x, y, cv2.INTER_LINEAR).astype(float)


def test_manifest_vouches_for_every_file(sample: Dataset) -> None:
    root = sample.store.root
    listed = {record["path"]: record for record in sample.manifest["files"]}
    unlisted = {"dataset.json", "annotations/v1/manifest.json", "DATASET_CARD.md", ".lock"}
    there = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert {path for path in there - unlisted if not path.startswith("galleries/")} == set(listed)
    for path, record in listed.items():
        assert record == {"path": path, "size": (root / path).stat().st_size, "sha256": sha256_file(root / path)}
    assert sample.manifest["parent"] is None
    assert sample.manifest["configuration"]["shard_size"] == 256


def test_contact_sheets(sample: Dataset) -> None:
    gallery = sample.store.root / "galleries" / "v1" / "contact-sheets"
    page = (gallery / "index.html").read_text()
    for source, count in COUNTS.items():
        assert f'src="{source}.png"' in page
        with Image.open(gallery / f"{source}.png") as sheet:
            assert sheet.format == "PNG"
            assert sheet.width == 1200
            assert 300 * -(-min(count, 16) // 4) < sheet.height < 400 * -(-min(count, 16) // 4)
            assert np.asarray(sheet).std() > 20, "an empty sheet"


def test_card_has_the_counts(sample: Dataset) -> None:
    card = (sample.store.root / "DATASET_CARD.md").read_text()
    for source, count in COUNTS.items():
        assert f"| {source} | all | {count} | {count} |" in card
    assert "Nothing." in card.partition("## Left out")[2].partition("##")[0]
    assert "tiny-depth" in card


def test_a_second_run_writes_nothing_and_another_configuration_is_refused(
    ls3dw: Command, tmp_path: Path, quick: list[str]
) -> None:
    words = ("build", "--out", tmp_path / "d", *quick, "--subset", "indoor", "--shard-size", "4")
    first = ls3dw(*words)
    assert first.status == 0
    before = states(tmp_path)
    second = ls3dw(*words)
    assert (second.status, second.out) == (0, first.out)
    assert states(tmp_path) == before

    for change, names in {
        ("--flip",): ["flip: False, now True"],
        ("--shard-size", "5"): ["shard_size: 4, now 5"],
        ("--limit", "5", "--decode", "reference"): ["limit: None, now 5", "decode: 'subpixel', now 'reference'"],
        ("--subset", "outdoor"): ["subsets: ['indoor'], now ['indoor', 'outdoor']"],
    }.items():
        refused = ls3dw(*words, *change)
        assert refused.status == 1
        for name in names:
            assert name in refused.error
        assert "choose another --out or --version-name" in refused.error
    assert states(tmp_path) == before


def test_another_version_shares_the_pictures(ls3dw: Command, tmp_path: Path, quick: list[str]) -> None:
    words = ("build", "--out", tmp_path, *quick, "--subset", "indoor")
    assert ls3dw(*words).status == 0
    faces = states(tmp_path / "faces")
    assert ls3dw(*words, "--decode", "reference", "--version-name", "v2").status == 0
    assert states(tmp_path / "faces") == faces
    newest, first = open_dataset(tmp_path), open_dataset(tmp_path, "v1")
    assert (newest.version, newest.versions) == ("v2", ("v1", "v2"))
    assert first.index["id"].tolist() == newest.index["id"].tolist()
    rounded = newest[0].landmarks_2d
    np.testing.assert_array_equal(rounded, rounded.round())
    assert (first[0].landmarks_2d != first[0].landmarks_2d.round()).any()
    np.testing.assert_array_equal(first[0].image, newest[0].image)


def test_limit_counts_by_source(ls3dw: Command, tmp_path: Path, quick: list[str]) -> None:
    assert ls3dw("build", "--out", tmp_path, *quick, "--limit", "8", "--shard-size", "5").status == 0
    index = open_dataset(tmp_path).index
    assert index.groupby("source").size().to_dict() == dict.fromkeys(COUNTS, 8)
    assert index["id"][index["source"] == "300vw"].tolist() == [f"300vw/001/{n:06d}" for n in range(1, 9)]
    assert sorted(index["shard"][index["source"] == "300w"].unique()) == ["indoor-0000", "indoor-0001", "outdoor-0000"]


def test_subsets(ls3dw: Command, tmp_path: Path, quick: list[str]) -> None:
    assert ls3dw("build", "--out", tmp_path / "d", *quick, "--subset", "outdoor,all").status == 0
    assert open_dataset(tmp_path / "d").index.groupby("subset").size().to_dict() == {"outdoor": 6, "all": 12}
    unknown = ls3dw("build", "--out", tmp_path / "e", *quick, "--subset", "indoors")
    assert unknown.status == 1
    assert "no subset indoors in these sources; choose from" in unknown.error
    assert "indoor" in unknown.error


def test_a_root_for_each_source(ls3dw: Command, tmp_path: Path, quick: list[str]) -> None:
    roots = ("--root", f"menpo={EMBEDDED / 'Menpo'}", "--root", f"aflw2000={EMBEDDED / 'AFLW2000'}")
    out = tmp_path / "d"
    done = ls3dw("build", "--out", out, *quick, "--source", "menpo,aflw2000", *roots, "--limit", "2", "--json")
    assert done.status == 0
    assert {name: counts["written"] for name, counts in json.loads(done.out)["sources"].items()} == {
        "aflw2000": 2,
        "menpo": 2,
    }
    missing = ls3dw("build", "--out", out, *quick, "--source", "menpo,300w", *roots[:2])
    assert missing.status == 2
    assert "source 300w needs its folder: --root DIR" in missing.err


def test_guidance_by_the_annotation(
    ls3dw: Command, tmp_path: Path, quick: list[str], tiny_models: dict[str, str]
) -> None:
    words = ("--subset", "train", "--source", "menpo", "--root", EMBEDDED, "--model-3d", tiny_models["2d-to-3d"])
    for guidance in ("predicted", "annotated"):
        assert ls3dw("build", "--out", tmp_path / guidance, *quick, *words, "--guidance", guidance).status == 0
    with h5py.File(tmp_path / "annotated/annotations/v1/menpo/train-0000.h5") as file:
        whole = np.isfinite(file["annotation"][:]).all(axis=(1, 2))
        assert file["guided"][:].tolist() == whole.tolist()
        given = file["landmarks_3d"][..., :2]
    with h5py.File(tmp_path / "predicted/annotations/v1/menpo/train-0000.h5") as file:
        assert not file["guided"][:].any()
        predicted = file["landmarks_3d"][..., :2]
    assert (given != predicted).any(axis=(1, 2)).tolist() == whole.tolist()


def test_no_depth(ls3dw: Command, tmp_path: Path, quick: list[str]) -> None:
    assert ls3dw("build", "--out", tmp_path, *quick, "--limit", "1").status == 0
    for face in open_dataset(tmp_path):
        assert np.isnan(face.landmarks_3d[:, 2]).all()
        assert np.isfinite(face.landmarks_3d[:, :2]).all()
        assert np.isfinite(face.pose).all()


def test_dry_run_writes_nothing(ls3dw: Command, tmp_path: Path, quick: list[str]) -> None:
    done = ls3dw("build", "--out", tmp_path / "d", *quick, "--dry-run")
    assert (done.status, done.err) == (0, "")
    assert "300w       12 pictures or frames, 2 of 2 parts left" in done.out
    assert "6 pictures found, 300 were published" in done.out
    assert "nothing was written" in done.out
    assert list(tmp_path.iterdir()) == []


def test_verbose_says_what_it_waited_for(ls3dw: Command, tmp_path: Path, quick: list[str]) -> None:
    done = ls3dw("build", "--out", tmp_path, *quick, "--limit", "1", "-v", "--json")
    assert done.status == 0
    assert set(json.loads(done.out)["sources"]) == set(COUNTS)
    lines = done.err.splitlines()
    stages = {line[:24].rstrip(): float(line.split()[-2]) for line in lines if line.endswith("%")}
    assert {"decode", "encode pictures", "networks", "write shards"} < stages.keys()
    assert stages["networks"] > 0
    assert "the first is what the build waits for" in lines[-1]
    again = ls3dw("build", "--out", tmp_path, *quick, "--limit", "1", "-v", "--json")
    assert (again.status, again.err.splitlines()[-1]) == (0, "nothing was left to annotate")


def test_pipeline_file_counts_less_than_the_command_line(
    ls3dw: Command, tmp_path: Path, quick: list[str], tiny_models: dict[str, str]
) -> None:
    pipeline = tmp_path / "p.yaml"
    pipeline.write_text(
        f"sources: menpo\nroots: {{menpo: {EMBEDDED}}}\nout: {tmp_path / 'd'}\nlimit: 3\nshard-size: 2\n"
        f"model-2d: {tiny_models['2d']}\nmodel_3d: {tiny_models['3d']}\nmodel-depth: none\n"
        "gpu: none\nworkers: 0\nflip: false\n"
    )
    assert ls3dw("build", "--pipeline", pipeline, "--limit", "4").status == 0
    dataset = open_dataset(tmp_path / "d")
    assert len(dataset) == 4
    assert dataset.manifest["configuration"] | {"models": 0, "picture": 0} == {
        "annotations": "network",
        "data": "sources",
        "decode": "subpixel",
        "flip": False,
        "guidance": "predicted",
        "limit": 4,
        "models": 0,
        "picture": 0,
        "shard_size": 2,
        "subsets": [],
    }


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("limt: 3", "unknown option limt"),
        ("limit: 0", "limit 0: expected at least 1"),
        ("limit: many", "limit 'many': expected a whole number"),
        ("workers: 1.5\nflip: perhaps", "flip 'perhaps': expected true or false; workers 1.5: expected a whole number"),
        ("out: [1]", "out [1]: expected a path"),
        ("gpu: 77", "cuda:77: this machine shows"),
        ("decode: fast", "decode 'fast': expected one of subpixel, reference"),
        ("sources: [menpo, lfw]", "source 'lfw': expected one of"),
        ("- limit", "expected options of ls3dw build"),
        ("a: [", "not a readable pipeline"),
        ("\x00", "not a readable pipeline"),
    ],
)
def test_pipeline_faults(ls3dw: Command, tmp_path: Path, text: str, fault: str) -> None:
    pipeline = tmp_path / "p.yaml"
    pipeline.write_text(text)
    refused = ls3dw("build", "--pipeline", pipeline, *([] if "out" in text else ["--out", tmp_path / "d"]))
    assert refused.status == 1
    assert fault in refused.error
    assert not (tmp_path / "d").exists()


def tree(root: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else None for path in root.rglob("*")
    }


def test_a_folder_that_is_no_data_set_is_not_touched(ls3dw: Command, tmp_path: Path, quick: list[str]) -> None:
    out = tmp_path / "mine"
    (out / "movie.partial").mkdir(parents=True)
    (out / "movie.partial" / "half.h5.partial").write_bytes(b"film")
    (out / "thesis.partial").write_bytes(b"years")
    (out / "annotations" / "v2.partial").mkdir(parents=True)
    before = tree(out)
    built = ls3dw("build", "--out", out, *quick)
    assert (built.status, "not empty and not a data set" in built.error) == (1, True)
    assert ls3dw("regenerate", out, *quick).status == 1
    assert ls3dw("versions", out, "delete", "v2").status == 1
    assert ls3dw("audit", "apply", out, tmp_path / "none.json").status == 1
    assert ls3dw("synth", out, "--count", "1", "--gpu", "none").status == 1
    assert {name: data for name, data in tree(out).items() if name != ".lock"} == before


def test_files_of_others_in_a_data_set_stay(ls3dw: Command, tmp_path: Path, quick: list[str]) -> None:
    out, beside = tmp_path / "data", tmp_path / "beside"
    words = ("build", "--out", out, "--limit", "1", *quick)
    assert ls3dw(*words).status == 0
    beside.mkdir()
    (beside / "x.h5.partial").write_bytes(b"theirs")
    (out / "thesis.partial").write_bytes(b"years")
    (out / "faces" / "linked").symlink_to(beside, target_is_directory=True)
    left = out / "faces" / "300w" / f"x.h5.{'0' * 16}.partial"
    left.write_bytes(b"half")
    assert ls3dw(*words).status == 0
    assert not left.exists()
    assert (out / "thesis.partial").read_bytes() == b"years"
    assert (beside / "x.h5.partial").read_bytes() == b"theirs"


def rename(root: Path) -> None:
    for path in (root / "300W/01_Indoor").glob("indoor_001.*"):
        path.rename(path.with_stem("indoor_000"))


def replace_picture(root: Path) -> None:
    path = root / "300W/01_Indoor/indoor_001.png"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def remove_and_add(root: Path) -> None:
    for suffix in (".png", ".pts"):
        (root / f"300W/01_Indoor/indoor_001{suffix}").rename(root / f"300W/01_Indoor/indoor_009{suffix}")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (rename, "names or sizes of its 4 files changed, since indoor-0000 was written"),
        (replace_picture, "the content of its 4 files changed, since indoor-0000 was written"),
        (remove_and_add, "files of"),
        (lambda root: (root / "300W/01_Indoor/indoor_006.png").unlink(), None),
    ],
)
def test_a_source_that_changes_between_two_runs(
    ls3dw: Command, tmp_path: Path, quick: list[str], change: Callable[[Path], None], fault: str | None
) -> None:
    root, out = tmp_path / "source", tmp_path / "data"
    shutil.copytree(folder("embedded") / "300W", root / "300W")
    words = ("build", "--source", "300w", "--root", root, "--out", out, "--shard-size", "2", *quick)
    assert ls3dw(*words).status == 0
    # As if it had been interrupted: nothing is published, and the last shard of each part is not finished.
    for name in ("manifest.json", "300w/indoor-0002.json", "300w/outdoor-0002.json"):
        (out / "annotations/v1" / name).unlink()
    for path in out.glob("faces/300w/*-0002.h5"):
        path.unlink()
    (out / "dataset.json").write_text(json.dumps({"format": 1, "newest": None, "versions": []}))
    change(root)
    again = ls3dw(*words)
    if fault is None:
        assert again.status == 0, again.err
    else:
        assert (again.status, fault in again.error) == (1, True), again.err
        assert "300w/indoor" in again.error
        assert "choose another --out" in again.error
