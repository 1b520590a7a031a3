"""Metrics and head pose against plain formulas, and against figures of real points."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers import REAL
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.io import loadmat
from scipy.spatial.transform import Rotation

from ls3dw.core.geometry import tight_box
from ls3dw.core.markup import GROUPS, MIRROR, POINTS
from ls3dw.core.metrics import FAILURE, auc, box_size, failure_rate, nme, point_errors
from ls3dw.core.pose import head_pose, mean_head

ROWS = REAL / "aflw2000_landmarks_odd_rows.npz"
NOSE_TIP = GROUPS["nose ridge"][-1]
ERRORS = arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 0.2))
needs_rows = pytest.mark.skipif(not ROWS.is_file(), reason="the real points are not here")


def shapes(seed: int, faces: int = 4, axes: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 300, (faces, POINTS, axes))


def nme_by_hand(prediction: np.ndarray, truth: np.ndarray, box: np.ndarray) -> list[float]:
    values = []
    for face in range(len(truth)):
        distances = [math.dist(prediction[face, point], truth[face, point]) for point in range(POINTS)]
        x0, y0, x1, y1 = box[face].tolist()
        values.append(sum(distances) / POINTS / math.sqrt((x1 - x0) * (y1 - y0)))
    return values


@pytest.mark.parametrize("axes", [2, 3])
def test_nme_is_the_papers_formula(axes: int) -> None:
    prediction, truth = shapes(0, axes=axes), shapes(1, axes=axes)
    box = np.array([[10.0, 20.0, 90.0, 140.0]] * 4) + np.arange(4)[:, None] * (0, 0, 1, 2)
    np.testing.assert_allclose(nme(prediction, truth, box), nme_by_hand(prediction, truth, box), rtol=1e-12)
    tight = np.concatenate((truth[..., :2].min(axis=1), truth[..., :2].max(axis=1)), axis=1)
    np.testing.assert_allclose(nme(prediction, truth), nme_by_hand(prediction, truth, tight), rtol=1e-12)


@given(zoom=st.floats(0.1, 10), shift=st.floats(-500, 500))
def test_nme_does_not_depend_on_where_and_how_large_the_face_is(zoom: float, shift: float) -> None:
    prediction, truth = shapes(2), shapes(3)
    np.testing.assert_allclose(nme(prediction * zoom + shift, truth * zoom + shift), nme(prediction, truth), rtol=1e-9)


def test_missing_points_are_left_out() -> None:
    prediction, truth = shapes(4), shapes(5)
    box = tight_box(truth)
    holes = truth.copy()
    holes[0, ::2] = np.nan
    holes[1, 3, 1] = np.nan
    holes[2] = np.nan
    kept = point_errors(prediction, truth)
    expected = [kept[0, 1::2].mean(), np.delete(kept[1], 3).mean(), np.nan, kept[3].mean()] / box_size(box)
    np.testing.assert_allclose(nme(prediction, holes, box), expected)
    assert np.isnan(nme(prediction, holes)[2])


def test_faces_that_cannot_be_measured() -> None:
    boxes = [[0, 0, 0, 5], [5, 0, 0, 5], [5, 5, 0, 0], [np.nan, 0, 1, 1], [0, 0, 4, 9]]
    np.testing.assert_array_equal(box_size(boxes), [np.nan] * 4 + [6])
    for other in (shapes(0)[:, :5], shapes(0, axes=3), shapes(0)[0]):
        with pytest.raises(ValueError, match="expected the same"):
            nme(other, shapes(1))


@given(ERRORS, st.floats(0.01, 0.2))
def test_auc_is_the_area_under_the_curve(errors: np.ndarray, threshold: float) -> None:
    steps = 20_000
    middles = (np.arange(steps) + 0.5) / steps * threshold
    curve = np.searchsorted(np.sort(errors), middles, side="right") / len(errors)
    assert auc(errors, threshold) == pytest.approx(curve.mean(), abs=1 / steps)


@given(ERRORS)
def test_published_auc_is_the_papers_formula(errors: np.ndarray) -> None:
    thresholds = np.linspace(0, 1, 1000)
    shares = [sum(error < threshold for error in errors.tolist()) / len(errors) for threshold in thresholds[:70]]
    assert auc(errors, published=True) == pytest.approx(sum(shares) / 70, abs=1e-12)
    assert abs(auc(errors, published=True) - auc(errors)) < 0.02


@given(ERRORS, st.integers(0, 29), st.floats(0, 0.2))
def test_a_larger_error_is_never_better(errors: np.ndarray, index: int, more: float) -> None:
    worse = errors.copy()
    worse[index % len(errors)] += more
    for published in (False, True):
        assert auc(worse, published=published) <= auc(errors, published=published) + 1e-12
    assert failure_rate(worse) >= failure_rate(errors)


def test_ends_of_the_scale() -> None:
    assert auc([0, 0]) == 1
    assert auc([0.07, 3]) == auc([0.07, 3], published=True) == 0
    assert auc([0.035, np.nan]) == 0.5
    assert failure_rate([FAILURE, np.nextafter(FAILURE, 1), 0, np.nan]) == pytest.approx(1 / 3)
    assert failure_rate([0.04, 0.06], threshold=0.05) == 0.5
    for errors in ([], [np.nan]):
        for metric in (auc, failure_rate):
            with pytest.raises(ValueError, match="no errors left"):
                metric(errors)
    for threshold in (0, -1, 1.5):
        with pytest.raises(ValueError, match="threshold"):
            auc([0.1], threshold)


@needs_rows
def test_published_points_against_those_annotated_again() -> None:
    # Both as their files have them (1-based and 0-based), the box from the published ones.
    with np.load(ROWS) as rows:
        published = rows["published_pt3d_68"][:, :2].transpose(0, 2, 1)
        again = rows["reannotated_xy"].transpose(0, 2, 1)
    errors = nme(again, published)
    assert round(100 * errors.mean(), 3) == 3.087
    assert (errors > FAILURE).sum() == 8
    assert round(auc(errors, published=True), 4) == 0.5613


def turned(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Turn the mean head as `Pose_Para` says; (68, 3) with y down. Positive angles turn clockwise, seen along -axis."""
    rotation = Rotation.from_euler("XYZ", [-pitch, -yaw, -roll], degrees=True)
    return rotation.apply(mean_head()) * (1, -1, 1)


