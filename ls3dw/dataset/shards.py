"""The HDF5 shards: which columns they have, and how they are written to bytes and read back. Nothing else uses h5py."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from ls3dw.core.markup import POINTS
from ls3dw.errors import DatasetError

FORMAT: Final = 1


@dataclass(frozen=True)
class Column:
    """A data set of a shard: one row a face. dtype "str" is UTF-8 of one length for the shard."""

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
"""What a face is, whatever the version. Beside them: `pictures`, all JPEG files of the shard in a row of bytes, and
`extra/<name>`, what one source has and others do not."""

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
"""What a version says of a face."""

Rows = Mapping[str, NDArray[Any]]


def encode_shard(
    columns: Sequence[Column], rows: Rows, others: Rows, attributes: Mapping[str, str | int]
) -> memoryview:
    """Return the bytes of a shard. The same input gives the same bytes: no times, no names, one order."""
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
    """A shard open for reading; a context manager."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = h5py.File(path, "r")
        except OSError as error:
            raise DatasetError(f"{path}: not a readable HDF5 shard ({error}); run ls3dw verify") from error
        self.path = path

    def __enter__(self) -> Shard:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def __len__(self) -> int:
        return int(self._file["id"].shape[0])

    @property
    def attributes(self) -> dict[str, Any]:
        return dict(self._file.attrs)

    @property
    def extras(self) -> list[str]:
        """Names of what this source has and others do not."""
        return sorted(self._file["extra"]) if "extra" in self._file else []

    def column(self, name: str) -> NDArray[Any]:
        """Read a whole column; text as Python strings."""
        data = self._file[name]
        return np.asarray(data.asstr()[:] if h5py.check_string_dtype(data.dtype) else data[:])

    def cell(self, name: str, row: int) -> Any:
        """Read one row of a column."""
        data = self._file[name]
        return data.asstr()[row] if h5py.check_string_dtype(data.dtype) else data[row]

    def picture_bytes(self, row: int) -> NDArray[np.uint8]:
        """Read the JPEG file of one face from a face shard."""
        start, size = int(self.cell("picture_start", row)), int(self.cell("picture_size", row))
        return np.asarray(self._file["pictures"][start : start + size])
