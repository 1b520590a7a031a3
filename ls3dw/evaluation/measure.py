"""Errors of landmarks, face by face: of versions and other methods, against the sources' own points or a version."""

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

Kind = Literal["source", "2d", "3d"]

ANNOTATION: Final = "annotation"
"""Name of the ground truth that is the sources' own points."""

OWN_3D: Final = ("landmarks_3d", "points_3d")
"""Extra columns (N, 68, 3) with 3D points of a source with a 2D annotation; larger z is nearer."""

OWN_Z: Final = "z"
"""Extra column (N, 68) with the z of a source whose annotation is 3D."""


@dataclass(frozen=True)
class EvaluationProtocol:
    """How landmarks are scored.

    against: `annotation` or the name of a version; points: visible contour (2d), projected 3D points (3d), or the kind
    that each source annotates; normaliser: see `core.normalisers`; threshold: of AUC and failures; seed: of intervals.
    """

    against: str = ANNOTATION
    points: Kind = "source"
    normaliser: Normaliser = "box"
    threshold: float = FAILURE
    seed: int = 0


@dataclass(frozen=True)
class Truth:
    """Ground truth of N faces in the order of the index, NaN where unknown.

    points: (N, 68, 2) image pixels; z: (N, 68), of projected 3D points; sizes: (N,) divisors of errors.
    """

    points: Floats
    z: Floats
    sizes: NDArray[np.float64]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Return which faces have a point to compare with (N,)."""
        return np.asarray(np.isfinite(self.points[..., 0] + self.points[..., 1]).any(axis=1))


@dataclass(frozen=True)
class MethodErrors:
    """Landmarks of a method and their errors, NaN where missing.

    unknown: number of its faces that the data set does not have; points: (N, 68, 2) image pixels; errors, z: (N,) as
    fractions of the face's size; landmarks: errors of each of the 68 over all faces.
    """

    method: str
    unknown: int
    points: Floats
    errors: NDArray[np.float64]
    z: NDArray[np.float64]
    landmarks: list[PartErrors]


def read_truth(dataset: Dataset, question: EvaluationProtocol) -> Truth:
    """Read the ground truth of a data set's faces."""
    if not len(dataset):
        raise DatasetError(f"{dataset.store.root}: version {dataset.version} has no faces to score")
    if question.against == ANNOTATION:
        points, z = _own_points(dataset, question.points)
    else:
        points, z = _version_points(dataset, _sibling(dataset, question.against), question.points)
    return Truth(points, z, face_sizes(question.normaliser, points, dataset.column("box")))


def measure_version(
    dataset: Dataset, truth: Truth, question: EvaluationProtocol, version: str | None = None
) -> MethodErrors:
    """Measure the landmarks of a version (None: the one opened) on the faces of `dataset`."""
    chosen = dataset if version in (None, dataset.version) else _sibling(dataset, str(version))
    if question.against == chosen.version:
        raise DatasetError(f"{dataset.store.root}: version {chosen.version} against itself; choose another --against")
    if question.against == ANNOTATION and chosen.manifest["configuration"].get("annotations") == "published":
        raise DatasetError(
            f"{dataset.store.root}: version {chosen.version} is the sources' own points, which are what others are"
            " scored against; choose another --version, or --predictions"
        )
    points, z = _version_points(dataset, chosen, question.points)
    return _measured(f"version {chosen.version}", 0, truth, points, z)


def measure_predictions(
    dataset: Dataset, truth: Truth, predictions: Predictions, name: str | None = None
) -> MethodErrors:
    """Measure another method's landmarks; `PredictionError` if none of its faces is in the data set."""
    unknown = predictions.ids - set(dataset.index["id"])
    if unknown == predictions.ids:
        known = {folded(face): face for face in dataset.index["id"]}
        alike = next(((face, known[folded(face)]) for face in sorted(unknown) if folded(face) in known), None)
        if alike:
            raise PredictionError(
                f"{predictions.origin}: its ids differ from those of {dataset.store.root} in letter case or"
                f" Unicode form (NFC, NFD): {alike[0]!a} is {alike[1]!a} there; rename them"
            )
        raise PredictionError(
            f"{predictions.origin}: none of its {len(unknown)} ids is in {dataset.store.root} ({dataset.version});"
            f" it has {min(unknown)!r}, the data set {dataset.index['id'].iloc[0]!r}"
        )
    points = predictions.take(dataset.index["id"])
    return _measured(name or predictions.origin, len(unknown), truth, points, np.full_like(truth.z, np.nan))


def _measured(method: str, unknown: int, truth: Truth, points: Floats, z: Floats) -> MethodErrors:
    return MethodErrors(
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
    """Return for each face (N,) whether its projected 3D points are compared, not its visible contour."""
    if points != "source":
        return np.full(len(dataset), points == "3d")
    in_3d = [name for name in dataset.index["source"].unique() if dataset.annotation_kind(name) == "3d"]
    return np.asarray(dataset.index["source"].isin(in_3d))


def _version_points(dataset: Dataset, version: Dataset, points: Kind) -> tuple[Floats, Floats]:
    """Return the landmarks of a version for the faces of `dataset`, and their z; NaN for faces that it lacks."""
    rows = version.index["id"].reset_index().set_index("id")["index"].reindex(dataset.index["id"]).to_numpy()
    found = np.isfinite(rows)
    taken = rows[found].astype(np.int64)
    in_3d = _in_3d(dataset, points)[found]
    landmarks_2d, landmarks_3d = version.column("landmarks_2d")[taken], version.column("landmarks_3d")[taken]
    plane = np.full((len(dataset), POINTS, 2), np.nan, dtype=np.float32)
    z = np.full((len(dataset), POINTS), np.nan, dtype=np.float32)
    plane[found] = np.where(in_3d[:, None, None], landmarks_3d[..., :2], landmarks_2d)
    z[found] = np.where(in_3d[:, None], landmarks_3d[..., 2], np.nan)
    return plane, z


def _own_points(dataset: Dataset, points: Kind) -> tuple[Floats, Floats]:
    """Return the sources' own points of a kind and their z; NaN for sources without them."""
    in_3d, annotated_in_3d = _in_3d(dataset, points), _in_3d(dataset, "source")
    plane = dataset.column("annotation").astype(np.float32)
    plane[in_3d != annotated_in_3d] = np.nan
    z = np.full((len(dataset), POINTS), np.nan, dtype=np.float32)
    if not in_3d.any():
        return plane, z
    for (source, shard), rows in dataset.index[in_3d].groupby(["source", "shard"], sort=False):
        places, inside = rows.index.to_numpy(), rows["row"].to_numpy()
        with Shard(dataset.store.faces(str(source), str(shard)), dataset.store.root) as faces:
            own = _own_3d(faces, inside)
            if own is not None:
                plane[places], z[places] = own[..., :2], own[..., 2]
            elif OWN_Z in faces.extras:
                z[places] = _extra(faces, OWN_Z, inside, (POINTS,))
    return plane, z


def _own_3d(faces: Shard, rows: NDArray[Any]) -> Floats | None:
    for name in OWN_3D:
        if name in faces.extras:
            return _extra(faces, name, rows, (POINTS, 3))
    return None


def _extra(faces: Shard, name: str, rows: NDArray[Any], shape: tuple[int, ...]) -> Floats:
    values = np.asarray(faces.take(f"extra/{name}", rows), dtype=np.float32)
    if values.shape[1:] != shape:
        raise DatasetError(f"{faces.path}: extra/{name}: rows of shape {values.shape[1:]}; expected {shape}")
    return values
