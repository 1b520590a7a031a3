"""Faces for training, by number: of a source in its published layout, or of a data set of ls3dw.

This runs in the decoding processes: numpy and OpenCV only, no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ls3dw.core.crops import STORED_SIDE
from ls3dw.core.geometry import (
    CROP_SIZE,
    REFERENCE_SIDE,
    Affine,
    apply,
    compose,
    crop_affine,
    crop_placement,
    invert,
    resize_affine,
)
from ls3dw.core.markup import POINTS
from ls3dw.core.sample import Drop, Floats, Media, Picture, Sample
from ls3dw.dataset.subsets.pose_bins import balanced_rows
from ls3dw.errors import ConfigurationError, DatasetError, PictureError
from ls3dw.sources import open_source
from ls3dw.training.options import StreamOptions

if TYPE_CHECKING:
    from ls3dw.dataset.open import Dataset

WINDOW: Final = math.ceil(STORED_SIDE * CROP_SIZE)
"""Side of a training picture at the crop's resolution, the extent of stored pictures."""


@dataclass(frozen=True)
class TrainingFace:
    """One decoded face."""

    picture: Picture
    """(538, 538, 3) uint8, the crop in its middle."""

    landmarks_2d: Floats
    """(68, 2) crop pixels, NaN where unknown."""

    landmarks_3d: Floats
    """(68, 3) crop pixels, NaN where unknown."""


