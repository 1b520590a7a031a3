"""Subsets: shapes against menpo's, pose-balanced bins, the balanced draw, the sampler, the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from conftest import Command
from helpers import REAL
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from subset_data import flip, make_index, write_dataset

from ls3dw.dataset import open_dataset
from ls3dw.errors import ConfigurationError, DatasetError
from ls3dw.pose import head_pose, mean_head
from ls3dw.subsets.balanced import BalancedDraw, BalancedOptions, draw_balanced
from ls3dw.subsets.duplicates import NEAR, near_duplicates
from ls3dw.subsets.pose_balanced import MODES, PoseBalance, balance_by_pose
from ls3dw.subsets.ranks import ranks
from ls3dw.subsets.sampler import SubsetSampler
from ls3dw.subsets.shapes import align, project

ROWS = REAL / "aflw2000_landmarks_odd_rows.npz"
SMALL = BalancedOptions(total=90)


def heads(count: int, seed: int = 0, spread: float = 30) -> tuple[np.ndarray, np.ndarray]:
    """Mean heads turned by a normal yaw, each with its own noise, roll, size and place: (N, 68, 2), yaw (N,)."""
    dice = np.random.default_rng(seed)
    yaw = np.clip(dice.normal(0, spread, count), -85, 85)
    cos, sin = np.cos(np.radians(yaw))[:, None], np.sin(np.radians(yaw))[:, None]
    x, y, z = mean_head().T
    flat = np.stack((cos * x - sin * z, np.broadcast_to(-y, (count, 68))), axis=2)
    flat = flat + dice.normal(0, 0.02, flat.shape)
    roll = dice.normal(0, 0.2, count)
    turn = np.stack((np.cos(roll), -np.sin(roll), np.sin(roll), np.cos(roll)), axis=1).reshape(-1, 2, 2)
    size, place = dice.uniform(20, 200, (count, 1, 1)), dice.uniform(0, 500, (count, 1, 2))
    return np.asarray(flat @ turn * size + place), yaw


# Shapes


def test_alignment_and_components_are_menpos() -> None:
    from menpo.model import PCAModel
    from menpo.shape import PointCloud
    from menpo.transform import GeneralizedProcrustesAnalysis

    shapes, _ = heads(40)
    shapes -= shapes.mean(axis=1, keepdims=True)  # menpo keeps the place of the first mean, we do not
    theirs = GeneralizedProcrustesAnalysis([PointCloud(shape) for shape in shapes])
    expected = np.stack(
        [each.apply(PointCloud(shape)).points for each, shape in zip(theirs.transforms, shapes, strict=True)]
    )
    ours = align(shapes)
    size = np.linalg.norm(expected.mean(axis=0))
    np.testing.assert_allclose(ours / size, expected / size, atol=1e-3)
    model = PCAModel([PointCloud(shape.astype(np.float64)) for shape in ours])
    for component in (0, 1):
        weights = np.array([model.project(PointCloud(shape.astype(np.float64)))[component] for shape in ours])
        mine = project(ours, component)
        np.testing.assert_allclose(np.abs(mine), np.abs(weights), atol=1e-3 * np.abs(weights).max())


@settings(deadline=None, max_examples=30)
@given(st.floats(0.1, 20), st.floats(-400, 400), st.floats(-3, 3))
def test_alignment_forgets_place_turn_and_size_of_a_shape(zoom: float, shift: float, angle: float) -> None:
    shapes, _ = heads(12, seed=3)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    moved = shapes.copy()
    # Only its share of the mean's size stays, which all shapes have in common.
    moved[4] = shapes[4] @ turn * zoom + shift
    ours = [aligned / np.linalg.norm(aligned[0]) for aligned in (align(shapes), align(moved))]
    difference = [each[:, None] - each[None] for each in ours]
    distances = [np.linalg.norm(each.reshape(12, 12, -1), axis=2) for each in difference]
    np.testing.assert_allclose(distances[0], distances[1], atol=0.02)


def test_first_component_is_the_yaw_where_heads_turn() -> None:
    shapes, yaw = heads(400)
    projection = project(align(shapes), 0)
    assert abs(np.corrcoef(projection, yaw)[0, 1]) > 0.95
    np.testing.assert_array_equal(projection, project(align(shapes), 0))
    for wrong in (np.zeros((3, 68, 2)), np.full((3, 68, 2), np.nan), np.zeros((0, 68, 2)), np.zeros((68, 2))):
        with pytest.raises(ValueError, match="expected"):
            align(wrong)
    with pytest.raises(ValueError, match="component"):
        project(align(shapes), 136)


# Balanced by pose


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 12), st.sampled_from(MODES), st.integers(0, 3))
def test_bins_are_equal_within_what_repetition_allows(bins: int, mode: Any, seed: int) -> None:
    shapes, _ = heads(300, seed)
    ids = [f"face{number}" for number in range(300)]
    balanced = balance_by_pose(ids, shapes, PoseBalance(bins=bins, mode=mode))
    counts, after = balanced.counts, balanced.balanced_counts
    distance = np.abs(balanced.projection).astype(np.float64)
    np.testing.assert_allclose(np.diff(balanced.edges), distance.max() / bins)
    low, high = balanced.edges[balanced.bin], balanced.edges[balanced.bin + 1]
    assert ((distance >= low) & (distance <= high)).all()
    filled = counts > 0
    if mode == "repeat":
        assert (np.abs(after - counts.max())[filled] <= counts[filled] / 2).all()
        np.testing.assert_array_equal(balanced.weight, balanced.repeats)
    elif mode == "thin":
        assert (after[filled] == counts[filled].min()).all()
        assert set(balanced.repeats) <= {0, 1}
    else:
        np.testing.assert_allclose(after[filled], counts.max())
        assert (balanced.repeats == 1).all()


def test_faces_with_missing_points_are_left_out() -> None:
    shapes, _ = heads(50)
    ids = [f"face{number}" for number in range(50)]
    whole = balance_by_pose(ids[:40], shapes[:40], PoseBalance())
    shapes[40:, 3, 0] = np.nan
    shapes[45] = 7.0
    holes = balance_by_pose(ids, shapes, PoseBalance())
    np.testing.assert_array_equal(holes.rows, np.arange(40))
    np.testing.assert_array_equal(holes.repeats, whole.repeats)
    with pytest.raises(ConfigurationError, match="none with all its points"):
        balance_by_pose(ids[40:], shapes[40:], PoseBalance())
    for wrong in ({"bins": 0}, {"component": -1}, {"mode": "double"}):
        with pytest.raises(ConfigurationError, match="expected"):
            PoseBalance(**wrong)


@pytest.mark.skipif(not ROWS.is_file(), reason="the real points are not here")
def test_real_shapes_are_balanced_by_yaw() -> None:
    with np.load(ROWS) as rows:
        shapes = rows["published_pt3d_68"][:, :2].transpose(0, 2, 1)
    balanced = balance_by_pose([""] * len(shapes), shapes, PoseBalance())
    assert abs(np.corrcoef(balanced.projection, head_pose(shapes)[:, 0])[0, 1]) > 0.98
    assert (np.abs(balanced.balanced_counts - balanced.counts.max()) <= balanced.counts / 2).all()


# Near-duplicates


HASHES = arrays(np.uint64, st.integers(1, 60), elements=st.integers(0, 2**64 - 1))


@settings(deadline=None, max_examples=20)
@given(HASHES, st.integers(0, 10), st.integers(0, 2**32), st.integers(1, 12))
def test_near_duplicates_are_those_of_a_plain_comparison(hashes: np.ndarray, limit: int, seed: int, films: int) -> None:
    dice = np.random.default_rng(seed)
    # Copies with some bits turned, so that every distance up to the limit and just above it occurs.
    copies = [flip(value, *dice.choice(64, dice.integers(0, limit + 3), replace=False)) for value in hashes]
    every = np.concatenate((hashes, np.array(copies, dtype=np.uint64)))
    media = dice.integers(0, films, len(every))
    found = near_duplicates(every, media, limit)
    pairs = {tuple(pair) for pair in found.pairs.tolist()}
    for one in range(len(every)):
        for other in range(one):
            near = (int(every[one]) ^ int(every[other])).bit_count() <= limit
            nodes = tuple(sorted((int(found.node[one]), int(found.node[other]))))
            told = nodes[0] == nodes[1] or nodes in pairs
            if media[one] != media[other]:
                assert told == near
            elif told:
                assert near, "nothing is called near that is not"


def test_a_limit_that_cannot_be_searched() -> None:
    for limit in (-1, 12, 64):
        with pytest.raises(ConfigurationError, match="expected 0 to"):
            near_duplicates(np.zeros(2, np.uint64), np.arange(2), limit)


# LS3D-W Balanced


def check_draw(index: pd.DataFrame, drawn: BalancedDraw, options: BalancedOptions) -> pd.DataFrame:
    """Check what holds of every draw; return the drawn rows."""
    chosen = index.iloc[drawn.rows].assign(bin=drawn.bin, gap=drawn.gap)
    turned = chosen["yaw"].abs()
    for name, low, high in (("0-30", -1, 30), ("30-60", 30, 60), ("60-90", 60, 90)):
        rows = chosen["bin"] == name
        assert rows.sum() == len(chosen) / 3
        assert ((turned > low) & (turned <= high))[rows].all()
    assert chosen["id"].is_unique
    assert not chosen["broken"].any()
    assert not (chosen["nme"] > options.failure).any()
    assert (chosen["pose_residual"] <= options.residual).all()
    films = chosen[chosen["frame"] > 0]
    share = max(1, int(options.video_share * len(chosen)))
    assert films["media"].value_counts().max() <= share if len(films) else True
    # No two faces of different media are near-duplicates.
    found = near_duplicates(chosen["phash"].to_numpy(), pd.factorize(chosen["media"])[0], options.near)
    assert not len(found.pairs)
    assert not set(drawn.excluded) & set(drawn.rows.tolist())
    return chosen


def test_bins_have_equal_numbers() -> None:
    index = make_index(menpo=400, aflw2000=100, v001=900)
    drawn = draw_balanced(index, SMALL)
    chosen = check_draw(index, drawn, SMALL)
    assert len(chosen) == 90
    assert drawn.report["complete"]
    assert drawn.report["sources"]["0-30"] == chosen[chosen["bin"] == "0-30"]["source"].value_counts().to_dict()


def test_edges_belong_to_the_lower_bin() -> None:
    index = make_index(menpo=6).assign(yaw=np.array([0, -30, 30.001, -60, 60.001, 90], np.float32))
    chosen = check_draw(index, draw_balanced(index, BalancedOptions(total=6)), BalancedOptions(total=6))
    assert sorted(zip(chosen["yaw"].abs().round().astype(int), chosen["bin"], strict=True)) == [
        (0, "0-30"),
        (30, "0-30"),
        (30, "30-60"),
        (60, "30-60"),
        (60, "60-90"),
        (90, "60-90"),
    ]


def test_too_few_faces_give_the_most_they_can() -> None:
    index = make_index(menpo=60)
    index.loc[:49, "yaw"] = 5
    index.loc[50:55, "yaw"] = 45
    index.loc[56:, "yaw"] = -80
    drawn = draw_balanced(index, SMALL)
    check_draw(index, drawn, SMALL)
    assert drawn.report["drawn"] == 12
    assert not drawn.report["complete"]
    with pytest.raises(DatasetError, match="no usable face with \\|yaw\\| in 60-90"):
        draw_balanced(index.iloc[:56], SMALL)


def test_the_share_of_a_video_falls_with_the_total() -> None:
    """Two videos alone may give 5 % each, whatever the total: with few stills the total has to shrink."""
    index = make_index(menpo=45, v001=3000, v002=3000)
    drawn = draw_balanced(index, BalancedOptions(total=300, video_share=0.2))
    chosen = check_draw(index, drawn, BalancedOptions(total=300, video_share=0.2))
    assert 45 <= len(chosen) < 90
    assert drawn.report["largest medium"][1] <= 0.2 * len(chosen)


def test_what_is_left_out_is_told() -> None:
    index = make_index(menpo=300)
    index.loc[0:9, "broken"] = True
    index.loc[10:19, "nme"] = 0.0701
    index.loc[20:29, "nme"] = np.nan
    index.loc[30:34, "yaw"] = np.nan
    index.loc[35:39, "yaw"] = 90.5
    index.loc[40:49, "pose_residual"] = 0.21
    index.loc[50:59, "pose_residual"] = np.nan
    drawn = draw_balanced(index, SMALL)
    reasons = {row: reason for row, reason in drawn.excluded.items() if not reason.startswith("same")}
    expected = dict.fromkeys(range(10), "broken frame") | dict.fromkeys(range(10, 20), "failure")
    expected |= dict.fromkeys(range(30, 40), "no pose within 90 degrees")
    assert reasons == expected | dict.fromkeys(range(40, 60), "unlikely pose")
    assert drawn.report["excluded"]["failure"] == 10
    everything = draw_balanced(index, BalancedOptions(total=240))
    assert everything.report["without nme"] > 0, "a face that cannot be judged is no failure"


def test_a_picture_is_drawn_once_whatever_its_source() -> None:
    index = make_index(menpo=150, aflw2000=150, v001=2)
    twins = [flip(value, *range(number % (NEAR + 1))) for number, value in enumerate(index["phash"][:150])]
    index.loc[150:299, "phash"] = np.array(twins, dtype=np.uint64)
    index.loc[150:299, "yaw"] = index["yaw"].to_numpy()[:150]
    drawn = draw_balanced(index, BalancedOptions(total=300))
    chosen = check_draw(index, drawn, BalancedOptions(total=300))
    pairs = {row % 150 for row in drawn.rows if row < 300}
    assert len(pairs) == len(chosen[chosen["source"] != "300vw"])
    duplicate = next(reason for reason in drawn.excluded.values() if reason.startswith("same picture as "))
    assert duplicate.removeprefix("same picture as ") in set(chosen["id"])
    assert drawn.report["near-duplicates"]["pairs of hashes"]["aflw2000+menpo"] == 150 - 150 // (NEAR + 1) - 1


def test_turned_copies_of_one_picture_count_once() -> None:
    index = make_index(**{"300wlp": 12})
    copies = [f"300wlp/HELEN{flip}/HELEN_2_1_{number}" for flip in ("", "_Flip") for number in range(6)]
    index["id"] = copies
    index["yaw"] = np.tile([10, 40, 70], 4).astype(np.float32)
    with pytest.raises(DatasetError, match="picture of one in another"):
        draw_balanced(index, BalancedOptions(total=3))


def test_frames_are_spread_while_others_remain() -> None:
    index = make_index({"yaw": np.float32(0)}, v001=640, v002=640)
    dice = np.random.default_rng(0)
    index["yaw"] = dice.permutation(np.repeat([10, 40, 70], [1000, 200, 80])).astype(np.float32)
    options = BalancedOptions(total=30, gap=32, video_share=0.6)
    drawn = draw_balanced(index, options)
    chosen = check_draw(index, drawn, options)
    assert set(chosen["gap"]) == {32}
    for _, film in chosen.sort_values("frame").groupby("media"):
        assert film["frame"].diff().min() >= 32
    crowded = draw_balanced(index, BalancedOptions(total=240, gap=32, video_share=0.6))
    assert crowded.report["drawn"] > 90
    assert min(crowded.gap) < 32 <= max(crowded.gap)


def test_frames_that_look_alike_come_last() -> None:
    """Half of a video stands still: its frames are drawn only when the others are used up."""
    index = make_index(v001=1200)
    index.loc[600:, "phash"] = index["phash"].iloc[600]
    moving = draw_balanced(index, BalancedOptions(total=30, gap=8, video_share=1))
    still = (moving.rows >= 600).sum()
    assert still <= 1
    assert moving.report["alike frames"] == 0
    crowded = draw_balanced(index, BalancedOptions(total=900, gap=8, video_share=1))
    assert (crowded.rows >= 600).sum() > 50
    assert crowded.report["alike frames"] > 0


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 1000), st.integers(0, 2**32))
def test_the_same_seed_draws_the_same_whatever_the_order(seed: int, shuffle: int) -> None:
    index = make_index(menpo=200, v001=300)
    options = BalancedOptions(total=60, seed=seed)
    other = index.sample(frac=1, random_state=shuffle).reset_index(drop=True)
    drawn, again = draw_balanced(index, options), draw_balanced(other, options)
    assert index["id"].iloc[drawn.rows].tolist() == other["id"].iloc[again.rows].tolist()


def test_another_seed_draws_others() -> None:
    index = make_index(menpo=900)
    draws = [set(draw_balanced(index, BalancedOptions(total=90, seed=seed)).rows.tolist()) for seed in (0, 1)]
    assert len(draws[0] & draws[1]) < 45


def test_a_further_source_changes_no_more_than_its_share() -> None:
    old = make_index(menpo=900)
    new = pd.concat([make_index(aflw2000=100), old], ignore_index=True)
    before = set(old["id"].iloc[draw_balanced(old, BalancedOptions(total=300)).rows])
    after = set(new["id"].iloc[draw_balanced(new, BalancedOptions(total=300)).rows])
    added = {face for face in after if face.startswith("aflw2000/")}
    assert after - before == added, "every new face is one of the new source"
    assert 10 <= len(added) <= 50, "a tenth of all faces gives about a tenth of the draw"


def test_ranks_depend_on_seed_and_id_alone() -> None:
    names = ["a", "b", "c"]
    assert ranks(names, 1).tolist() == [ranks([name], 1)[0] for name in names]
    assert len({*ranks(names, 1).tolist(), *ranks(names, 2).tolist()}) == 6


@pytest.mark.parametrize(
    "wrong", [{"total": 100}, {"total": 0}, {"video_share": 0}, {"failure": 0}, {"gap": 0}, {"near": 12}]
)
def test_options_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="expected"):
        BalancedOptions(**wrong)


def test_an_index_of_before_says_so() -> None:
    with pytest.raises(DatasetError, match=r"no phash.*build the data set again"):
        draw_balanced(make_index(menpo=9).drop(columns="phash"), SMALL)


# Sampler


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30).filter(any), st.integers(0, 99), st.integers(0, 5))
def test_whole_weights_are_kept_exactly(weights: list[int], seed: int, epoch: int) -> None:
    rows = np.arange(len(weights)) * 10
    sampler = SubsetSampler(rows, np.array(weights), seed=seed)
    sampler.set_epoch(epoch)
    drawn = list(sampler)
    assert len(drawn) == len(sampler) == sum(weights)
    assert np.bincount(np.array(drawn) // 10, minlength=len(rows)).tolist() == weights


def test_real_weights_are_kept_up_to_rounding() -> None:
    weights = np.random.default_rng(0).uniform(0, 4, 50)
    sampler = SubsetSampler(np.arange(50), weights, length=700)
    expected = 700 * weights / weights.sum()
    total = np.zeros(50)
    for epoch in range(40):
        sampler.set_epoch(epoch)
        drawn = np.bincount(list(sampler), minlength=50)
        assert (np.abs(drawn - expected) < 1).all()
        total += drawn
    np.testing.assert_allclose(total / 40, expected, atol=0.35)


def test_epochs_differ_and_processes_share() -> None:
    rows, weights = np.arange(31), np.ones(31)
    sampler = SubsetSampler(rows, weights, seed=4)
    first = list(sampler)
    assert first == list(sampler)
    sampler.set_epoch(1)
    assert first != list(sampler)
    parts = [list(SubsetSampler(rows, weights, seed=4, rank=rank, world=4)) for rank in range(4)]
    assert [len(part) for part in parts] == [8] * 4
    together = [row for step in zip(*parts, strict=True) for row in step]
    assert together[:31] == first
    assert together[31:] == first[:1]
    for wrong in ({"rank": 4, "world": 4}, {"rank": -1}):
        with pytest.raises(ConfigurationError, match="rank"):
            SubsetSampler(rows, weights, **wrong)
    for bad in (np.zeros(31), np.full(31, -1), np.ones(30), np.full(31, np.nan)):
        with pytest.raises(ConfigurationError, match="weight"):
            SubsetSampler(rows, bad)


# Files and commands


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data", make_index(menpo=400, aflw2000=100, v001=900))


def test_balanced_command(ls3dw: Command, data: Path) -> None:
    ended = ls3dw("subset", data, "balanced", "--total", 90, "--seed", 3, "--json")
    assert ended.status == 0, ended.err
    report = json.loads(ended.out)
    dataset = open_dataset(data)
    table = dataset.subset("balanced")
    file = data / "subsets" / "v1" / "balanced.parquet"
    assert report["file"] == str(file)
    assert table["bin"].value_counts().to_dict() == {"0-30": 30, "30-60": 30, "60-90": 30}
    assert {"id", "source", "media", "frame", "x0", "y1", "yaw", "nme", "phash", "model", "shard", "row"} <= set(table)
    assert set(table["model"]) == {"ab" * 32}
    again = dataset.index.set_index("id").loc[table["id"]]
    np.testing.assert_array_equal(again["phash"], table["phash"])
    note = json.loads(pq.read_schema(file).metadata[b"ls3dw"])
    assert note == json.loads(file.with_suffix(".json").read_bytes())
    assert note["options"]["seed"] == 3
    assert note["edges"]["30-60"] == [30, 60]
    assert set(dataset.subset("balanced-excluded")) == {"id", "reason"}
    first = file.read_bytes()
    assert ls3dw("subset", data, "balanced", "--total", 90, "--seed", 3).status == 0
    assert file.read_bytes() == first
    assert not list(data.rglob("*.partial"))


def test_less_than_asked_is_said(ls3dw: Command, data: Path) -> None:
    ended = ls3dw("subset", data, "balanced")
    assert ended.status == 0, ended.err
    assert "of the 7200 asked for: the most that this version can give equally" in ended.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("balanced", "--total", "100"), "multiple of 3"),
        (("balanced", "--name", "../x"), "subset name"),
        (("balanced", "--name", "origins"), "the build wrote it"),
        (("balanced", "--failure", "0.001"), "no usable face"),
    ],
)
def test_subsets_that_cannot_be(ls3dw: Command, data: Path, words: tuple[str, ...], said: str) -> None:
    ended = ls3dw("subset", data, *words)
    assert ended.status == 1
    assert said in ended.error
    assert not (data / "subsets").exists()


def test_an_unknown_subset_names_those_there_are(ls3dw: Command, data: Path) -> None:
    assert ls3dw("subset", data, "balanced", "--total", 9).status == 0
    with pytest.raises(DatasetError, match="there are: balanced, balanced-excluded"):
        open_dataset(data).subset("other")


@pytest.mark.parametrize("mode", MODES)
def test_pose_balanced_command(ls3dw: Command, sample_data: Path, tmp_path: Path, mode: str) -> None:
    name = f"by-{mode}"
    ended = ls3dw("subset", sample_data, "pose-balanced", "--mode", mode, "--name", name, "--json")
    assert ended.status == 0, ended.err
    report = json.loads(ended.out)
    dataset = open_dataset(sample_data)
    table = dataset.subset(name)
    assert list(table) == ["id", "bin", "projection", "repeats", "weight"]
    assert set(table["id"]) <= set(dataset.index["id"])
    assert report["faces"] == len(table)
    assert report["left out"] + sum(report["before"]) == len(dataset)
    picture = (sample_data / "subsets" / dataset.version / f"{name}.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    sampler = SubsetSampler.of(dataset, name)
    drawn = dataset.index["id"].iloc[list(sampler)].value_counts()
    if mode != "weight":
        assert drawn.to_dict() == dict(zip(table["id"], table["repeats"], strict=True))


def test_boxes_and_residuals_stand_in_the_index(sample_data: Path) -> None:
    dataset = open_dataset(sample_data)
    assert np.isfinite(dataset.index["pose_residual"]).all()
    np.testing.assert_array_equal(dataset.index[["x0", "y0", "x1", "y1"]].to_numpy(), dataset.column("box"))
