"""Head pose from 68 landmarks: a rigid fit of a mean head in scaled orthography, whole batches at once."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ls3dw.markup import POINTS
from ls3dw.resources import folder


@cache
def mean_head() -> NDArray[np.float64]:
    """Return the 68 points (68, 3) of the mean MakeHuman head (CC0): x right, y up, z toward the viewer, centred."""
    head: NDArray[np.float64] = np.loadtxt(folder("bundled") / "mean_head.csv", delimiter=",", skiprows=1)
    return head


def head_pose(points: ArrayLike) -> NDArray[np.float32]:
    """Estimate yaw, pitch and roll in degrees: (N, 68, 2 or 3) -> (N, 3), NaN where a point is missing.

    points: projected 3D landmarks in image pixels, with z (larger is nearer) where there is depth; without it, or
    where z is NaN, the picture plane alone is fitted. Signs as in the `Pose_Para` of AFLW2000-3D: yaw > 0 turns the
    nose to the left of the picture, pitch > 0 raises it, roll > 0 turns the head clockwise in the picture.
    """
    shape = np.asarray(points, dtype=np.float64)
    if shape.ndim != 3 or shape.shape[1] != POINTS or shape.shape[2] not in (2, 3):
        raise ValueError(f"points {shape.shape}: expected (N, {POINTS}, 2 or 3)")
    poses = np.full((len(shape), 3), np.nan, dtype=np.float32)
    whole = np.isfinite(shape[..., :2]).all(axis=(1, 2))
    deep = whole & np.isfinite(shape).all(axis=(1, 2)) if shape.shape[2] == 3 else np.zeros_like(whole)
    for chosen, axes in ((whole & ~deep, 2), (deep, 3)):
        if chosen.any():
            poses[chosen] = _angles(_rotations(shape[chosen][..., :axes]))
    return poses


def _rotations(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fit the mean head to points (N, 68, 2 or 3) with y down; return the rotations (N, 3, 3) in y-up axes."""
    head = mean_head()
    axes = points.shape[2]
    flipped = points * np.array((1.0, -1.0, 1.0))[:axes]
    centred = flipped - flipped.mean(axis=1, keepdims=True)
    # Least squares over all linear maps, then the nearest one that only turns and scales.
    linear = np.einsum("npa,pb->nab", centred, np.linalg.pinv(head).T)
    left, _, right = np.linalg.svd(linear, full_matrices=False)
    rows = left @ right
    third = np.cross(rows[:, 0], rows[:, 1])
    return np.stack((rows[:, 0], rows[:, 1], third), axis=1)


def _angles(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Split rotations (N, 3, 3) into degrees (N, 3) as `Pose_Para` does: pitch about x, then yaw, then roll, and each
    positive angle turns clockwise when its axis points at the viewer."""
    yaw = -np.arcsin(np.clip(rotation[:, 0, 2], -1, 1))
    pitch = np.arctan2(rotation[:, 1, 2], rotation[:, 2, 2])
    roll = np.arctan2(rotation[:, 0, 1], rotation[:, 0, 0])
    angles: NDArray[np.float64] = np.degrees(np.stack((yaw, pitch, roll), axis=1))
    return angles
