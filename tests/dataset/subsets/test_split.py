"""Splits for training: nothing stands on both sides, and the check finds what does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Command
from hypothesis import given, settings
from hypothesis import strategies as st
from subset_data import flip, make_index, write_dataset

from ls3dw.dataset.open import open_dataset
from ls3dw.dataset.subsets.leaks import find_leaks
from ls3dw.dataset.subsets.lists import read_ids, read_pairs
from ls3dw.dataset.subsets.origins import origin_of
from ls3dw.dataset.subsets.split import SplitOptions, split
from ls3dw.errors import ConfigurationError, DatasetError

FILMS = {f"v{number:03d}": 40 for number in range(1, 31)}


def sides(index: pd.DataFrame, held_out: np.ndarray) -> tuple[list[str], list[str]]:
    ids = index["id"].to_numpy()
    return ids[~held_out].tolist(), ids[held_out].tolist()


@pytest.mark.parametrize(
    ("face", "origin"),
    [
        ("300vw/001/000123", "300vw/001"),
        ("300w/helen/testset/30427236_1", "helen/30427236_1"),
        ("300wlp/HELEN/HELEN_30427236_1_17", "helen/30427236_1"),
        ("300wlp/HELEN_Flip/HELEN_30427236_1_0", "helen/30427236_1"),
        ("300w/ibug/image_092 _01", "ibug/image_092_01"),
        ("300wlp/IBUG/IBUG_image_008_1_0", "ibug/image_008_1"),
        ("300w/ibug/image_008_1", "ibug/image_008_1"),
        ("300w/afw/134212_1", "afw/134212_1"),
        ("300wlp/AFW/AFW_134212_1_2", "afw/134212_1"),
        ("300w/lfpw/testset/image_0001", "lfpw/image_test_0001"),
        ("300wlp/LFPW/LFPW_image_test_0001_3", "lfpw/image_test_0001"),
        ("300w/lfpw/trainset/image_0001", "lfpw/image_train_0001"),
        ("300w/01_Indoor/indoor_001", "300w/01_Indoor/indoor_001"),
        ("menpo/aflw__face_39844", "menpo/aflw__face_39844"),
        ("aflw2000/image00002", "aflw2000/image00002"),
        ("300w/helen/trainset/1003_1_mirror", "helen/1003_1"),
        ("300w/ibug/image_092 _01_mirror", "ibug/image_092_01"),
        ("300w/01_Indoor/indoor_001_mirror", "300w/01_Indoor/indoor_001"),
    ],
)
def test_what_a_face_was_made_of(face: str, origin: str) -> None:
    assert origin_of(face) == origin


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 10_000), st.floats(0.05, 0.6))
def test_no_video_and_no_picture_on_both_sides(seed: int, share: float) -> None:
    index = make_index(menpo=200, aflw2000=100, **FILMS)
    twins = [flip(value, 3, 17, 60) for value in index["phash"][:50]]
    index.loc[200:249, "phash"] = np.array(twins, dtype=np.uint64)
    result = split(index, SplitOptions(share=share, seed=seed))
    train, held = sides(index, result.held_out)
    assert find_leaks(train, held, index).found == []
    for source, rows in index.groupby("source").groups.items():
        assert result.held_out[rows].sum() <= share * len(rows) + 50, source
        assert result.held_out[rows].sum() >= share * len(rows) - 90, source
    assert (pd.Series(result.held_out).groupby(index["media"].where(index["frame"] > 0)).nunique() == 1).all()
    again = split(index, SplitOptions(share=share, seed=seed))
    np.testing.assert_array_equal(result.held_out, again.held_out)


def test_groups_go_through_all_kinds_of_links() -> None:
    """A video near a still, that still listed with another, that one turned from a third: all are one group."""
    index = make_index(v001=5, menpo=3, **{"300wlp": 2, "300w": 1})
    index["id"] = [*index["id"][:8], "300wlp/AFW/AFW_1_1_0", "300wlp/AFW/AFW_1_1_4", "300w/afw/1_1"]
    index.loc[5, "phash"] = flip(index["phash"][2], 0, 1, 2)
    result = split(index, SplitOptions(), same=[("menpo/face00001", "300wlp/AFW/AFW_1_1_4"), ("gone", "300w/afw/1_1")])
    assert len(set(result.group[[0, 1, 2, 3, 4, 5, 8, 9, 10]])) == 1
    assert len(set(result.group)) == 3


def test_official_split_of_300vw() -> None:
    index = make_index(menpo=100, **{f"v{number:03d}": 10 for number in range(1, 6)})
    index.loc[(index["media"] == "002/vid.avi") & (index["frame"] == 4), "phash"] = index["phash"].iloc[-1]
    result = split(index, SplitOptions(official_300vw=True))
    held = pd.Series(result.held_out).groupby(index["media"]).first()
    assert not held["001/vid.avi"]
    assert held[["003/vid.avi", "004/vid.avi", "005/vid.avi"]].all()
    assert held["002/vid.avi"], "a training video that repeats a test video is held out with it"
    assert 0 < result.held_out[:100].sum() <= 10


def test_check_names_every_planted_leak() -> None:
    index = make_index(menpo=300, aflw2000=300, **FILMS)
    index.loc[300:339, "phash"] = np.array(
        [flip(value, 5, 9, 40, 41) for value in index["phash"][:40]], dtype=np.uint64
    )
    first = [*index["id"][:300], "300vw/001/000001", "300vw/001/000002", "300w/helen/testset/5_1", "menpo/face00400"]
    second = [*index["id"][300:600], "300vw/001/000040", "300wlp/HELEN/HELEN_5_1_9", "menpo/face00007"]
    leaks = find_leaks(first, second, index, same=[("aflw2000/face00300", "menpo/face00300")])
    near = [(leak.first, leak.second) for leak in leaks.found if leak.kind == "near-duplicate"]
    assert sorted(near) == [(f"menpo/face{place:05d}", f"aflw2000/face{place:05d}") for place in range(1, 41)]
    others = {(leak.kind, leak.first, leak.second, leak.in_first, leak.in_second) for leak in leaks.found[: -len(near)]}
    assert others == {
        ("same video", "300vw/001/000001", "300vw/001/000040", 2, 1),
        ("same picture", "300w/helen/testset/5_1", "300wlp/HELEN/HELEN_5_1_9", 1, 1),
        ("same face", "menpo/face00007", "menpo/face00007", 1, 1),
        ("listed", "menpo/face00300", "aflw2000/face00300", 1, 1),
    }
    assert leaks.unhashed == 3


def test_without_an_index_the_ids_alone_tell() -> None:
    leaks = find_leaks(["300vw/001/000001", "a", "b"], ["300vw/001/000009", "b", "c"])
    assert leaks.counts == {"same face": 1, "same video": 1}
    assert leaks.unhashed == 5


def test_videos_of_other_sources_stay_whole() -> None:
    index = make_index(menpo=20, own=60)
    index.loc[20:, "frame"] = np.tile(np.arange(1, 31), 2)
    index.loc[20:, "media"] = np.repeat(["one.mp4", "two.mp4"], 30)
    result = split(index, SplitOptions(share=0.5))
    assert result.report["held out by source"]["own"] == 30
    leaks = find_leaks(["own/face00001"], ["own/face00030"], index)
    assert leaks.counts == {"same video": 1}


@pytest.mark.parametrize("wrong", [{"share": 0}, {"share": 1}, {"near": 12}])
def test_options_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="expected"):
        SplitOptions(**wrong)  # type: ignore[arg-type]


def test_lists_of_any_kind(tmp_path: Path) -> None:
    ids = ["300w/ibug/image_092 _01", "001"]
    pd.DataFrame({"other": [1, 2], "id": ids}).to_parquet(tmp_path / "a.parquet")
    pd.DataFrame({"other": [1, 2], "id": ids}).to_csv(tmp_path / "a.csv")
    (tmp_path / "a.txt").write_text("\n".join(["", *ids, " "]), encoding="utf-8")
    for suffix in ("parquet", "csv", "txt"):
        assert read_ids(tmp_path / f"a.{suffix}") == ids
    (tmp_path / "pairs.csv").write_text("a,b\n\nc, d\n")
    assert read_pairs(tmp_path / "pairs.csv") == [("a", "b"), ("c", "d")]
    (tmp_path / "three.csv").write_text("a,b\na,b,c\n")
    with pytest.raises(DatasetError, match="line 2: expected two ids"):
        read_pairs(tmp_path / "three.csv")


@pytest.mark.parametrize("name", ["noise.parquet", "noise.csv", "empty.txt", "empty.csv", "list.npz", "latin.txt"])
def test_lists_that_are_none(ls3dw: Command, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes({"noise": b"\x00\x01 no list", "latin": b"face\xe9\n"}.get(path.stem, b""))
    good = tmp_path / "good.txt"
    good.write_text("a\n")
    ended = ls3dw("split", "check", path, good)
    assert ended.status == 1
    assert name in ended.error


def test_split_and_check_commands(ls3dw: Command, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", make_index(menpo=200, **FILMS))
    ended = ls3dw("split", data, "--share", 0.2, "--json")
    assert ended.status == 0, ended.err
    report = json.loads(ended.out)
    train, held = (open_dataset(data).subset(f"split-{side}") for side in ("train", "held-out"))
    assert len(train) + len(held) == len(open_dataset(data))
    assert report["faces"] == {"train": len(train), "held-out": len(held)}
    assert not set(train["group"]) & set(held["group"])
    clean = ls3dw("split", "check", *report["files"], "--dataset", data)
    assert (clean.status, clean.out, clean.err) == (0, "0 leaks\n", "")
    other = tmp_path / "other.txt"
    other.write_text("\n".join(["menpo/new", held["id"].iloc[0]]))
    ended = ls3dw("split", "check", other, report["files"][1])
    assert ended.status == 1
    assert "share faces" in ended.error
    assert ended.out.splitlines()[-1].startswith("1 leaks: 1 same ")
    told = json.loads(ls3dw("split", "check", other, report["files"][1], "--json").out)
    assert sum(told["counts"].values()) == 1


def test_wrong_words_are_2(ls3dw: Command) -> None:
    for words in (("check",), ("check", "a.txt", "b.txt"), ("--share", "x", "d"), ("draw",), ("a", "b")):
        assert ls3dw("split", *words).status == 2


def test_split_of_a_built_data_set(ls3dw: Command, sample_data: Path) -> None:
    ended = ls3dw("split", sample_data, "--share", 0.3, "--name", "third", "--json")
    assert ended.status == 0, ended.err
    report = json.loads(ended.out)
    assert sum(report["faces"].values()) == len(open_dataset(sample_data))
    assert report["faces"]["held-out"] > 0
    assert ls3dw("split", "check", *report["files"], "--dataset", sample_data).status == 0
    assert ls3dw("verify", sample_data).status == 0
