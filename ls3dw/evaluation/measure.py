"""How far landmarks lie from a truth, face by face: of versions and other methods, from the sources' own points or
from another version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.files import folded
from ls3dw.core.markup import POINTS
from ls3dw.core.metrics import FAILURE, PartErrors, landmark_errors, mean_errors, z_errors
from ls3dw.core.normalisers import Normaliser, face_sizes
from ls3dw.core.sample import Floats
from ls3dw.dataset.open import Dataset
from ls3dw.dataset.shards import Shard
from ls3dw.errors import DatasetError, PredictionError
from ls3dw.evaluation.predictions import Predictions
from ls3dw.sources import SOURCES

Kind = Literal["source", "2d", "3d"]

ANNOTATION: Final = "annotation"
"""The truth that is the sources' own points."""

OWN_3D: Final = ("landmarks_3d", "points_3d")
"""Extra columns (N, 68, 3) in which a source whose annotation is 2D may have 3D points too; z larger is nearer."""

OWN_Z: Final = "z"
"""Extra column (N, 68) with the z of a source whose annotation is 3D."""


@dataclass(frozen=True)
class Question:
    """What is asked of a method.

    against: `annotation` or the name of a version; points: visible contour (2d), projected 3D points (3d), or for each
    source what it annotates; normaliser: see `core.normalisers`; threshold: of AUC and failures; seed: of intervals.
    """

    against: str = ANNOTATION
    points: Kind = "source"
    normaliser: Normaliser = "box"
    threshold: float = FAILURE
    seed: int = 0


