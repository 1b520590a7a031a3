"""The residual of the pose fit: what it measures, and when it says not to believe the angles."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import REAL
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ls3dw.core.markup import GROUPS, POINTS
from ls3dw.core.pose import UNLIKELY, head_pose, head_pose_fit, mean_head

ROWS = REAL / "aflw2000_landmarks_odd_rows.npz"
MERL = REAL / "merl_rav_landmarks_half.npz"
SIZE = float(np.sqrt((mean_head() ** 2).sum(axis=1).mean()))


def turned(yaw: float, head: np.ndarray | None = None) -> np.ndarray:
    """Turn a head by yaw, signs as in `Pose_Para`; (68, 3) with y down."""
    rotation = Rotation.from_euler("XYZ", [0, -yaw, 0], degrees=True)
    return rotation.apply(mean_head() if head is None else head) * (1, -1, 1)


@settings(deadline=None)
@given(st.floats(-80, 80), st.floats(0.5, 300), st.floats(-500, 500), st.floats(0, 0.15))
def test_residual_is_the_root_mean_square_distance_by_size(yaw: float, zoom: float, shift: float, noise: float) -> None:
    away = np.random.default_rng(7).normal(size=(POINTS, 2))
    points = turned(yaw)[:, :2] + noise * SIZE * away
    pose = head_pose_fit(points[None] * zoom + shift)
    angles, residual = pose.angles[0].astype(np.float64), float(pose.residual[0])
    # By hand: the head at these angles, at the best scale, around the points' mean.
    rotation = Rotation.from_euler("XYZ", [-angles[1], -angles[0], -angles[2]], degrees=True)
    head = (rotation.apply(mean_head()) * (1, -1, 1))[:, :2]
    centred = points - points.mean(axis=0)
    scale = (head * centred).sum() / (head**2).sum()
    by_hand = np.sqrt(((centred - scale * head) ** 2).sum(axis=1).mean()) / (scale * SIZE)
    assert residual == pytest.approx(by_hand, abs=2e-3)


def test_residual_does_not_depend_on_depth() -> None:
    points = np.stack([turned(yaw) for yaw in (-70, 0, 40)])
    points += np.random.default_rng(0).normal(0, 0.03, points.shape)
    flat = head_pose_fit(points[..., :2]).residual
    np.testing.assert_allclose(head_pose_fit(points).residual, flat, atol=0.01)


def test_what_is_no_face_has_a_large_residual() -> None:
    dice = np.random.default_rng(1)
    face = turned(25)[:, :2]
    wrong = {
        "random": dice.normal(size=(POINTS, 2)),
        "renumbered": np.roll(face, 3, axis=0),
        "eyes and mouth exchanged": face[[*range(36), *range(48, 60), *range(36, 48), *range(60, 68)]],
        "one point": np.zeros((POINTS, 2)),
        "a line": np.stack((np.linspace(0, 1, POINTS),) * 2, axis=1),
    }
    residual = head_pose_fit(np.stack(list(wrong.values()))).residual
    assert (residual > UNLIKELY).all(), dict(zip(wrong, residual, strict=True))
    assert head_pose_fit(face[None]).residual[0] < 0.01


def test_missing_points_have_no_residual_and_disturb_nobody() -> None:
    points = np.stack([turned(10)] * 3)
    points[1, 4, 0] = np.nan
    points[2, :, 2] = np.nan
    pose = head_pose_fit(points)
    assert np.isfinite(pose.residual).tolist() == [True, False, True]
    np.testing.assert_array_equal(pose.angles, head_pose(points))
    assert head_pose_fit(np.empty((0, POINTS, 3))).residual.shape == (0,)


def test_many_faces_are_each_as_one() -> None:
    """More than are fitted in one step, with and without depth among them."""
    dice = np.random.default_rng(2)
    points = turned(0)[None] + dice.normal(0, 0.1, (9000, POINTS, 3))
    points[::3, :, 2] = np.nan
    pose = head_pose_fit(points)
    for face in (0, 1, 8191, 8192, 8999):
        alone = head_pose_fit(points[face : face + 1])
        np.testing.assert_allclose(pose.angles[face], alone.angles[0], atol=1e-3)
        np.testing.assert_allclose(pose.residual[face], alone.residual[0], atol=1e-5)


@pytest.mark.parametrize("yaw", [-60, -20, 0, 45])
@pytest.mark.parametrize("axes", [2, 3])
def test_an_open_mouth_hardly_turns_the_head(yaw: float, axes: int) -> None:
    head = mean_head().copy()
    lower = [*range(55, 60), *range(65, 68)]
    head[lower, 1] -= 0.25
    chin = list(GROUPS["jaw"])[5:12]
    head[chin, 1] -= 0.25
    pose = head_pose_fit(turned(yaw, head)[None, :, :axes])
    assert abs(pose.angles[0, 0] - yaw) < 2
    assert pose.residual[0] < UNLIKELY


@pytest.mark.skipif(not ROWS.is_file() or not MERL.is_file(), reason="the real points are not here")
def test_residual_of_real_faces() -> None:
    with np.load(ROWS) as rows, np.load(MERL) as merl:
        again = rows["reannotated_xy"].transpose(0, 2, 1)
        frontal = merl["landmarks"][np.isfinite(merl["landmarks"]).all(axis=(1, 2))]
    for points, likely in ((again, 0.998), (frontal, 0.99)):
        residual = head_pose_fit(points).residual
        assert 0.03 < np.median(residual) < 0.1
        assert (residual < UNLIKELY).mean() > likely
        renumbered = head_pose_fit(np.roll(points, 3, axis=1)).residual
        assert (renumbered > UNLIKELY).all()
