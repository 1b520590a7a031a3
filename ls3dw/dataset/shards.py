"""The HDF5 shards: their columns, encoding and reading. Nothing else uses h5py."""

from __future__ import annotations

import errno
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from ls3dw.core.files import is_safe_name
from ls3dw.core.markup import POINTS
from ls3dw.dataset.gate import inside, reading
from ls3dw.errors import DatasetError

FORMAT: Final = 1


@dataclass(frozen=True)
class Column:
    """An HDF5 data set of a shard, one row a face. dtype "str": UTF-8, padded to one length per shard."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    meaning: str


FACE_COLUMNS: Final = (
    Column("id", (), "str", "unique in the data set"),
    Column("media", (), "str", "file under the source's root"),
    Column("subset", (), "str", "subset of the source"),
    Column("frame", (), "int32", "frame number in a video, from 1; 0: a still"),
    Column("width", (), "int32", "of the source's picture, pixels"),
    Column("height", (), "int32", "of the source's picture, pixels"),
    Column("annotation", (POINTS, 2), "float32", "the source's own points, image pixels, NaN where it has none"),
    Column("box", (4,), "float32", "x0 y0 x1 y1, image pixels"),
    Column("yaw", (), "float32", "the source's own yaw in degrees, NaN where it has none"),
    Column("broken", (), "bool", "the published annotation is known to be wrong"),
    Column("phash", (), "uint64", "perceptual hash of the crop: ls3dw.phash"),
    Column("to_picture", (2, 3), "float64", "affine: image pixels to pixels of the kept picture"),
    Column("picture_start", (), "int64", "first byte of the kept picture in `pictures`"),
    Column("picture_size", (), "int64", "bytes of the kept picture (JPEG)"),
)
"""Columns of a face shard, shared by all versions. It also has `pictures`, the bytes of all JPEG files one after the
other, and `extra/<name>`, columns that only one source has."""

ANNOTATION_COLUMNS: Final = (
    Column("id", (), "str", "unique in the data set"),
    Column("landmarks_2d", (POINTS, 2), "float32", "visible contour, image pixels"),
    Column("landmarks_3d", (POINTS, 3), "float32", "projected 3D points and z, image pixels, z NaN without depth"),
    Column("confidence_2d", (POINTS,), "float32", "heatmap peak in [0, 1]"),
    Column("confidence_3d", (POINTS,), "float32", "heatmap peak in [0, 1]"),
    Column("annotation", (POINTS, 2), "float32", "the source's own points, image pixels, NaN where it has none"),
    Column("box", (4,), "float32", "x0 y0 x1 y1, image pixels"),
    Column("crop", (2, 3), "float64", "affine: image pixels to the 256x256 crop"),
    Column("pose", (3,), "float32", "yaw, pitch, roll in degrees"),
    Column("nme", (), "float32", "against the source's own points, as a fraction; NaN where it has none"),
    Column("guided", (), "bool", "the 3D network was guided by the source's points, not by predicted ones"),
    Column("made_by", (), "str", "the version whose networks made the row: this one, or one it builds on"),
)
"""Columns of an annotation shard."""

Rows = Mapping[str, NDArray[Any]]


def encode_shard(
    columns: Sequence[Column], rows: Rows, others: Rows, attributes: Mapping[str, str | int]
) -> memoryview:
    """Return the bytes of a shard, the same for the same input: no times, no host names, sorted order."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", track_order=False) as file:
        for key in sorted(attributes):
            file.attrs[key] = attributes[key]
        for column in columns:
            data = file.create_dataset(column.name, data=_stored(column, rows[column.name]), track_times=False)
            data.attrs["meaning"] = column.meaning
        for name in sorted(others):
            file.create_dataset(name, data=others[name], track_times=False)
    return buffer.getbuffer()


def _stored(column: Column, values: NDArray[Any]) -> NDArray[Any]:
    if values.shape[1:] != column.shape:
        raise ValueError(f"column {column.name}: rows of shape {values.shape[1:]}; expected {column.shape}")
    if column.dtype != "str":
        return values.astype(column.dtype, copy=False)
    encoded = [str(value).encode() for value in values]
    length = max([1, *(len(value) for value in encoded)])
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", length))