def cut_face(image: Picture, to_image: Affine, box: NDArray[Any], points_2d: Floats, points_3d: Floats) -> TrainingFace:
    """Cut the published crop of `box` (4,) with its surroundings from a picture (H, W, 3); black outside the picture.

    Box and points are in source pixels; to_image: affine from source pixels to pixels of `image`.
    """
    crop = crop_affine(box)
    zoom = CROP_SIZE / (REFERENCE_SIDE * float(crop_placement(box)[1]))
    pixel = float(np.sqrt(abs(np.linalg.det(to_image[:, :2]))))
    shrink = min(1.0, zoom / pixel)
    if shrink < 1:
        height, width = image.shape[:2]
        small = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        # Area averaging first: the bilinear resampling below reads four pixels only.
        image = np.asarray(cv2.resize(image, small, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        factor_x, factor_y = small[0] / width, small[1] / height
        resize = np.array([[factor_x, 0, (factor_x - 1) / 2], [0, factor_y, (factor_y - 1) / 2]])
        to_image = compose(resize, to_image)
    to_window = crop.copy()
    to_window[:, 2] += (WINDOW - CROP_SIZE) / 2
    window = cv2.warpAffine(image, compose(to_window, invert(to_image)), (WINDOW, WINDOW), flags=cv2.INTER_LINEAR)
    return TrainingFace(np.asarray(window, dtype=np.uint8), apply(crop, points_2d), apply(crop, points_3d))


class FaceList(Protocol):
    """Faces by number. Sent to decoding processes, so it must be small and picklable."""

    def __len__(self) -> int: ...

    def face(self, number: int) -> TrainingFace | Drop:
        """Decode one face, or return why it cannot be used."""
        ...


class SourceFaces:
    """The faces of a source of stills."""

    def __init__(self, media: Sequence[Media], annotation_kind: str, balance: int = 0) -> None:
        self.media = media
        self.annotation_kind = annotation_kind
        if balance:
            self.media = [media[row] for row in balanced_rows(self._shapes(), balance)]

    def __len__(self) -> int:
        return len(self.media)

    def face(self, number: int) -> TrainingFace | Drop:
        (_, outcome), *_ = self.media[number].read(lambda unit: False)
        if isinstance(outcome, Drop):
            return outcome
        points_2d, points_3d = landmarks_of(outcome, self.annotation_kind)
        to_image = resize_affine(1 / outcome.reduction, 1 / outcome.reduction)
        return cut_face(outcome.image(), to_image, outcome.box, points_2d, points_3d)

    def _shapes(self) -> Floats:
        """Read the points of all faces (N, 68, 2), NaN where a face cannot be used."""
        # Sources decode pictures to check them; decoding releases the GIL, so threads help.
        with ThreadPoolExecutor() as pool:
            return np.stack(list(pool.map(self._shape, self.media)))

    def _shape(self, media: Media) -> Floats:
        (_, outcome), *_ = media.read(lambda unit: False)
        if isinstance(outcome, Drop):
            return np.full((POINTS, 2), np.nan, dtype=np.float32)
        points_2d, points_3d = landmarks_of(outcome, self.annotation_kind)
        return points_2d if np.isnan(points_3d[:, :2]).any() else points_3d[:, :2]


def landmarks_of(sample: Sample, annotation_kind: str) -> tuple[Floats, Floats]:
    """Return a sample's points in 2D (68, 2) and 3D (68, 3), NaN where unknown.

    3D points come as `points_3d` of a 2D sample (300W-LP), or as the annotation with `z` (AFLW2000-3D).
    """
    if annotation_kind == "2d":
        unknown = np.full((POINTS, 3), np.nan, dtype=np.float32)
        return sample.annotation, np.asarray(sample.extra.get("points_3d", unknown), dtype=np.float32)
    z = np.asarray(sample.extra["z"], dtype=np.float32)
    return np.full((POINTS, 2), np.nan, np.float32), np.concatenate((sample.annotation, z[:, None]), axis=1)


class DatasetFaces:
    """The faces of a data set of ls3dw, with the landmarks of one version. Each process opens its own files."""

    def __init__(self, root: Path, version: str, rows: Sequence[int]) -> None:
        self.root = root
        self.version = version
        self.rows = rows
        self._dataset: object = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_dataset": None}

    def __len__(self) -> int:
        return len(self.rows)

    def face(self, number: int) -> TrainingFace | Drop:
        from ls3dw.dataset.open import Dataset, open_dataset

        if not isinstance(self._dataset, Dataset):
            self._dataset = open_dataset(self.root, self.version)
        face = self._dataset[self.rows[number]]
        try:
            return cut_face(face.image, face.picture_affine, face.box, face.landmarks_2d, face.landmarks_3d)
        except PictureError as error:
            return Drop(face.id, "dataset", "unreadable picture", str(error))


def open_faces(options: StreamOptions) -> FaceList:
    """Find the faces of a file stream; raises an `Ls3dwError` for an unusable folder."""
    assert options.root is not None
    faces: FaceList
    if options.stream == "dataset":
        faces = _open_dataset(options, options.root)
    else:
        source = open_source(options.stream, options.root)
        subsets = options.subsets or training_subsets(source.subsets, options.stream)
        media = source.media(subsets, piece=1)[: options.limit]
        faces = SourceFaces(media, source.annotation_kind, options.balance)
    if len(faces) == 0:
        raise ConfigurationError(f"{options.stream}: no face in {options.root}; check root, subsets and limit")
    return faces


def training_subsets(there: Sequence[str], stream: str) -> tuple[str, ...] | None:
    """Choose the default subsets: the usual training set of 300-W; None, the source's own default, for others."""
    if stream != "300w":
        return None
    return tuple(name for name in there if name in ("afw", "helen-train", "lfpw-train")) or None


def _open_dataset(options: StreamOptions, root: Path) -> DatasetFaces:
    from ls3dw.dataset.open import open_dataset

    dataset = open_dataset(root, options.version)
    index = dataset.index
    known = set(index["source"]) | set(index["subset"])
    if strange := sorted(set(options.subsets) - known):
        raise DatasetError(f"{root}: no source or subset {', '.join(strange)}; it has {', '.join(sorted(known))}")
    chosen = index["source"].isin(options.subsets) | index["subset"].isin(options.subsets)
    rows = np.flatnonzero(chosen if options.subsets else np.ones(len(index), dtype=bool))[: options.limit]
    if options.subset is not None:
        rows = _copies(dataset, options.subset, rows)
    if options.balance:
        rows = rows[balanced_rows(dataset.column("landmarks_3d")[rows, :, :2], options.balance)]
    return DatasetFaces(root, dataset.version, rows.tolist())


def _copies(dataset: Dataset, name: str, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the rows that are in a subset, repeated as the subset says."""
    table = dataset.subset(name)
    repeats = table["repeats"] if "repeats" in table else np.ones(len(table), dtype=int)
    if "weight" in table and (table["weight"] != repeats).any():
        raise ConfigurationError(f"subset {name}: drawn by weights, not copies; draw it again with --mode repeat")
    times = dict(zip(table["id"], repeats, strict=True))
    return np.repeat(rows, [int(times.get(face, 0)) for face in dataset.index["id"].iloc[rows]])
