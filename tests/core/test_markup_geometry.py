"""The mark-up's table, boxes and affine maps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ls3dw.core.geometry import (
    CROP_SIZE,
    Affine,
    apply,
    compose,
    crop_affine,
    crop_placement,
    invert,
    square_affine,
    tight_box,
)
from ls3dw.core.markup import CLOSED, GROUPS, LINES, MIRROR, POINTS
from ls3dw.core.pose import mean_head

BOXES = np.array([[10.0, 20.0, 110.0, 140.0], [-30.5, 7.25, 12.0, 60.0]])


@st.composite
def affines(draw: st.DrawFn) -> Affine:
    """Zoom, turn and shift."""
    zoom, angle = draw(st.floats(0.05, 20)), draw(st.floats(-np.pi, np.pi))
    turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shift = draw(arrays(np.float64, (2, 1), elements=st.floats(-1000, 1000)))
    return np.concatenate((turn, shift), axis=1)


POINT_SETS = arrays(np.float64, (5, 2), elements=st.floats(-1000, 1000))


def test_groups_hold_every_point_once() -> None:
    assert [point for members in GROUPS.values() for point in members] == list(range(POINTS))


def test_mirror_is_an_involution_that_swaps_the_sides() -> None:
    assert [MIRROR[MIRROR[point]] for point in range(POINTS)] == list(range(POINTS))
    for name, members in GROUPS.items():
        swapped = {"right": "left", "left": "right"}
        partner = " ".join(swapped.get(word, word) for word in name.split())
        assert {MIRROR[point] for point in members} == set(GROUPS[partner])
    assert [point for point in range(POINTS) if MIRROR[point] == point] == [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]


def test_a_symmetrical_head_is_its_own_mirror_image() -> None:
    head = mean_head()
    reflected = head[list(MIRROR)] * (-1, 1, 1)
    assert np.abs(reflected - head).max() < 0.02 * np.ptp(head[:, 0])


def test_lines_join_neighbours_and_mirror_to_lines() -> None:
    lines = {frozenset(line) for line in LINES}
    assert {frozenset((MIRROR[a], MIRROR[b])) for a, b in LINES} == lines
    assert len(LINES) == len(lines) == sum(len(members) - (name not in CLOSED) for name, members in GROUPS.items())


def test_tight_box_leaves_out_missing_points() -> None:
    points = np.array([[[3, 9], [np.nan, -50], [7, 4]], [[1, np.nan], [np.nan, 1], [np.nan, np.nan]]])
    box = tight_box(points)
    assert box.dtype == np.float32
    np.testing.assert_array_equal(box, [[3, 4, 7, 9], [np.nan] * 4])
    np.testing.assert_array_equal(tight_box(np.dstack((points, points))[0, :, :3]), [3, 4, 7, 9])


def test_crop_follows_the_published_rule() -> None:
    centre, scale = crop_placement(BOXES)
    np.testing.assert_allclose(centre, [[60, 80 - 0.12 * 120], [-9.25, 33.625 - 0.12 * 52.75]])
    np.testing.assert_allclose(scale, [220 / 195, 95.25 / 195])
    crop = crop_affine(BOXES)
    half = 100 * scale[:, None]
    corners = np.stack((centre - half, centre, centre + half), axis=1)
    expected = np.array([[-0.5, -0.5], [127.5, 127.5], [255.5, 255.5]])
    np.testing.assert_allclose(apply(crop, corners), np.broadcast_to(expected, (2, 3, 2)), atol=1e-9)
    np.testing.assert_array_equal(crop[:, 0, 0], crop[:, 1, 1])
    np.testing.assert_array_equal(crop[:, [0, 1], [1, 0]], 0)
    np.testing.assert_array_equal(crop_affine(BOXES[1]), crop[1])


@given(affines(), POINT_SETS)
def test_invert_undoes(affine: Affine, points: np.ndarray) -> None:
    np.testing.assert_allclose(apply(invert(affine), apply(affine, points)), points, rtol=0, atol=1e-6)


@given(affines(), affines(), POINT_SETS)
def test_compose_applies_the_first_then_the_second(second: Affine, first: Affine, points: np.ndarray) -> None:
    at_once, one_by_one = apply(compose(second, first), points), apply(second, apply(first, points))
    np.testing.assert_allclose(at_once, one_by_one, rtol=1e-12, atol=1e-6)


@given(affines(), POINT_SETS)
def test_a_batch_is_as_its_rows(affine: Affine, points: np.ndarray) -> None:
    pair, sets = np.stack((affine, invert(affine))), np.stack((points, points + 1))
    for row in range(2):
        np.testing.assert_allclose(apply(pair, sets)[row], apply(pair[row], sets[row]), rtol=1e-12, atol=1e-9)
        np.testing.assert_allclose(compose(pair, pair)[row], compose(pair[row], pair[row]), rtol=1e-12)


@given(affines(), st.floats(-100, 100))
def test_depth_keeps_to_the_scale_of_the_plane(affine: Affine, z: float) -> None:
    points = np.array([[0, 0, z], [3, 4, np.nan]])
    moved = apply(affine, points)
    zoom = np.linalg.norm(moved[1, :2] - moved[0, :2]) / 5
    assert moved[0, 2] == pytest.approx(z * zoom, abs=1e-6)
    assert np.isnan(moved[1, 2])


def test_points_keep_their_type_and_are_mapped_in_double_precision() -> None:
    far = square_affine(np.array([1e6, 1e6]), 256.0, CROP_SIZE)
    points = np.array([[1e6 - 0.5, 1e6 + 0.25]], dtype=np.float32)
    moved = apply(far, points)
    assert moved.dtype == np.float32
    np.testing.assert_allclose(moved, points.astype(np.float64) - 1e6 + 127.5, atol=1e-5)