ANGLES = st.tuples(st.floats(-84, 84), st.floats(-60, 60), st.floats(-170, 170))


@settings(deadline=None)
@given(ANGLES, st.floats(0.5, 200), st.floats(-500, 500))
def test_known_angles_come_back(angles: tuple[float, float, float], zoom: float, shift: float) -> None:
    points = turned(*angles) * zoom + shift
    poses = head_pose(np.stack((points, np.where([True, True, False], points, np.nan))))
    assert poses.dtype == np.float32
    np.testing.assert_allclose(poses, [angles, angles], atol=0.5)
    np.testing.assert_allclose(head_pose(points[None, :, :2])[0], angles, atol=0.5)


def test_signs_of_the_angles() -> None:
    jaw = list(GROUPS["jaw"])
    left, up, clockwise = turned(30, 0, 0), turned(0, 30, 0), turned(0, 0, 30)
    assert left[NOSE_TIP, 0] < left[jaw, 0].mean()
    assert up[NOSE_TIP, 1] < turned(0, 0, 0)[NOSE_TIP, 1]
    right_eye, left_eye = (clockwise[list(GROUPS[name])].mean(axis=0) for name in ("right eye", "left eye"))
    assert left_eye[0] > right_eye[0]
    assert left_eye[1] > right_eye[1]  # the picture's right side has sunk
    np.testing.assert_allclose(
        head_pose(np.stack((left, up, clockwise))), [[30, 0, 0], [0, 30, 0], [0, 0, 30]], atol=0.01
    )


@given(ANGLES)
def test_a_mirrored_face_looks_the_other_way(angles: tuple[float, float, float]) -> None:
    points = turned(*angles)[None]
    mirrored = points[:, list(MIRROR)] * (-1, 1, 1)
    for axes in (2, 3):
        yaw, pitch, roll = head_pose(points[..., :axes])[0]
        np.testing.assert_allclose(head_pose(mirrored[..., :axes])[0], [-yaw, pitch, -roll], atol=1.0)


def test_a_missing_point_gives_no_pose_to_its_face_alone() -> None:
    points = np.stack([turned(10, 20, 30)] * 3)
    points[1, 5, 0] = np.nan
    points[2, 5, 1] = np.inf
    assert np.isfinite(head_pose(points)).all(axis=1).tolist() == [True, False, False]
    assert head_pose(np.empty((0, POINTS, 2))).shape == (0, 3)
    for shape in ((POINTS, 2), (1, 67, 2), (1, POINTS, 4)):
        with pytest.raises(ValueError, match="expected"):
            head_pose(np.zeros(shape))


@needs_rows
@pytest.mark.parametrize(
    ("points", "mean", "in_bin"), [("published with z", 1.0, 0.98), ("published", 1.0, 0.97), ("again", 3.0, 0.92)]
)
def test_yaw_of_real_faces(points: str, mean: float, in_bin: float) -> None:
    with np.load(ROWS) as rows:
        published, again = (rows[name].transpose(0, 2, 1) for name in ("published_pt3d_68", "reannotated_xy"))
        yaw = rows["yaw_degrees"]
    chosen = {"published with z": published, "published": published[..., :2], "again": again}[points]
    estimate = head_pose(chosen)[:, 0]
    usual = np.abs(yaw) <= 99
    assert np.abs(np.abs(estimate) - np.abs(yaw))[usual].mean() < mean
    assert np.abs(estimate - yaw)[usual].mean() < mean + 0.1
    bins = [np.digitize(np.abs(angles), (30, 60)) for angles in (estimate, yaw)]
    assert (bins[0] == bins[1]).mean() > in_bin


@pytest.mark.skipif(not (REAL / "AFLW2000").is_dir(), reason="the real faces are not here")
def test_all_angles_of_real_faces() -> None:
    files = sorted((REAL / "AFLW2000").glob("*.mat"))
    assert len(files) == 8
    fields = [loadmat(file) for file in files]
    pitch, yaw, roll = np.degrees([face["Pose_Para"][0, :3] for face in fields]).T
    truth = np.stack((yaw, pitch, roll), axis=1)
    estimate = head_pose(np.stack([face["pt3d_68"].T for face in fields]))
    np.testing.assert_array_equal(np.sign(estimate), np.sign(truth))
    assert np.abs(estimate - truth)[:, 0].max() < 2
    assert np.abs(estimate - truth).max() < 10
