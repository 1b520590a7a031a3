"""Boxes and affine maps. Everything is 0-based with the centre of the top-left pixel at (0, 0); affines are float64."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Affine: TypeAlias = NDArray[np.float64]
"""(..., 2, 3): (x, y, 1) -> (x', y')."""

CROP_SIZE = 256
"""Side of a network's input in pixels."""

REFERENCE_SCALE = 195.0
"""Box width plus height of a face at scale 1 (the published detector's convention)."""

REFERENCE_SIDE = 200.0
"""Side of the crop of a face at scale 1."""

RAISE = 0.12
"""Height of the crop's centre above the box's centre, as a share of the box's height."""


def tight_box(points: ArrayLike) -> NDArray[np.float32]:
    """Return the box (..., 4: x0 y0 x1 y1) of points (..., P, 2), ignoring NaN; NaN if all points are."""
    array = np.asarray(points, dtype=np.float32)
    # One axis at a time: numpy is twelve times slower over rows of two numbers.
    axes = array[..., 0], array[..., 1]
    missing = np.isnan(axes[0]) | np.isnan(axes[1])
    low = (np.where(missing, np.float32(np.inf), axis).min(axis=-1) for axis in axes)
    high = (np.where(missing, np.float32(-np.inf), axis).max(axis=-1) for axis in axes)
    box = np.stack((*low, *high), axis=-1)
    return np.where(np.isfinite(box), box, np.float32(np.nan)).astype(np.float32)


def crop_placement(boxes: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Apply the published rule to boxes (..., 4): centre of the crop (..., 2), scale (...); side = 200 * scale px."""
    box = np.asarray(boxes, dtype=np.float64)
    width, height = box[..., 2] - box[..., 0], box[..., 3] - box[..., 1]
    # The published code's order of operations, so that both round alike.
    centre_x = box[..., 2] - width / 2.0
    centre_y = box[..., 3] - height / 2.0 - height * RAISE
    return np.stack((centre_x, centre_y), axis=-1), (width + height) / REFERENCE_SCALE


def crop_affine(boxes: ArrayLike) -> Affine:
    """Map image pixels to the pixels of the 256x256 crop of boxes (..., 4) -> (..., 2, 3)."""
    centre, scale = crop_placement(boxes)
    return square_affine(centre, REFERENCE_SIDE * scale, CROP_SIZE)


def square_affine(centre: ArrayLike, side: ArrayLike, size: int) -> Affine:
    """Map the square of `side` pixels around `centre` (..., 2) to a picture of `size` x `size` pixels."""
    middle = np.asarray(centre, dtype=np.float64)
    zoom = size / np.asarray(side, dtype=np.float64)
    affine = np.zeros((*middle.shape[:-1], 2, 3))
    affine[..., 0, 0] = zoom
    affine[..., 1, 1] = zoom
    affine[..., :, 2] = (size - 1) / 2 - zoom[..., None] * middle
    return affine


def apply(affine: Affine, points: NDArray[Any]) -> NDArray[Any]:
    """Map points (..., P, 2 or 3) by affines (..., 2, 3), in float64; z is scaled like x. Same dtype out."""
    xy = points[..., :2].astype(np.float64)
    out = xy @ np.swapaxes(affine[..., :2], -1, -2) + affine[..., None, :, 2]
    if points.shape[-1] == 3:
        zoom = np.sqrt(np.abs(np.linalg.det(affine[..., :2])))
        out = np.concatenate((out, points[..., 2:].astype(np.float64) * zoom[..., None, None]), axis=-1)
    return out.astype(points.dtype)


def resize_affine(zoom_x: float, zoom_y: float) -> Affine:
    """Map the pixels of a picture to those of the same picture resized by `zoom_x` and `zoom_y`."""
    return np.array([[zoom_x, 0, (zoom_x - 1) / 2], [0, zoom_y, (zoom_y - 1) / 2]])


def invert(affine: Affine) -> Affine:
    """Invert affines (..., 2, 3)."""
    linear = np.linalg.inv(affine[..., :2])
    return np.concatenate((linear, -linear @ affine[..., 2:]), axis=-1)


def compose(second: Affine, first: Affine) -> Affine:
    """Return the affine that applies `first`, then `second`."""
    linear = second[..., :2] @ first[..., :2]
    return np.concatenate((linear, second[..., :2] @ first[..., 2:] + second[..., 2:]), axis=-1)
