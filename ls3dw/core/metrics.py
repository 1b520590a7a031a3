"""The papers' metrics as pure functions of arrays. NME is a fraction, not per cent.

Missing points and faces are NaN: they are left out of every mean and curve, and what counts says how many were there.
Large inputs are worked through in pieces, so that memory does not grow with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ls3dw.core.markup import GROUPS

FAILURE: Final = 0.07
"""A face whose NME lies above this is a failure ("How far are we", section 5)."""

PUBLISHED_STEPS: Final = 1000
"""Thresholds in [0, 1] of the published AUC."""

_PIECE: Final = 1 << 14
"""Faces at a time: their points in float64 take 18 MB."""


def point_errors(prediction: ArrayLike, truth: ArrayLike) -> NDArray[np.float64]:
    """Return the distance of each landmark: (N, P, D), (N, P, D) -> (N, P), NaN where either is missing."""
    predicted, true = _alike(prediction, truth)
    out = np.empty(predicted.shape[:2])
    for piece in _pieces(len(out)):
        # Signs are lost in the square, so the difference may lie in place.
        difference = np.subtract(predicted[piece], true[piece], dtype=np.float64)
        np.sqrt(np.einsum("npd,npd->np", difference, difference), out=out[piece])
    return out


def box_size(box: ArrayLike) -> NDArray[np.float64]:
    """Return sqrt(width * height) of boxes (N, 4); NaN for a box without area."""
    boxes = np.asarray(box, dtype=np.float64)
    sides = boxes[..., 2:] - boxes[..., :2]
    area = np.where((sides > 0).all(axis=-1), sides[..., 0] * sides[..., 1], np.nan)
    return np.sqrt(area)


def face_sides(points: ArrayLike) -> NDArray[np.float64]:
    """Return width and height (N, 2) of the tight box of points (N, P, 2 or 3), without NaN; NaN without a point.

    As `geometry.tight_box`, but as exact as the points are.
    """
    array = np.asarray(points)
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    out = np.empty((len(array), 2))
    for piece in _pieces(len(array)):
        # One axis at a time: numpy takes twelve times as long to go through rows of two numbers.
        axes = array[piece, :, 0], array[piece, :, 1]
        missing = np.isnan(axes[0]) | np.isnan(axes[1])
        for number, values in enumerate(axes):
            low = np.where(missing, array.dtype.type(np.inf), values).min(axis=1)
            high = np.where(missing, array.dtype.type(-np.inf), values).max(axis=1)
            out[piece, number] = np.subtract(high, low, dtype=np.float64)
    return np.where(out >= 0, out, np.nan)


def mean_errors(prediction: ArrayLike, truth: ArrayLike, size: ArrayLike) -> NDArray[np.float64]:
    """Return each face's mean point distance in units of `size` (N,): (N, P, D), (N, P, D) -> (N,).

    Missing points (NaN) are left out of the mean; a face with none left, or without a size above 0, is NaN.
    """
    predicted, true = _alike(prediction, truth)
    sizes = _sizes(size, len(true))
    out = np.empty(len(true))
    for piece in _pieces(len(out)):
        out[piece] = _row_means(point_errors(predicted[piece], true[piece]))
    out /= sizes
    return out


def nme(prediction: ArrayLike, truth: ArrayLike, box: ArrayLike | None = None) -> NDArray[np.float64]:
    """Return the normalised mean error of each face ("How far are we", section 4): (N, P, 2), (N, P, 2) -> (N,).

    box: (N, 4), by default the tight box of `truth`; the normaliser is sqrt(width * height). Others are in
    `ls3dw.core.normalisers`, for `mean_errors`. Missing points (NaN) are left out; a face with none left is NaN.
    """
    _, true = _alike(prediction, truth)
    size = np.sqrt(face_sides(true).prod(axis=1)) if box is None else box_size(box)
    return mean_errors(prediction, truth, size)


def z_errors(prediction: ArrayLike, truth: ArrayLike, size: ArrayLike) -> NDArray[np.float64]:
    """Return each face's mean |z| error in units of `size` (N,): z (N, P), (N, P) -> (N,).

    z is known up to a shift of the whole face: both are taken relative to their mean over the points that both have.
    """
    predicted, true = np.asarray(prediction, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if predicted.shape != true.shape or predicted.ndim != 2:
        raise ValueError(
            f"z of the prediction {predicted.shape} and of the truth {true.shape}: expected the same (N, P)"
        )
    difference = predicted - true
    centred = np.abs(difference - _row_means(difference)[:, None])
    return _row_means(centred) / _sizes(size, len(true))


@dataclass(frozen=True)
class PartErrors:
    """Errors of some landmarks over all faces. mean: a fraction of the size, NaN without any; points: those counted."""

    mean: float
    points: int


def landmark_errors(prediction: ArrayLike, truth: ArrayLike, size: ArrayLike) -> list[PartErrors]:
    """Average each landmark over the faces, in units of `size` (N,): (N, P, D), (N, P, D) -> P of them."""
    predicted, true = _alike(prediction, truth)
    sizes = _sizes(size, len(true))
    total, count = np.zeros(true.shape[1]), np.zeros(true.shape[1], dtype=np.int64)
    for piece in _pieces(len(true)):
        errors = point_errors(predicted[piece], true[piece]) / sizes[piece, None]
        known = ~np.isnan(errors)
        total += np.where(known, errors, 0.0).sum(axis=0)
        count += known.sum(axis=0)
    return [_part(float(value), int(points)) for value, points in zip(total, count, strict=True)]


def group_errors(
    landmarks: Sequence[PartErrors], groups: Mapping[str, Sequence[int]] = GROUPS
) -> dict[str, PartErrors]:
    """Average the points of each group, from what `landmark_errors` says of each; every point counts once."""
    result = {}
    for name, members in groups.items():
        own = [landmarks[index] for index in members if landmarks[index].points]
        result[name] = _part(sum(part.mean * part.points for part in own), sum(part.points for part in own))
    return result


def ced(errors: ArrayLike, thresholds: ArrayLike) -> NDArray[np.float64]:
    """Return the cumulative error distribution: the share of errors at or below each threshold (T,) -> (T,)."""
    steps = np.asarray(thresholds, dtype=np.float64)
    if steps.ndim != 1 or np.isnan(steps).any() or (np.diff(steps) < 0).any():
        raise ValueError("thresholds: expected a list of numbers that does not fall")
    values = _valid(errors)
    return np.searchsorted(np.sort(values), steps, side="right") / len(values)


def auc(errors: ArrayLike, threshold: float = FAILURE, *, published: bool = False) -> float:
    """Return the area under the cumulative error curve up to `threshold`, divided by it: 1 is perfect.

    Exact by default. `published=True` is the paper's formula: 1000 thresholds in [0, 1], the mean of the first
    `threshold * 1000` shares of errors strictly below them. NaN errors are left out.
    """
    return float(auc_parts(_valid(errors), threshold, published=published).mean())


def auc_parts(errors: ArrayLike, threshold: float = FAILURE, *, published: bool = False) -> NDArray[np.float64]:
    """Return what each face adds to `auc`, which is their mean: (N,) -> (N,). NaN errors stay NaN."""
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is {threshold}; expected a fraction in (0, 1]")
    values = _errors(errors)
    if not published:
        return np.clip(threshold - values, 0, None) / threshold
    steps = np.linspace(0, 1, PUBLISHED_STEPS)[: round(threshold * PUBLISHED_STEPS)]
    if not len(steps):
        raise ValueError(f"threshold is {threshold}; the published AUC has no step below 0.0005")
    above = len(steps) - np.searchsorted(steps, values, side="right")
    return np.where(np.isnan(values), np.nan, above / len(steps))


def failure_rate(errors: ArrayLike, threshold: float = FAILURE) -> float:
    """Return the share of faces whose error lies above `threshold`. NaN errors are left out."""
    return float((_valid(errors) > threshold).mean())


def _alike(prediction: ArrayLike, truth: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    predicted, true = np.asarray(prediction), np.asarray(truth)
    if predicted.shape != true.shape or predicted.ndim != 3:
        raise ValueError(f"prediction {predicted.shape} and truth {true.shape}: expected the same (N, P, 2 or 3)")
    return predicted, true


def _sizes(size: ArrayLike, faces: int) -> NDArray[np.float64]:
    sizes = np.asarray(size, dtype=np.float64)
    if sizes.shape != (faces,):
        raise ValueError(f"size {sizes.shape}: expected one a face ({faces},)")
    return np.where(sizes > 0, sizes, np.nan)


def _pieces(rows: int) -> Iterator[slice]:
    return (slice(start, start + _PIECE) for start in range(0, rows, _PIECE))


def _row_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average the rows (N, P) without their NaN; NaN where nothing is left."""
    known = ~np.isnan(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0.0).sum(axis=1)
    mean: NDArray[np.float64] = np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)
    return mean


def _part(total: float, points: int) -> PartErrors:
    return PartErrors(total / points if points else float("nan"), points)


def _errors(errors: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(errors, dtype=np.float64).ravel()
    if (values < 0).any():
        raise ValueError(f"an error is {np.nanmin(values)}; expected distances, 0 or more")
    return values


def _valid(errors: ArrayLike) -> NDArray[np.float64]:
    values = _errors(errors)
    values = values[~np.isnan(values)]
    if len(values) == 0:
        raise ValueError("no errors left to average; expected at least one that is not NaN")
    return values