@dataclass(frozen=True)
class Truth:
    """What is true of N faces, in the order of a data set's index; NaN where nothing is known.

    points: (N, 68, 2) image pixels; z: (N, 68), of projected 3D points; sizes: (N,) what errors are divided by.
    """

    points: Floats
    z: Floats
    sizes: NDArray[np.float64]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Say which faces have a point to compare with, (N,)."""
        return np.asarray(np.isfinite(self.points[..., 0] + self.points[..., 1]).any(axis=1))


@dataclass(frozen=True)
class Measured:
    """A method's landmarks and their errors, NaN where there are none.

    unknown: its faces that the data set does not have; points: (N, 68, 2) image pixels; errors, z: (N,) as fractions of
    the truth's size; landmarks: the 68 over all faces.
    """

    method: str
    unknown: int
    points: Floats
    errors: NDArray[np.float64]
    z: NDArray[np.float64]
    landmarks: list[PartErrors]


def read_truth(dataset: Dataset, question: Question) -> Truth:
    """Read what the faces of a data set are compared with."""
    if not len(dataset):
        raise DatasetError(f"{dataset.store.root}: version {dataset.version} has no faces to score")
    if question.against == ANNOTATION:
        points, z = _own_points(dataset, question.points)
    else:
        points, z = _version_points(dataset, _sibling(dataset, question.against), question.points)
    return Truth(points, z, face_sizes(question.normaliser, points, dataset.column("box")))


def measure_version(dataset: Dataset, truth: Truth, question: Question, version: str | None = None) -> Measured:
    """Measure the landmarks of a version (None: of the data set's own) on the faces of `dataset`."""
    chosen = dataset if version in (None, dataset.version) else _sibling(dataset, str(version))
    if question.against == chosen.version:
        raise DatasetError(f"{dataset.store.root}: version {chosen.version} against itself; choose another --against")
    if question.against == ANNOTATION and chosen.manifest["configuration"]["annotations"] == "published":
        raise DatasetError(
            f"{dataset.store.root}: version {chosen.version} is the sources' own points, which are what others are"
            " scored against; choose another --version, or --predictions"
        )
    points, z = _version_points(dataset, chosen, question.points)
    return _measured(f"version {chosen.version}", 0, truth, points, z)


def measure_predictions(dataset: Dataset, truth: Truth, predictions: Predictions, name: str | None = None) -> Measured:
    """Measure another method's landmarks; `PredictionError` if none of its faces is in the data set."""
    unknown = predictions.ids - set(dataset.index["id"])
    if unknown == predictions.ids:
        known = {folded(face): face for face in dataset.index["id"]}
        alike = next(((face, known[folded(face)]) for face in sorted(unknown) if folded(face) in known), None)
        if alike:
            raise PredictionError(
                f"{predictions.origin}: its ids differ from those of {dataset.store.root} in letter case or Unicode"
                f" form (NFC, NFD): {alike[0]!a} is {alike[1]!a} there; rename them"
            )
        raise PredictionError(
            f"{predictions.origin}: none of its {len(unknown)} ids is in {dataset.store.root} ({dataset.version});"
            f" it has {min(unknown)!r}, the data set {dataset.index['id'].iloc[0]!r}"
        )
    points = predictions.take(dataset.index["id"])
    return _measured(name or predictions.origin, len(unknown), truth, points, np.full_like(truth.z, np.nan))


def _measured(method: str, unknown: int, truth: Truth, points: Floats, z: Floats) -> Measured:
    return Measured(
        method=method,
        unknown=unknown,
        points=points,
        errors=mean_errors(points, truth.points, truth.sizes),
        z=z_errors(z, truth.z, truth.sizes),
        landmarks=landmark_errors(points, truth.points, truth.sizes),
    )


def _sibling(dataset: Dataset, version: str) -> Dataset:
    """Open another version of the same data set."""
    from ls3dw.dataset.open import open_dataset

    return open_dataset(dataset.store.root, version)


def _in_3d(dataset: Dataset, points: Kind) -> NDArray[np.bool_]:
    """Say for each face (N,) whether its 3D points count, not its visible contour."""
    if points != "source":
        return np.full(len(dataset), points == "3d")
    deep = [name for name, source in SOURCES.items() if source.annotation_kind == "3d"]
    return np.asarray(dataset.index["source"].isin(deep))


def _version_points(dataset: Dataset, version: Dataset, points: Kind) -> tuple[Floats, Floats]:
    """Return the landmarks of a version for the faces of `dataset`, and their z; NaN for faces that it lacks."""
    rows = version.index["id"].reset_index().set_index("id")["index"].reindex(dataset.index["id"]).to_numpy()
    found = np.isfinite(rows)
    taken = rows[found].astype(np.int64)
    deep = _in_3d(dataset, points)[found]
    flat, landmarks_3d = version.column("landmarks_2d")[taken], version.column("landmarks_3d")[taken]
    plane = np.full((len(dataset), POINTS, 2), np.nan, dtype=np.float32)
    z = np.full((len(dataset), POINTS), np.nan, dtype=np.float32)
    plane[found] = np.where(deep[:, None, None], landmarks_3d[..., :2], flat)
    z[found] = np.where(deep[:, None], landmarks_3d[..., 2], np.nan)
    return plane, z


def _own_points(dataset: Dataset, points: Kind) -> tuple[Floats, Floats]:
    """Return the sources' own points of a kind and their z; NaN for sources without them."""
    deep, own_deep = _in_3d(dataset, points), _in_3d(dataset, "source")
    plane = dataset.column("annotation").astype(np.float32)
    plane[deep != own_deep] = np.nan
    z = np.full((len(dataset), POINTS), np.nan, dtype=np.float32)
    if not deep.any():
        return plane, z
    for (source, shard), rows in dataset.index[deep].groupby(["source", "shard"], sort=False):
        places, inside = rows.index.to_numpy(), rows["row"].to_numpy()
        with Shard(dataset.store.faces(str(source), str(shard))) as faces:
            own = _own_3d(faces, inside)
            if own is not None:
                plane[places], z[places] = own[..., :2], own[..., 2]
            elif OWN_Z in faces.extras:
                z[places] = faces.column(f"extra/{OWN_Z}")[inside]
    return plane, z


def _own_3d(faces: Shard, rows: NDArray[Any]) -> Floats | None:
    for name in OWN_3D:
        if name in faces.extras:
            return np.asarray(faces.column(f"extra/{name}")[rows], dtype=np.float32)
    return None
