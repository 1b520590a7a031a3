"""What a face's mean error is divided by: the sizes of a face that the field uses, from its 68 true points.

Papers call several of these "inter-ocular"; here each name stands for one measure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ls3dw.core.markup import GROUPS, POINTS
from ls3dw.core.metrics import face_sides

Normaliser = Literal["box", "interocular", "interpupil", "outer-eye", "diagonal", "face-size"]

NORMALISERS: Final[tuple[Normaliser, ...]] = get_args(Normaliser)

_RIGHT, _LEFT = (list(GROUPS[name]) for name in ("right eye", "left eye"))
_CORNERS: Final = 0, 3
"""Of an eye's six points: the first and the fourth are its corners."""

Points = NDArray[Any]
Sizes = NDArray[np.float64]


def face_sizes(name: Normaliser, truth: ArrayLike, box: ArrayLike | None = None) -> NDArray[np.float64]:
    """Return the size of each face in pixels: truth (N, 68, 2) -> (N,), NaN where a point that it needs is missing.

    - box: sqrt(width * height) of the tight box of the points ("How far are we", section 4);
    - interocular: between the middles of the two eyes' corners;
    - interpupil: between the means of the two eyes' six points;
    - outer-eye: between the outer corners of the eyes;
    - diagonal: of the tight box;
    - face-size: mean of width and height of the source's own `box` (N, 4); of a square box, its side.
    """
    points = np.asarray(truth)
    if points.ndim != 3 or points.shape[1] != POINTS or points.shape[2] < 2:
        raise ValueError(f"truth {points.shape}: expected (N, {POINTS}, 2)")
    if name == "face-size":
        return _given_size(box, len(points))
    if name not in _SIZES:
        raise ValueError(f"normaliser {name!r}: expected one of {', '.join(NORMALISERS)}")
    sizes = _SIZES[name](points[..., :2])
    return np.where(sizes > 0, sizes, np.nan)


def _given_size(box: ArrayLike | None, faces: int) -> NDArray[np.float64]:
    if box is None or np.shape(box) != (faces, 4):
        raise ValueError(f"box {None if box is None else np.shape(box)}: face-size needs the faces' boxes ({faces}, 4)")
    boxes = np.asarray(box, dtype=np.float64)
    sides = boxes[:, 2:] - boxes[:, :2]
    return np.where((sides > 0).all(axis=1), sides.mean(axis=1), np.nan)


def _box(points: Points) -> Sizes:
    size: Sizes = np.sqrt(face_sides(points).prod(axis=1))
    return size


def _diagonal(points: Points) -> Sizes:
    diagonal: Sizes = np.hypot(*face_sides(points).T)
    return diagonal


def _between(points: Points, right: list[int], left: list[int]) -> Sizes:
    """Return the distance between the means of two sets of points."""
    first, second = (points[:, eye].astype(np.float64).mean(axis=1) for eye in (right, left))
    distance: Sizes = np.hypot(*(first - second).T)
    return distance


def _interocular(points: Points) -> Sizes:
    return _between(points, [_RIGHT[i] for i in _CORNERS], [_LEFT[i] for i in _CORNERS])


def _interpupil(points: Points) -> Sizes:
    return _between(points, _RIGHT, _LEFT)


def _outer_eye(points: Points) -> Sizes:
    return _between(points, [_RIGHT[_CORNERS[0]]], [_LEFT[_CORNERS[1]]])


_SIZES: Final[dict[str, Callable[[Points], Sizes]]] = {
    "box": _box,
    "interocular": _interocular,
    "interpupil": _interpupil,
    "outer-eye": _outer_eye,
    "diagonal": _diagonal,
}