class Shard:
    """A shard open for reading; a context manager.

    Only plain columns that lie in this file are read: no links, no external storage, no virtual data sets, and nothing
    larger than the file. Every error is a `DatasetError`. Files are not locked: finished shards never change, and some
    network file systems have no locks.
    """

    def __init__(self, path: Path, root: Path | None = None) -> None:
        """root: of the data set, which a symbolic link must not leave."""
        self.path = path
        self._columns: dict[str, h5py.Dataset] = {}
        if root is not None:
            inside(root, path)
        with reading(path, "HDF5 shard"):
            if not path.is_file():
                raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
            self._size = path.stat().st_size
            self._file = h5py.File(path, "r", locking=False)
            try:
                self._rows = int(self._find("id").shape[0])
            except BaseException:
                self._file.close()
                raise

    def __enter__(self) -> Shard:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._rows

    @property
    def attributes(self) -> dict[str, Any]:
        with reading(self.path, "HDF5 shard"):
            return dict(self._file.attrs)

    @property
    def extras(self) -> list[str]:
        """Names of the columns that only this source has."""
        with reading(self.path, "HDF5 shard"):
            if "extra" not in self._file:
                return []
            self._own("extra", h5py.Group)
            return sorted(name for name in self._file["extra"] if is_safe_name(name))

    def column(self, name: str) -> NDArray[Any]:
        """Read a whole column; text as Python strings."""
        with reading(self.path, "HDF5 shard"):
            data = self._find(name)
            return np.asarray(data.asstr()[:] if h5py.check_string_dtype(data.dtype) else data[:])

    def take(self, name: str, rows: NDArray[Any]) -> NDArray[Any]:
        """Read some rows of a column; `DatasetError` for a row that the shard does not have."""
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise DatasetError(f"{self.path}: has no row {rows.max()} of the index; run ls3dw verify")
        return np.asarray(self.column(name)[rows])

    def cell(self, name: str, row: int) -> Any:
        """Read one row of a column."""
        with reading(self.path, "HDF5 shard"):
            data = self._find(name)
            return data.asstr()[row] if h5py.check_string_dtype(data.dtype) else data[row]

    def picture_bytes(self, row: int) -> NDArray[np.uint8]:
        """Read the JPEG file of one face from a face shard."""
        start, size = int(self.cell("picture_start", row)), int(self.cell("picture_size", row))
        with reading(self.path, "HDF5 shard"):
            pictures = self._find("pictures")
            if not 0 <= start <= start + size <= pictures.shape[0]:
                raise DatasetError(f"{self.path}: row {row}: picture bytes {start} to {start + size}; run ls3dw verify")
            return np.asarray(pictures[start : start + size])

    def _find(self, name: str) -> h5py.Dataset:
        """Return a column after checking it once."""
        if name not in self._columns:
            data = self._own(name, h5py.Dataset)
            if fault := self._fault(name, data):
                raise DatasetError(f"{self.path}: {name}: {fault}; damaged or not written by ls3dw")
            self._columns[name] = data
        return self._columns[name]

    def _own(self, name: str, kind: type) -> Any:
        """Return an object of this file itself: each step to it is a hard link."""
        steps = name.split("/")
        for depth in range(1, len(steps) + 1):
            place = "/".join(steps[:depth])
            link = self._file.get(place, getlink=True)
            if link is None:
                raise DatasetError(f"{self.path}: no column {name}; damaged, or an older ls3dw wrote it")
            if not isinstance(link, h5py.HardLink):
                raise DatasetError(f"{self.path}: {place}: a link to another place; not to be trusted")
        found = self._file[name]
        if not isinstance(found, kind):
            raise DatasetError(f"{self.path}: {name}: not a {kind.__name__}; damaged or not written by ls3dw")
        return found

    def _fault(self, name: str, data: h5py.Dataset) -> str:
        if data.external or data.is_virtual:
            return "its values lie in another file"
        if data.chunks is not None or data.shape is None or data.size * data.dtype.itemsize > self._size:
            return f"claims {data.shape} values of {data.dtype} in a file of {self._size} bytes"
        if name == "pictures":
            return "" if data.ndim == 1 and data.dtype == np.uint8 else f"{data.shape} {data.dtype}, expected bytes"
        if name.startswith("extra/"):
            plain = data.dtype.kind in "biuf" and data.ndim > 0 and data.shape[0] == len(self)
            return "" if plain else f"{data.shape} of {data.dtype}: expected numbers, {len(self)} rows"
        return self._column_fault(_KNOWN[name], data)

    def _column_fault(self, column: Column, data: h5py.Dataset) -> str:
        rows = data.shape[0] if column.name == "id" and data.ndim else getattr(self, "_rows", -1)
        text = h5py.check_string_dtype(data.dtype)
        fits = text is not None and text.length is not None if column.dtype == "str" else data.dtype == column.dtype
        if not fits or data.shape != (rows, *column.shape):
            return f"{data.shape} of {data.dtype}; expected {(rows, *column.shape)} of {column.dtype}"
        return ""


_KNOWN: Final = {column.name: column for column in (*FACE_COLUMNS, *ANNOTATION_COLUMNS)}
