"""The papers' metrics as pure functions of arrays. NME is a fraction, not per cent."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ls3dw.geometry import tight_box

FAILURE = 0.07
"""A face whose NME lies above this is a failure ("How far are we", section 5)."""


def point_errors(prediction: ArrayLike, truth: ArrayLike) -> NDArray[np.float64]:
    """Return the distance of each landmark: (N, P, D), (N, P, D) -> (N, P), NaN where either is missing."""
    predicted, true = np.asarray(prediction, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if predicted.shape != true.shape or predicted.ndim != 3:
        raise ValueError(f"prediction {predicted.shape} and truth {true.shape}: expected the same (N, P, 2 or 3)")
    distance: NDArray[np.float64] = np.sqrt(np.square(predicted - true).sum(axis=2))
    return distance


def box_size(box: ArrayLike) -> NDArray[np.float64]:
    """Return sqrt(width * height) of boxes (N, 4); NaN for a box without area."""
    boxes = np.asarray(box, dtype=np.float64)
    sides = boxes[..., 2:] - boxes[..., :2]
    area = np.where((sides > 0).all(axis=-1), sides[..., 0] * sides[..., 1], np.nan)
    return np.sqrt(area)


def nme(prediction: ArrayLike, truth: ArrayLike, box: ArrayLike | None = None) -> NDArray[np.float64]:
    """Return the normalised mean error of each face ("How far are we", section 4): (N, P, 2), (N, P, 2) -> (N,).

    box: (N, 4), by default the tight box of `truth`; the normaliser is sqrt(width * height). Missing points (NaN) are
    left out of the mean; a face with none left is NaN.
    """
    errors = point_errors(prediction, truth)
    size = box_size(tight_box(np.asarray(truth)) if box is None else box)
    found = ~np.isnan(errors)
    count = found.sum(axis=1)
    total = np.where(found, errors, 0.0).sum(axis=1)
    mean = np.divide(total, count, out=np.full(len(errors), np.nan), where=count > 0)
    normalised: NDArray[np.float64] = mean / size
    return normalised


def _valid(errors: ArrayLike) -> NDArray[Any]:
    values = np.asarray(errors, dtype=np.float64).ravel()
    values = values[~np.isnan(values)]
    if len(values) == 0:
        raise ValueError("no errors left to average; expected at least one that is not NaN")
    return values


def auc(errors: ArrayLike, threshold: float = FAILURE, *, published: bool = False) -> float:
    """Return the area under the cumulative error curve up to `threshold`, divided by it: 1 is perfect.

    Exact by default. `published=True` is the paper's formula: 1000 thresholds in [0, 1], the mean of the first
    `threshold * 1000` shares of errors strictly below them. NaN errors are left out.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is {threshold}; expected a fraction in (0, 1]")
    values = _valid(errors)
    if published:
        steps = np.linspace(0, 1, 1000)[: round(threshold * 1000)]
        return float(np.searchsorted(np.sort(values), steps, side="left").mean() / len(values))
    return float(np.clip(threshold - values, 0, None).mean() / threshold)


def failure_rate(errors: ArrayLike, threshold: float = FAILURE) -> float:
    """Return the share of faces whose error lies above `threshold`. NaN errors are left out."""
    return float((_valid(errors) > threshold).mean())
