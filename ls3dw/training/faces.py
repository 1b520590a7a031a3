"""The faces of a folder by number, for training: of a source in its published layout, or of a data set of ls3dw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ls3dw.errors import ConfigurationError, DatasetError, PictureError
from ls3dw.markup import POINTS
from ls3dw.sample import Drop, Floats, Media, Sample
from ls3dw.sources import open_source
from ls3dw.training.config import StreamOptions
from ls3dw.training.cut import TrainingFace, cut_face

WHOLE = np.eye(2, 3)


class FaceList(Protocol):
    """Faces by number; goes to decoding processes, so it is light and can be pickled."""

    def __len__(self) -> int: ...

    def face(self, number: int) -> TrainingFace | Drop:
        """Decode one face, or say why it cannot be used."""
        ...


class SourceFaces:
    """The faces of a source of stills."""

    def __init__(self, media: Sequence[Media], annotation_kind: str) -> None:
        self.media = media
        self.annotation_kind = annotation_kind

    def __len__(self) -> int:
        return len(self.media)

    def face(self, number: int) -> TrainingFace | Drop:
        (_, outcome), *_ = self.media[number].read(lambda unit: False)
        if isinstance(outcome, Drop):
            return outcome
        points_2d, points_3d = landmarks_of(outcome, self.annotation_kind)
        return cut_face(outcome.image(), WHOLE, outcome.box, points_2d, points_3d)


def landmarks_of(sample: Sample, annotation_kind: str) -> tuple[Floats, Floats]:
    """Return a sample's points as (68, 2) and (68, 3), NaN where it has none of that kind.

    A source gives 3D points as `points_3d` beside 2D ones (300W-LP), or as its annotation with `z` (AFLW2000-3D).
    """
    if annotation_kind == "2d":
        unknown = np.full((POINTS, 3), np.nan, dtype=np.float32)
        return sample.annotation, np.asarray(sample.extra.get("points_3d", unknown), dtype=np.float32)
    z = np.asarray(sample.extra["z"], dtype=np.float32)
    return np.full((POINTS, 2), np.nan, np.float32), np.concatenate((sample.annotation, z[:, None]), axis=1)


class DatasetFaces:
    """The faces of a data set that ls3dw built, with the landmarks of one version. Each process opens its own files."""

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
        from ls3dw.dataset import Dataset, open_dataset

        if not isinstance(self._dataset, Dataset):
            self._dataset = open_dataset(self.root, self.version)
        face = self._dataset[self.rows[number]]
        try:
            return cut_face(face.image, face.picture_affine, face.box, face.landmarks_2d, face.landmarks_3d)
        except PictureError as error:
            return Drop(face.id, "dataset", "unreadable picture", str(error))


def open_faces(options: StreamOptions) -> FaceList:
    """Find the faces of a file stream; an `Ls3dwError` says what is wrong with its folder."""
    assert options.root is not None
    faces: FaceList
    if options.stream == "dataset":
        faces = _open_dataset(options, options.root)
    else:
        source = open_source(options.stream, options.root)
        subsets = options.subsets or training_subsets(source.subsets, options.stream)
        faces = SourceFaces(source.media(subsets, piece=1)[: options.limit], source.annotation_kind)
    if len(faces) == 0:
        raise ConfigurationError(f"{options.stream}: no face in {options.root}; check root, subsets and limit")
    return faces


def training_subsets(there: Sequence[str], stream: str) -> tuple[str, ...] | None:
    """Choose what is trained on by default: of 300-W the usual training set, of others what a build reads."""
    if stream != "300w":
        return None
    return tuple(name for name in there if name in ("afw", "helen-train", "lfpw-train")) or None


def _open_dataset(options: StreamOptions, root: Path) -> DatasetFaces:
    from ls3dw.dataset import open_dataset

    dataset = open_dataset(root, options.version)
    index = dataset.index
    known = set(index["source"]) | set(index["subset"])
    if strange := sorted(set(options.subsets) - known):
        raise DatasetError(f"{root}: no source or subset {', '.join(strange)}; it has {', '.join(sorted(known))}")
    chosen = index["source"].isin(options.subsets) | index["subset"].isin(options.subsets)
    rows = np.flatnonzero(chosen if options.subsets else np.ones(len(index), dtype=bool))
    return DatasetFaces(root, dataset.version, rows[: options.limit].tolist())
