"""Bins of equal turn, for pose-based data balancing (Wing loss, CVPR 2018).

Shapes are aligned to their mean and projected on a principal component, which is yaw if the heads turn enough; the
absolute values of the projections are cut into equal bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.procrustes import align, project
from ls3dw.errors import ConfigurationError


@dataclass(frozen=True)
class PoseBins:
    """The bins of M shapes. rows: (M,) of the input; projection, bin: (M,); edges: (bins + 1,) of |projection|."""

    rows: NDArray[np.intp]
    projection: NDArray[np.float32]
    bin: NDArray[np.intp]
    edges: NDArray[np.float64]

    @property
    def counts(self) -> NDArray[np.intp]:
        """Faces in each bin."""
        return np.bincount(self.bin, minlength=len(self.edges) - 1)

    @property
    def copies(self) -> NDArray[np.intp]:
        """Times per epoch of each face that fill all bins like the fullest: round(max count / count)."""
        ratio = self.counts.max() / self.counts[self.bin]
        # Halves are rounded up; numpy would round 1.5 and 2.5 both to 2.
        return np.asarray(np.floor(ratio + 0.5), dtype=np.intp)


def pose_bins(shapes: NDArray[Any], bins: int, component: int = 0) -> PoseBins:
    """Bin shapes (N, P, 2), in any frame; shapes with a missing point are left out."""
    rows = np.flatnonzero(np.isfinite(shapes).all(axis=(1, 2)))
    rows = rows[np.ptp(shapes[rows], axis=1).max(axis=1, initial=0) > 0]
    if not len(rows):
        raise ConfigurationError(f"{len(shapes)} faces, none with all its points: nothing to balance by pose")
    projection = project(align(shapes[rows]), component)
    edges, places = _equal_bins(np.abs(projection).astype(np.float64), bins)
    return PoseBins(rows, projection, places, edges)


def balanced_rows(shapes: NDArray[Any], bins: int) -> NDArray[np.intp]:
    """Return the rows of an epoch with all poses equally often; shapes (N, P, 2) with a missing point are left out."""
    found = pose_bins(shapes, bins)
    return np.repeat(found.rows, found.copies)


def _equal_bins(distance: NDArray[np.float64], bins: int) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Cut [0, max] into equal half-open bins, the last one closed: edges (bins + 1,), bin of each."""
    edges = np.linspace(0, distance.max(), bins + 1)
    return edges, np.clip(np.searchsorted(edges, distance, side="right") - 1, 0, bins - 1)
