"""Opens a data set: its index as a DataFrame, its faces one by one."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.crops import decode_stored
from ls3dw.core.geometry import Affine, apply
from ls3dw.core.sample import Floats, Picture
from ls3dw.dataset.index import read_index, read_subset
from ls3dw.dataset.shards import ANNOTATION_COLUMNS, Shard
from ls3dw.dataset.store import Store, read_dataset
from ls3dw.errors import DatasetError
from ls3dw.sources import SOURCES

if TYPE_CHECKING:
    import pandas as pd

AnnotationKind = Literal["2d", "3d"]

_OPEN_SHARDS: Final = 16


@dataclass(frozen=True)
class Face:
    """One face of a data set. All points and the box are in pixels of the source's picture.

    landmarks_2d: (68, 2); landmarks_3d: (68, 3), z NaN without depth; confidence_2d, confidence_3d: (68,);
    annotation: (68, 2) the source's own points, NaN where it has none; box: (4,) x0 y0 x1 y1;
    pose: (3,) yaw, pitch, roll in degrees; crop: (2, 3) affine to the 256x256 crop; nme: a fraction;
    image: (H, W, 3) uint8 RGB, the kept picture.
    """

    id: str
    landmarks_2d: Floats
    landmarks_3d: Floats
    confidence_2d: Floats
    confidence_3d: Floats
    annotation: Floats
    box: Floats
    pose: Floats
    crop: Affine
    nme: float
    picture_affine: Affine
    jpeg: NDArray[np.uint8]

    @cached_property
    def image(self) -> Picture:
        return decode_stored(self.jpeg)

    def to_picture(self, points: NDArray[Any]) -> NDArray[Any]:
        """Turn image pixels (68, 2 or 3) into pixels of `image`."""
        return apply(self.picture_affine, points)

    def to_menpo(self) -> Any:
        """Return the picture as a `menpo.image.Image` with landmark groups landmarks_2d, landmarks_3d and annotation.

        Points are (68, 2), y x in pixels of the picture, as menpo has them; z is left out. `annotation` is left out if
        a point is missing.
        """
        from menpo.image import Image
        from menpo.shape import PointCloud

        image = Image.init_from_channels_at_back(self.image)
        for name in ("landmarks_2d", "landmarks_3d", "annotation"):
            points = self.to_picture(getattr(self, name)[:, :2].astype(np.float64))
            if np.isfinite(points).all():
                image.landmarks[name] = PointCloud(points[:, ::-1])
        return image


class Dataset:
    """One version of a data set. `len(ds)`, `ds[row]` or `ds[id]`, iteration, and `ds.index`.

    It can be pickled, used after a fork, and read from several threads.
    """

    def __init__(self, store: Store, version: str, versions: tuple[str, ...]) -> None:
        self.store = store
        self.version = version
        self.versions = versions
        self._start_reading()

    def _start_reading(self) -> None:
        self._shards: OrderedDict[Path, Shard] = OrderedDict()
        self._lock = threading.Lock()
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        # Open files and locks stay in their process; tables are read again where they are needed.
        return {"store": self.store, "version": self.version, "versions": self.versions}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Configuration, models, counts and files of the version."""
        return self.store.read_manifest(self.version)

    def annotation_kind(self, source: str) -> AnnotationKind | None:
        """Return what a source's own points are: visible contour (2d) or projected 3D points (3d).

        The manifest records it; for data sets without that record it is the registry's. None: an unknown source.
        """
        recorded = self.manifest.get("annotation_kinds", {}).get(source)
        return recorded or (SOURCES[source].annotation_kind if source in SOURCES else None)

    @cached_property
    def index(self) -> pd.DataFrame:
        """One row a face: id, source, subset, media, frame, width, height, shard, row, yaw, pitch, roll, nme, ..."""
        return read_index(self.store, self.version)

    def subset(self, name: str) -> pd.DataFrame:
        """Read subsets/<version>/<name>.parquet, which `ls3dw subset` and `ls3dw split` write: one row a face."""
        return read_subset(self.store, self.version, name)

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.index["id"])}

    @cached_property
    def _places(self) -> tuple[NDArray[Any], ...]:
        """Source, shard and row of each face as arrays: a DataFrame's row takes 100 times longer."""
        return tuple(self.index[name].to_numpy() for name in ("source", "shard", "row"))

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: int | str) -> Face:
        if isinstance(key, str):
            if key not in self._row_of:
                raise KeyError(f"no face {key!r} in version {self.version}")
            key = self._row_of[key]
        if not -len(self) <= key < len(self):
            raise IndexError(f"face {key} of {len(self)}")
        source, shard, row = (column[key] for column in self._places)
        return self._face(str(source), str(shard), int(row))

    def to_menpo(self, key: int | str) -> Any:
        """Return a face as a `menpo.image.Image` with its landmarks; see `Face.to_menpo`."""
        return self[key].to_menpo()

    def __iter__(self) -> Iterator[Face]:
        return (self[row] for row in range(len(self)))

    def column(self, name: str) -> NDArray[Any]:
        """Read a whole column of the annotations, in the order of the index: (N, ...)."""
        known = {column.name: column for column in ANNOTATION_COLUMNS}
        if name not in known:
            raise KeyError(f"no column {name!r}; choose from {', '.join(known)}")
        dtype = object if known[name].dtype == "str" else known[name].dtype
        parts = [(np.empty(0, dtype=int), np.empty((0, *known[name].shape), dtype=dtype))]
        for (source, shard), rows in self.index.groupby(["source", "shard"], sort=False):
            file = self.store.annotations(self.version, str(source), str(shard))
            with Shard(file, self.store.root) as annotations:
                parts.append((rows.index.to_numpy(), annotations.take(name, rows["row"].to_numpy())))
        order = np.argsort(np.concatenate([places for places, _ in parts]), kind="stable")
        return np.asarray(np.concatenate([values for _, values in parts])[order])

    def _face(self, source: str, shard: str, row: int) -> Face:
        if self._process != os.getpid():
            self._start_reading()  # after a fork: file positions and the lock are the parent's
        with self._lock:
            return self._read_face(source, shard, row)

    def _read_face(self, source: str, shard: str, row: int) -> Face:
        faces = self._open(self.store.faces(source, shard))
        annotations = self._open(self.store.annotations(self.version, source, shard))
        if row >= min(len(faces), len(annotations)):
            raise DatasetError(f"{annotations.path}: has no row {row} of the index; run ls3dw verify")
        names = ("landmarks_2d", "landmarks_3d", "confidence_2d", "confidence_3d", "annotation", "box", "pose", "crop")
        return Face(
            id=str(annotations.cell("id", row)),
            **{name: annotations.cell(name, row) for name in names},
            nme=float(annotations.cell("nme", row)),
            picture_affine=faces.cell("to_picture", row),
            jpeg=faces.picture_bytes(row),
        )

    def _open(self, path: Path) -> Shard:
        if path not in self._shards:
            self._shards[path] = Shard(path, self.store.root)
            if len(self._shards) > _OPEN_SHARDS:
                self._shards.popitem(last=False)[1].close()
        self._shards.move_to_end(path)
        return self._shards[path]


def open_dataset(path: str | Path, version: str | None = None) -> Dataset:
    """Open a data set. version: a name, or None for the newest. Raise `DatasetError` if it cannot be opened."""
    store = Store(Path(path))
    listed = read_dataset(store.root)
    versions: tuple[str, ...] = tuple(listed["versions"])
    if not versions:
        raise DatasetError(f"{path}: no finished version yet; run the same ls3dw build again")
    chosen: str = version or listed["newest"]
    if chosen not in versions:
        raise DatasetError(f"{path}: no version {chosen!r}; it has {', '.join(versions)}")
    return Dataset(store, chosen, versions)
