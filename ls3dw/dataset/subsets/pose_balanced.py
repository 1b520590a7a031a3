"""Pose-based data balancing (Wing loss, CVPR 2018): rare poses come more often in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ls3dw.dataset.subsets.pose_bins import PoseBins, pose_bins
from ls3dw.dataset.subsets.ranks import ranks
from ls3dw.errors import ConfigurationError

Mode = Literal["repeat", "thin", "weight"]
MODES: Final[tuple[Mode, ...]] = get_args(Mode)


@dataclass(frozen=True)
class PoseBalance:
    """Options of the balancing.

    bins: number of equal bins of |projection|; component: principal component, 0 the strongest; mode: `repeat` the
    faces of a bin round(max count / count) times, as in the paper, `thin` every bin to the smallest count above 0, or
    `weight` by max count / count, for a sampler; seed: of the thinning.
    """

    bins: int = 9
    component: int = 0
    mode: Mode = "repeat"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.bins < 1 or self.component < 0 or self.mode not in MODES:
            raise ConfigurationError(
                f"bins {self.bins}, component {self.component}, mode {self.mode!r}: expected bins from 1, a component"
                f" from 0, and one of {', '.join(MODES)}"
            )


@dataclass(frozen=True)
class Balanced(PoseBins):
    """The balanced faces. repeats: times per epoch, 0 if thinned out; weight: relative frequency of draws."""

    repeats: NDArray[np.intp]
    weight: NDArray[np.float64]

    @property
    def balanced_counts(self) -> NDArray[np.float64]:
        """Sum of the weights in each bin: faces of an epoch after balancing."""
        return np.asarray(np.bincount(self.bin, self.weight, len(self.edges) - 1), dtype=np.float64)


def balance_by_pose(ids: list[str], shapes: NDArray[Any], options: PoseBalance) -> Balanced:
    """Balance shapes (N, P, 2), in any frame; shapes with a missing point are left out."""
    found = pose_bins(shapes, options.bins, options.component)
    rows, bins, counts = found.rows, found.bin, found.counts
    if options.mode == "repeat":
        repeats = found.copies
    elif options.mode == "thin":
        order = ranks((ids[row] for row in rows), options.seed)
        repeats = _thinned(bins, order, int(counts[counts > 0].min())).astype(np.intp)
    else:
        repeats = np.ones(len(rows), dtype=np.intp)
    weight = counts.max() / counts[bins] if options.mode == "weight" else repeats.astype(np.float64)
    return Balanced(rows, found.projection, bins, found.edges, repeats, weight)


def _thinned(bins: NDArray[np.intp], order: NDArray[np.uint64], limit: int) -> NDArray[np.bool_]:
    """Return which faces stay if each bin keeps its first `limit` by `order`."""
    sequence = np.lexsort((order, bins))
    starts = np.searchsorted(bins[sequence], np.arange(bins.max() + 1))
    place = np.empty(len(bins), dtype=np.intp)
    place[sequence] = np.arange(len(bins)) - starts[bins[sequence]]
    return np.asarray(place < limit)
