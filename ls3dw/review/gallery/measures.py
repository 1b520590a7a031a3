"""The scores that order a gallery: one number per face of the version, NaN for faces that it does not show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.geometry import tight_box
from ls3dw.core.markup import GROUPS
from ls3dw.core.metrics import FAILURE, box_size, point_errors
from ls3dw.dataset.open import Dataset, open_dataset
from ls3dw.errors import ConfigurationError

Scores = NDArray[np.float64]
"""(N,) in the order of the index."""

INNER: Final = [point for name, members in GROUPS.items() if name != "jaw" for point in members]
"""Points that the 2D and the 3D mark-up share: only the 2D jaw follows the visible contour."""


@dataclass(frozen=True)
class Show:
    """A kind of gallery.

    label: name of the score, empty if it is not shown; percent: whether it is a share of the face's size; largest:
    whether the largest comes first; score: (version, name of another version, seed) -> scores.
    """

    title: str
    label: str
    percent: bool
    largest: bool
    score: Callable[[Dataset, str, int], Scores]


def _worst(dataset: Dataset, name: str, seed: int) -> Scores:
    return dataset.index["nme"].to_numpy(dtype=np.float64)


def _failures(dataset: Dataset, name: str, seed: int) -> Scores:
    errors = _worst(dataset, name, seed)
    return np.where(errors > FAILURE, errors, np.nan)


def _confidence(dataset: Dataset, name: str, seed: int) -> Scores:
    return dataset.index["confidence"].to_numpy(dtype=np.float64)


def _disagreement(dataset: Dataset, name: str, seed: int) -> Scores:
    """Mean distance of the inner 2D landmarks from the 3D ones, in sizes of the face."""
    points_2d, points_3d = dataset.column("landmarks_2d"), dataset.column("landmarks_3d")[..., :2]
    return _share(point_errors(points_2d[:, INNER], points_3d[:, INNER]), points_3d)


def _pose(dataset: Dataset, name: str, seed: int) -> Scores:
    return np.asarray(dataset.index["pose_residual"].to_numpy(dtype=np.float64))


def _jumps(dataset: Dataset, name: str, seed: int) -> Scores:
    """Distance of a frame's landmarks from the mean of the frames before and after, in sizes of the face."""
    points = dataset.column("landmarks_3d")[..., :2].astype(np.float64)
    scores = np.full(len(points), np.nan)
    before, after = neighbours(dataset, -1), neighbours(dataset, 1)
    inside = np.flatnonzero((before >= 0) & (after >= 0))
    middle = (points[before[inside]] + points[after[inside]]) / 2
    scores[inside] = _share(point_errors(points[inside], middle), points[inside])
    return scores


def _changed(dataset: Dataset, name: str, seed: int) -> Scores:
    """Distance of the 3D landmarks in the picture plane from those of another version, in sizes of the face."""
    if name == dataset.version:
        raise ConfigurationError(f"--show changed:{name}: that is the version itself; name an earlier one")
    other = open_dataset(dataset.store.root, name)
    row_of = {face: row for row, face in enumerate(other.index["id"])}
    rows = np.array([row_of.get(face, -1) for face in dataset.index["id"]], dtype=int)
    points = dataset.column("landmarks_3d")[..., :2].astype(np.float64)
    known = np.flatnonzero(rows >= 0)
    moved = point_errors(points[known], other.column("landmarks_3d")[rows[known], :, :2])
    scores = np.full(len(points), np.nan)
    scores[known] = _share(moved, points[known])
    return np.where(scores > 0, scores, np.nan)


def _broken(dataset: Dataset, name: str, seed: int) -> Scores:
    return np.where(dataset.index["broken"].to_numpy(dtype=bool), 0.0, np.nan)


def _random(dataset: Dataset, name: str, seed: int) -> Scores:
    return np.random.default_rng(seed).random(len(dataset))


def _share(distances: Scores, points: NDArray[np.float64]) -> Scores:
    """Turn distances (N, P) into their mean as a share of the size of the box of points (N, 68, 2)."""
    return np.asarray(distances.mean(axis=1) / box_size(tight_box(points)))


SHOWS: Final[dict[str, Show]] = {
    "worst": Show("Worst NME", "NME", True, True, _worst),
    "failures": Show("Failures", "NME", True, True, _failures),
    "confidence": Show("Lowest confidence", "confidence", False, False, _confidence),
    "disagreement": Show("2D and 3D disagree", "2D to 3D", True, True, _disagreement),
    "pose": Show("Bad pose fit", "residual", True, True, _pose),
    "jumps": Show("Video jumps", "jump", True, True, _jumps),
    "changed": Show("Most changed", "moved", True, True, _changed),
    "broken": Show("Frames on the list of broken ones", "", False, True, _broken),
    "random": Show("Random sample", "", False, True, _random),
}
"""`changed` takes the name of a version: `changed:v1`."""


def neighbours(dataset: Dataset, step: int) -> NDArray[np.intp]:
    """Return for each face the row of the frame `step` frames later in its video (N,), -1 if there is none."""
    index = dataset.index
    # This takes all faces of a video for one track: videos of LS3D-W have one face per frame.
    keys = list(zip(index["source"], index["media"], index["frame"], strict=True))
    row_of = {key: row for row, key in enumerate(keys) if key[2] > 0}
    return np.array([row_of.get((s, m, f + step), -1) if f > 0 else -1 for s, m, f in keys], dtype=np.intp)
