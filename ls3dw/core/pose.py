"""Head pose from 68 landmarks: a rigid fit of a mean head in scaled orthography, whole batches at once.

Robust weights and directions of identity and expression change the yaw by too little to pay for themselves: tried on
real faces in `docs/reports/2026-11-22/subsets.md`.
"""

from __future__ import annotations

from functools import cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ls3dw.core.markup import POINTS
from ls3dw.core.resources import folder

YAW_BINS: Final[dict[str, tuple[float, float]]] = {"0-30": (0, 30), "30-60": (30, 60), "60-90": (60, 90)}
"""Bins of |yaw| in degrees, as in LS3D-W Balanced: [0, 30], (30, 60], (60, 90]."""

UNLIKELY: Final = 0.2
"""A residual above this is no face, and its angles mean nothing; measured in docs/reports/2026-11-22/subsets.md."""

_AT_ONCE: Final = 8192
"""Faces of one step: their arrays stay in the processor's cache."""


class Pose(NamedTuple):
    """angles: (N, 3) float32 yaw, pitch, roll in degrees; residual: (N,) float32, how badly the mean head fits: root
    mean square distance of the points from it in the picture plane, as a share of the head's own root mean square
    size. Both are NaN where a point is missing."""

    angles: NDArray[np.float32]
    residual: NDArray[np.float32]


@cache
def mean_head() -> NDArray[np.float64]:
    """Return the 68 points (68, 3) of the mean MakeHuman head (CC0): x right, y up, z toward the viewer, centred.

    Networks that give coordinates give them relative to it, so it changes with their weights alone: 28 to 30 still lie
    where they did before 30 became the tip of the nose.
    """
    head: NDArray[np.float64] = np.loadtxt(folder("bundled") / "mean_head.csv", delimiter=",", skiprows=1)
    return head


def head_pose(points: ArrayLike) -> NDArray[np.float32]:
    """Estimate yaw, pitch and roll in degrees: (N, 68, 2 or 3) -> (N, 3), NaN where a point is missing.

    points: projected 3D landmarks in image pixels, with z (larger is nearer) where there is depth; without it, or
    where z is NaN, the picture plane alone is fitted. Signs as in the `Pose_Para` of AFLW2000-3D: yaw > 0 turns the
    nose to the left of the picture, pitch > 0 raises it, roll > 0 turns the head clockwise in the picture.
    """
    return head_pose_fit(points).angles


def head_pose_fit(points: ArrayLike) -> Pose:
    """Estimate the pose as `head_pose` does, and say how well the head fits: the angles of a face with a residual
    above `UNLIKELY` are not to be believed."""
    shape = np.asarray(points)
    if shape.ndim != 3 or shape.shape[1] != POINTS or shape.shape[2] not in (2, 3):
        raise ValueError(f"points {shape.shape}: expected (N, {POINTS}, 2 or 3)")
    angles = np.full((len(shape), 3), np.nan, dtype=np.float32)
    residual = np.full(len(shape), np.nan, dtype=np.float32)
    for start in range(0, len(shape), _AT_ONCE):
        piece = slice(start, start + _AT_ONCE)
        _fit_into(shape[piece].astype(np.float64), angles[piece], residual[piece])
    return Pose(angles, residual)


def _fit_into(shape: NDArray[np.float64], angles: NDArray[np.float32], residual: NDArray[np.float32]) -> None:
    """Fit some faces and write their pose where it belongs."""
    whole = np.isfinite(shape[..., :2]).all(axis=(1, 2))
    deep = whole & np.isfinite(shape).all(axis=(1, 2)) if shape.shape[2] == 3 else np.zeros_like(whole)
    for chosen, axes in ((whole & ~deep, 2), (deep, 3)):
        if chosen.any():
            centred = _centred(shape[chosen][..., :axes])
            linear = _linear_maps(centred)
            rotation = _rotations(linear)
            angles[chosen] = _angles(rotation)
            residual[chosen] = _residuals(centred[..., :2], linear[:, :2], rotation[:, :2])


def _centred(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn points (N, 68, 2 or 3) with y down into y-up ones around their mean."""
    flipped = points * np.array((1.0, -1.0, 1.0))[: points.shape[2]]
    # A product with ones is several times faster here than numpy's mean over the middle axis.
    mean = np.full(POINTS, 1 / POINTS) @ flipped
    return np.asarray(flipped - mean[:, None])


def _linear_maps(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each face the linear map (N, 2 or 3, 3) that takes the mean head closest to its points."""
    return np.asarray(centred.transpose(0, 2, 1) @ np.linalg.pinv(mean_head()).T)


def _rotations(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rotations (N, 3, 3) nearest to linear maps (N, 2 or 3, 3): those that only turn and scale.

    All linear maps were fitted first, for a head deeper or wider than the mean one turns no further than it.
    """
    left, _, right = np.linalg.svd(linear, full_matrices=False)
    rows = left @ right
    third = np.cross(rows[:, 0], rows[:, 1])
    return np.stack((rows[:, 0], rows[:, 1], third), axis=1)


def _residuals(
    plane: NDArray[np.float64], linear: NDArray[np.float64], rotation: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Measure how far points (N, 68, 2) lie from the turned head at the scale that fits best: (N,)."""
    spread = mean_head().T @ mean_head()
    # Sums over the points of their products with the turned head, and of its squares, without making it.
    match = np.einsum("nab,bc,nac->n", rotation, spread, linear)
    extent = np.einsum("nab,bc,nac->n", rotation, spread, rotation)
    scale = match / extent
    left = np.maximum(np.einsum("npa,npa->n", plane, plane) - scale * match, 0)
    with np.errstate(divide="ignore", invalid="ignore"):  # all points in one place
        share = np.sqrt(left / (scale**2 * np.trace(spread)))
    return np.asarray(np.where(scale > 0, share, np.inf))


def yaw_bins(yaw: NDArray[np.float64]) -> dict[str, NDArray[np.bool_]]:
    """Return for each bin of `YAW_BINS` a mask (N,) of the faces in it. yaw: (N,) degrees."""
    turned = np.abs(yaw)
    return {name: (turned > low if low else turned >= low) & (turned <= high) for name, (low, high) in YAW_BINS.items()}


def _angles(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Split rotations (N, 3, 3) into degrees (N, 3) as `Pose_Para` does: pitch about x, then yaw, then roll, and each
    positive angle turns clockwise when its axis points at the viewer."""
    yaw = -np.arcsin(np.clip(rotation[:, 0, 2], -1, 1))
    pitch = np.arctan2(rotation[:, 1, 2], rotation[:, 2, 2])
    roll = np.arctan2(rotation[:, 0, 1], rotation[:, 0, 0])
    angles: NDArray[np.float64] = np.degrees(np.stack((yaw, pitch, roll), axis=1))
    return angles
