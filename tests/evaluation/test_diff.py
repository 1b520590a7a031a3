"""`ls3dw diff`: planted moves come out as they were planted, and names from files cannot break the page."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import Command
from PIL import Image

from ls3dw.core.markup import GROUPS
from ls3dw.core.metrics import nme
from ls3dw.dataset.open import open_dataset
from ls3dw.errors import DatasetError
from ls3dw.evaluation.moves import Moves, changes, compare, most_changed

MOVED_JAW = 3.0
"""Pixels of the crop by which the jaws of menpo are moved to the right, in 2D and 3D."""

EVIL = "300w/<img src=x>"


@pytest.fixture(scope="module")
def data(sample_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """v1; and v2: all the same but for the jaws of menpo, and 300w, whose 2D points are the source's own."""
    root = Path(shutil.copytree(sample_data, tmp_path_factory.mktemp("diff") / "data"))
    shutil.copytree(root / "annotations" / "v1", root / "annotations" / "v2")
    (root / "dataset.json").write_text(json.dumps({"format": 1, "newest": "v2", "versions": ["v1", "v2"]}))
    index = open_dataset(root, "v2").index
    for path in sorted(root.glob("annotations/v2/*/*.h5")):
        with h5py.File(path, "r+") as file:
            if path.parent.name == "menpo":
                for name in ("landmarks_2d", "landmarks_3d"):
                    points = file[name][:]
                    points[:, list(GROUPS["jaw"]), 0] += MOVED_JAW / file["crop"][:, 0, 0][:, None]
                    file[name][:] = points
            elif path.parent.name == "300w":
                file["landmarks_2d"][:] = file["annotation"][:]
            file["nme"][:] = nme(file["landmarks_2d"][:], file["annotation"][:])
            rows = (index["source"] == path.parent.name) & (index["shard"] == path.stem)
            index.loc[rows, "nme"] = file["nme"][:]
    index.to_parquet(root / "annotations/v2/index.parquet")
    return root


@pytest.fixture(scope="module")
def moves(data: Path) -> Moves:
    return compare(open_dataset(data, "v1"), open_dataset(data, "v2"))


def test_how_far_each_source_moved(moves: Moves) -> None:
    rows = {(row.group, row.name): row for row in changes(moves)}
    assert (rows["all", "all"].faces, rows["all", "all"].moved) == (132, 24)
    assert (rows["source", "300vw"].moved, rows["source", "300vw"].highest) == (0, 0)
    menpo = rows["source", "menpo"]
    jaw = MOVED_JAW * len(GROUPS["jaw"]) / 68
    assert menpo.moved == 12
    for value in (menpo.mean, menpo.median, menpo.highest, menpo.mean_2d, menpo.mean_3d):
        assert value == pytest.approx(jaw, abs=1e-3)
    w300 = rows["source", "300w"]
    assert (w300.mean_3d, w300.nme_after, w300.better, w300.worse) == (0, 0, 12, 0)
    assert w300.share == pytest.approx(w300.nme_before / 2, rel=1e-4), (
        "the 2D points went all the way, the 3D ones none"
    )
    assert (w300.failures_before, w300.failures_after) == (12, 0), "the networks are random"
    assert menpo.compared == 9, "profiles have no points to compare with"
    yaw = [row for row in changes(moves) if row.group == "yaw"]
    assert sum(row.faces for row in yaw) <= 132
    assert {row.name for row in yaw} <= {"0-30", "30-60", "60-90"}


def test_landmark_groups(moves: Moves) -> None:
    parts = {part.name: part for part in moves.parts}
    assert list(parts) == list(GROUPS)
    assert parts["jaw"].moved == 24
    assert parts["jaw"].mean_3d == pytest.approx(MOVED_JAW * 12 / 132, abs=1e-4)
    assert parts["inner lip"].moved == 12
    assert parts["inner lip"].mean_3d == 0
    assert all(part.nme_after < part.nme_before for part in moves.parts if part.name != "jaw")


def test_the_groups_errors_average_to_those_of_the_faces(moves: Moves) -> None:
    """Each group weighs as many points as it has: 2D points for most sources, projected 3D ones for AFLW2000-3D."""
    sizes = np.array([len(members) for members in GROUPS.values()]) / 68
    faces = moves.nme_before[np.isfinite(moves.nme_before)]
    assert len(faces) == 129
    assert sizes @ [part.nme_before for part in moves.parts] == pytest.approx(faces.mean(), rel=1e-5)


