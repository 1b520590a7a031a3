"""Subsets: shapes against menpo's, pose-balanced bins, near-duplicates, the sampler."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Command
from helpers import REAL
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from subset_data import flip

from ls3dw.core.pose import head_pose, mean_head
from ls3dw.core.procrustes import align, project
from ls3dw.dataset.open import open_dataset
from ls3dw.dataset.subsets.duplicates import near_duplicates
from ls3dw.dataset.subsets.pose_balanced import MODES, PoseBalance, balance_by_pose
from ls3dw.dataset.subsets.sampler import SubsetSampler
from ls3dw.errors import ConfigurationError

ROWS = REAL / "aflw2000_landmarks_odd_rows.npz"


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


# Files


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
