"""Bootstrap confidence intervals of means, resampling faces or whole videos."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES: Final = 1000
LEVEL: Final = 0.95
ALONE: Final = 1024
BINS: Final = 1024
"""With more than `ALONE + BINS` units, the `ALONE` largest are drawn singly, the rest by bins of similar units: a
million faces cost no more than some thousand."""

_DRAWS: Final = 1 << 22
"""Draws in memory at a time."""


def mean_intervals(
    values: ArrayLike,
    units: ArrayLike | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> NDArray[np.float64]:
    """Return the percentile interval of the mean of each column: (N, K) -> (K, 2).

    units: (N,) labels of rows that are drawn together, as frames of one video; None: each row alone. With fewer than
    two units the interval is NaN. The same seed gives the same interval.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or not np.isfinite(array).all():
        raise ValueError(f"values {array.shape}: expected finite (N, K); leave missing faces out first")
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level {level}, resamples {resamples}: expected a level in (0, 1) and at least 1 resample")
    sums, sizes = _by_unit(array, units)
    if len(sums) < 2:
        return np.full((array.shape[1], 2), np.nan)
    means = _resampled(sums, sizes, np.random.default_rng(seed), resamples)
    return np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0).T


def _by_unit(values: NDArray[np.float64], units: ArrayLike | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum the rows of each unit: (U, K), and count them (U,)."""
    if units is None:
        return values, np.ones(len(values))
    labels = np.asarray(units)
    if labels.shape != (len(values),):
        raise ValueError(f"units {labels.shape}: expected one a row ({len(values)},)")
    unit = np.unique(labels, return_inverse=True)[1]
    sizes = np.bincount(unit).astype(np.float64)
    columns = [np.bincount(unit, weights=column, minlength=len(sizes)) for column in values.T]
    return np.stack(columns, axis=1) if columns else np.empty((len(sizes), 0)), sizes


def _resampled(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], rng: np.random.Generator, resamples: int
) -> NDArray[np.float64]:
    """Return the means (resamples, K) of resampled units."""
    total = len(sums)
    binned = total > ALONE + BINS
    chances = np.full(total, 1 / total)
    if binned:
        sums, sizes, chances = _binned(sums, sizes)
    means = np.empty((resamples, sums.shape[1]))
    step = max(1, _DRAWS // len(sums))
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        counts = rng.multinomial(total, chances, size=stop - start) if binned else _counts(rng, stop - start, total)
        means[start:stop] = (counts @ sums) / (counts @ sizes)[:, None]
    return means


def _counts(rng: np.random.Generator, rows: int, units: int) -> NDArray[np.float64]:
    """Count how often each unit is drawn: a multinomial of equal chances, ten times faster than numpy's."""
    drawn = rng.integers(0, units, size=(rows, units)) + units * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units).astype(np.float64)


def _binned(
    sums: NDArray[np.float64], sizes: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Keep the largest units single and put the rest into bins of units with a similar first column.

    Returns sums, sizes and chances of the bins; a drawn bin counts as its mean unit.
    """
    order = np.argsort(sums[:, 0], kind="stable")
    inner = np.linspace(0, len(order) - ALONE, BINS + 1).astype(np.int64)
    starts = np.concatenate((inner[:-1], np.arange(inner[-1], len(order))))
    counts = np.diff(starts, append=len(order))
    means = np.add.reduceat(sums[order], starts) / counts[:, None]
    return means, np.add.reduceat(sizes[order], starts) / counts, counts / len(order)
