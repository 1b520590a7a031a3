"""Pose-based data balancing (Wing loss, CVPR 2018): faces of rare poses come more often in training.

The shapes are aligned to their mean, projected on their first principal component, which is the turn of the head where
heads turn enough, and the projections' absolute values are cut into equal bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ls3dw.errors import ConfigurationError
from ls3dw.subsets.ranks import ranks
from ls3dw.subsets.shapes import align, project

Mode = Literal["repeat", "thin", "weight"]
MODES: Final[tuple[Mode, ...]] = get_args(Mode)


@dataclass(frozen=True)
class PoseBalance:
    """How to balance. bins: of |projection|, equal ones on [0, max]; component: which one, 0 the strongest.

    mode: `repeat` a bin's faces round(max count / count) times, as the paper does; `thin` every bin to the count of
    the rarest that has any; `weight`: max count / count, for a sampler that draws by weights. seed: of what is thinned.
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
class Balanced:
    """The faces that were balanced. rows: (M,) of the input; the rest for each of them.

    projection: on the component; bin: from 0; repeats: times that an epoch has the face, 0: thinned away;
    weight: how often to draw it, relative to others. edges: (bins + 1,) of |projection|.
    """

    rows: NDArray[np.intp]
    projection: NDArray[np.float32]
    bin: NDArray[np.intp]
    repeats: NDArray[np.intp]
    weight: NDArray[np.float64]
    edges: NDArray[np.float64]

    @property
    def counts(self) -> NDArray[np.intp]:
        """Faces in each bin before balancing."""
        return np.bincount(self.bin, minlength=len(self.edges) - 1)

    @property
    def balanced_counts(self) -> NDArray[np.float64]:
        """Sum of the weights in each bin: faces of an epoch after balancing."""
        return np.asarray(np.bincount(self.bin, self.weight, len(self.edges) - 1), dtype=np.float64)


def balance_by_pose(ids: list[str], shapes: NDArray[Any], options: PoseBalance) -> Balanced:
    """Balance shapes (N, P, 2), in any frame; those with a missing point are left out of the result."""
    rows = np.flatnonzero(np.isfinite(shapes).all(axis=(1, 2)))
    rows = rows[np.ptp(shapes[rows], axis=1).max(axis=1, initial=0) > 0]
    if not len(rows):
        raise ConfigurationError(f"{len(shapes)} faces, none with all its points: nothing to balance by pose")
    projection = project(align(shapes[rows]), options.component)
    edges, bins = _equal_bins(np.abs(projection).astype(np.float64), options.bins)
    counts = np.bincount(bins, minlength=options.bins)
    ratio = counts.max() / np.maximum(counts, 1)[bins]
    repeats = np.ones(len(rows), dtype=np.intp)
    weight = np.ones(len(rows))
    if options.mode == "repeat":
        # Halves are rounded up: numpy's rounding to even would give 2.5 and 1.5 the same.
        repeats = np.floor(ratio + 0.5).astype(np.intp)
        weight = repeats.astype(np.float64)
    elif options.mode == "thin":
        order = ranks((ids[row] for row in rows), options.seed)
        repeats = _thinned(bins, order, int(counts[counts > 0].min())).astype(np.intp)
        weight = repeats.astype(np.float64)
    else:
        weight = ratio
    return Balanced(rows, projection, bins, repeats, weight, edges)


def _equal_bins(distance: NDArray[np.float64], bins: int) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Cut [0, max] into equal bins, each without its upper edge but for the last: edges (bins + 1,), bin of each."""
    edges = np.linspace(0, distance.max(), bins + 1)
    return edges, np.clip(np.searchsorted(edges, distance, side="right") - 1, 0, bins - 1)


def _thinned(bins: NDArray[np.intp], order: NDArray[np.uint64], limit: int) -> NDArray[np.bool_]:
    """Say which faces stay when each bin keeps its first `limit` by `order`."""
    sequence = np.lexsort((order, bins))
    starts = np.searchsorted(bins[sequence], np.arange(bins.max() + 1))
    place = np.empty(len(bins), dtype=np.intp)
    place[sequence] = np.arange(len(bins)) - starts[bins[sequence]]
    return np.asarray(place < limit)