def test_most_changed(moves: Moves) -> None:
    chosen = most_changed(moves, 5)
    source = moves.index["source"].to_numpy()
    assert set(source[chosen["better"]]) <= {"300w", "menpo", "aflw2000"}
    assert {len(rows) for rows in chosen.values()} <= set(range(6))
    gain = moves.nme_before - moves.nme_after
    assert gain[chosen["better"]].tolist() == sorted(gain[np.isfinite(gain)], reverse=True)[:5]
    assert (gain[chosen["worse"]] < 0).all()
    assert moves.moved[chosen["moved"]].tolist() == sorted(moves.moved, reverse=True)[:5]
    assert all(len(rows) == 0 for rows in most_changed(moves, 0).values())


def test_a_version_and_itself(data: Path) -> None:
    same = compare(open_dataset(data, "v1"), open_dataset(data, "v1"))
    assert not same.moved.any()
    assert {name: len(rows) for name, rows in most_changed(same, 9).items()} == {"better": 0, "worse": 0, "moved": 0}
    assert (same.only_before, same.only_after) == (0, 0)


def test_text_json_plots_and_pairs(ls3dw: Command, data: Path) -> None:
    told = ls3dw("diff", data, "v1", "v2", "--top", "2")
    assert told.status == 0, told.err
    assert "v1 to v2: 132 faces in both" in told.out
    folder = data / "galleries" / "v2" / "diff-v1"
    assert str(folder / "index.html") in told.out
    for name in ("errors.png", "moved.png", "groups.png"):
        with Image.open(folder / name) as plot:
            assert plot.format == "PNG"
            assert np.asarray(plot.convert("L")).std() > 5, "an empty plot"
    page = (folder / "index.html").read_text()
    pairs = sorted(path.name for path in folder.glob("*.jpg"))
    assert len(pairs) >= 4
    assert all(f'src="{name}"' in page for name in pairs)
    with Image.open(folder / "moved-000.jpg") as pair:
        left, right = np.asarray(pair)[:, :300].astype(int), np.asarray(pair)[:, -300:].astype(int)
        assert np.abs(left - right).max() > 100, "other points on the two sides"
        assert np.median(np.abs(left - right)) < 5, "on the same picture"

    values = json.loads(ls3dw("diff", data, "v1", "v2", "--json", "--no-gallery", "--top", "1").out)
    assert (values["faces"], values["gallery"], values["threshold"]) == (132, None, 0.25)
    assert values["changes"][0]["moved"] == 24
    assert len(values["most_changed"]["moved"]) == 1
    assert ls3dw("diff", data, "v1", "v2", "--moved", "50", "--no-gallery", "--json").out.count('"moved": 24') == 0


def test_names_from_files_are_escaped(data: Path, ls3dw: Command, tmp_path: Path) -> None:
    root = Path(shutil.copytree(data, tmp_path / "data"))
    for version in ("v1", "v2"):
        index = open_dataset(root, version).index.replace({"id": {"300w/01_Indoor/indoor_001": EVIL}})
        index.to_parquet(root / "annotations" / version / "index.parquet")
        with h5py.File(root / "annotations" / version / "300w/indoor-0000.h5", "r+") as file:
            ids = [EVIL.encode() if "indoor_001" in str(name) else name for name in file["id"][:]]
            file["id"][:] = ids
    assert ls3dw("diff", root, "v1", "v2", "--top", "40").status == 0
    sources: list[str] = []

    class Images(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            sources.extend(str(value) for name, value in attrs if tag == "img" and name == "src")

    page = (root / "galleries/v2/diff-v1/index.html").read_text()
    Images().feed(page)
    assert "x" not in sources
    assert all((root / "galleries/v2/diff-v1" / source).is_file() for source in sources)
    assert "300w/&lt;img src=x&gt;" in page


def test_faults(ls3dw: Command, data: Path, tmp_path: Path) -> None:
    assert "no version 'v9'; it has v1, v2" in ls3dw("diff", data, "v1", "v9").error
    assert ls3dw("diff", data, "v1").status == 2
    root = Path(shutil.copytree(data, tmp_path / "data"))
    before = open_dataset(root, "v1")
    index = open_dataset(root, "v2").index
    index[index["source"] == "menpo"].to_parquet(root / "annotations/v2/index.parquet")
    part = compare(before, open_dataset(root, "v2"))
    assert (len(part), part.only_before, part.only_after) == (12, 120, 0)
    index.assign(shard="other").to_parquet(root / "annotations/v2/index.parquet")
    with pytest.raises(DatasetError, match="share no face"):
        compare(before, open_dataset(root, "v2"))
