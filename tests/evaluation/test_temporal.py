"""Landmarks over the frames of a video, against plain loops and motions that are known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Command

from ls3dw.core.markup import POINTS
from ls3dw.dataset.open import open_dataset
from ls3dw.evaluation.temporal import JUMP, measure_motion

FRAMES = 20
SIZE = 100.0


def path() -> np.ndarray:
    """A face that moves evenly, 3 pixels a frame: (F, 68, 2)."""
    shape = np.random.default_rng(0).uniform(0, SIZE, (POINTS, 2))
    return shape + 3.0 * np.arange(FRAMES)[:, None, None]


def motion(points: np.ndarray, truth: np.ndarray, frames: np.ndarray | None = None):  # type: ignore[no-untyped-def]
    return measure_motion(
        points, truth, np.full(len(truth), SIZE), np.arange(1, len(truth) + 1) if frames is None else frames
    )


def test_jitter_is_that_of_plain_loops() -> None:
    rng = np.random.default_rng(1)
    truth = path() + rng.normal(0, 1, (FRAMES, POINTS, 2))
    points = truth + rng.normal(0, 2, truth.shape)
    found = motion(points, truth)
    for name, x in (("jitter", points), ("jitter_own", truth), ("jitter_error", points - truth)):
        values = getattr(found, name)
        for t in range(1, FRAMES - 1):
            far = [math.hypot(*(x[t + 1, p] - 2 * x[t, p] + x[t - 1, p])) for p in range(POINTS)]
            assert values[t] == pytest.approx(sum(far) / POINTS / SIZE, abs=1e-12)
        assert np.isnan(values[[0, -1]]).all()


def test_an_even_motion_and_a_steady_offset_do_not_jitter() -> None:
    truth = path()
    found = motion(truth + 5, truth)
    for values in (found.jitter, found.jitter_own, found.jitter_error):
        np.testing.assert_allclose(values[1:-1], 0, atol=1e-12)
    np.testing.assert_allclose(found.step[1:], 3 * math.sqrt(2) / SIZE)
    np.testing.assert_allclose(found.nme, 5 * math.sqrt(2) / SIZE)
    assert not found.jump.any()
    assert not found.lost.any()


def test_a_jump_is_seen_where_it_happens() -> None:
    truth = path()
    points = truth.copy()
    points[7:, :, 0] += 1.01 * JUMP * SIZE
    assert np.flatnonzero(motion(points, truth).jump).tolist() == [7]
    points = truth.copy()
    points[7:, :, 0] += 0.99 * JUMP * SIZE
    assert not motion(points, truth).jump.any()
    fast = truth.copy()
    fast[7:] += 40
    assert not motion(fast, fast).jump.any(), "the truth jumped too"


def test_a_face_is_lost_while_the_points_are_elsewhere_or_missing() -> None:
    truth = path()
    points = truth.copy()
    points[4:7] += 300
    points[9] = np.nan
    found = motion(points, truth)
    assert np.flatnonzero(found.lost).tolist() == [4, 5, 6, 9]
    assert found.overlap[4] == 0
    assert found.overlap[0] == 1
    unknown = truth.copy()
    unknown[4] = np.nan
    assert not motion(points, unknown).lost[4], "nothing is known there"


def test_half_an_overlap() -> None:
    corners = np.array([[[0.0, 0.0], [2.0, 1.0]]])
    found = measure_motion(corners + np.array((1.0, 0.0)), corners, [1.0], [1])
    assert found.overlap[0] == pytest.approx(1 / 3, abs=1e-12)


def test_gaps_between_frames_are_not_motion() -> None:
    truth = path()[[0, 1, 2, 5, 6, 7]]
    found = motion(truth, truth, np.array([1, 2, 3, 6, 7, 8]))
    assert np.flatnonzero(np.isfinite(found.step)).tolist() == [1, 2, 4, 5]
    assert np.flatnonzero(np.isfinite(found.jitter)).tolist() == [1, 4]
    with pytest.raises(ValueError, match="rise"):
        motion(truth, truth, np.zeros(6, dtype=int))


def test_the_command_writes_columns_and_a_plot(ls3dw: Command, sample_data: Path, tmp_path: Path) -> None:
    dataset = open_dataset(sample_data)
    annotation = dataset.column("annotation")
    video = (dataset.index["subset"] == "A").to_numpy()
    shaken = annotation + np.random.default_rng(0).normal(0, 1, annotation.shape)
    shaken[np.flatnonzero(video)[10:14]] += 1000
    np.savez(tmp_path / "p.npz", id=dataset.index["id"].to_numpy(dtype=str), landmarks=shaken)
    words = ("--predictions", f"shaken={tmp_path / 'p.npz'}", "--temporal", "--out", tmp_path / "out")
    told = json.loads(ls3dw("evaluate", sample_data, *words, "--json").out)
    rows = {row["video"]: row for row in told["temporal"]}
    row = next(row for name, row in rows.items() if "114" in name)
    assert (row["method"], row["frames"], row["lost"], row["longest_lost"], row["jumps"]) == ("shaken", 48, 4, 4, 2)
    assert row["jitter"] > row["jitter_own"] > 0
    table = pd.read_parquet(tmp_path / "out" / "temporal.parquet")
    assert table["id"].tolist() == dataset.index["id"][dataset.index["frame"] > 0].tolist()
    one = table[table["id"] == dataset.index["id"][video].iloc[10]].iloc[0]
    assert (one["lost"], one["jump"], one["overlap"]) == (True, True, 0)
    for name in ("temporal.png", "temporal.svg", "temporal.json"):
        assert (tmp_path / "out" / name).stat().st_size > 100
    text = ls3dw("evaluate", sample_data, *words[:3]).out
    assert "jumps" in text
