"""Reads landmarks of another method: `.npz`, `.t7`, or a folder of files."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.files import is_system_file
from ls3dw.core.formats import t7
from ls3dw.core.formats.ljson import parse_ljson
from ls3dw.core.markup import POINTS
from ls3dw.core.sample import Floats
from ls3dw.errors import PredictionError
from ls3dw.sources.face import Rejected, to_float32
from ls3dw.sources.pts import parse_face

MOST_BYTES: Final = 1 << 30
"""Of one array: landmarks of a million faces take 0.8 GB as float32."""
PREFERRED_GROUP: Final = "landmarks_3d"
"""Group of LJSON files with several groups that is read."""


@dataclass(frozen=True)
class Predictions:
    """Landmarks by face. points: id -> (68, 2) float32, 0-based image pixels, NaN for missing points."""

    origin: str
    points: Mapping[str, Floats]

    @property
    def ids(self) -> set[str]:
        return set(self.points)

    def take(self, ids: Iterable[str]) -> Floats:
        """Return the points of faces (N, 68, 2), NaN for faces without a prediction."""
        none = np.full((POINTS, 2), np.nan, dtype=np.float32)
        return np.stack([self.points.get(face, none) for face in ids])


def read_predictions(path: Path) -> Predictions:
    """Read predictions. Raise `PredictionError` if they are damaged or of another layout.

    - `.npz`: `id` (N,) text and `landmarks` (N, 68, 2 or 3), 0-based; or one array (68, 2 or 3) an id.
    - `.t7`: a table from id to tensor 68 x 2 (or 3), 0-based; or one with `id` and `landmarks` as above.
    - a folder of files in folders as in ids: `<id>.pts` (1-based, as all `.pts` files), `<id>.t7` (0-based, as in
      LS3D-W), or `<id>.ljson` (0-based, as in menpo; of several groups, `landmarks_3d`).
    """
    kind = path.suffix.lower()
    if not path.exists():
        raise PredictionError(f"{path}: not there; expected .npz, .t7, or a folder of .pts, .t7 or .ljson files")
    if path.is_dir():
        pairs: Iterable[tuple[str, Any]] = _read_folder(path)
    elif kind == ".npz":
        pairs = _pairs(path, _read_npz(path))
    elif kind == ".t7":
        pairs = _pairs(path, _read_table(path))
    else:
        raise PredictionError(f"{path}: expected .npz, .t7, or a folder of .pts, .t7 or .ljson files")
    points: dict[str, Floats] = {}
    for face, array in pairs:
        if face in points:
            raise PredictionError(f"{path}: two predictions of {face!r}; keep one")
        points[face] = _checked(path, face, array)
    if not points:
        raise PredictionError(f"{path}: no predictions in it")
    return Predictions(str(path), points)


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(path) as file:
            return {name.removesuffix(".npy"): _read_array(path, name, file) for name in file.namelist()}
    except PredictionError:
        raise
    except MemoryError as error:
        raise PredictionError(
            f"{path}: asks for more memory than there is ({error}); damaged, or too large for this machine"
        ) from error
    # On damaged archives zipfile raises a dozen kinds of errors.
    except Exception as error:
        raise PredictionError(f"{path}: not a readable .npz file ({error}); write it with numpy.savez") from error


def _read_array(path: Path, name: str, file: zipfile.ZipFile) -> NDArray[Any]:
    """Read one array; its header is read first, since a damaged one may claim any size and zeros pack very small."""
    with file.open(name) as member:
        version = np.lib.format.read_magic(member)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(member)
    array = name.removesuffix(".npy")
    if dtype.hasobject:
        raise PredictionError(
            f"{path}: {array} is an array of Python objects, which only unpickling could read; save numbers"
            " (array.astype(float)) and text (array.astype(str))"
        )
    size = math.prod(shape) * dtype.itemsize
    if size > MOST_BYTES:
        raise PredictionError(f"{path}: {array} claims {size} bytes; at most {MOST_BYTES} are read")
    with file.open(name) as member:
        return np.asarray(np.lib.format.read_array(member, allow_pickle=False))


def _read_table(path: Path) -> dict[Any, Any]:
    table = t7.load(path)
    if not isinstance(table, dict):
        raise PredictionError(f"{path}: holds a {type(table).__name__}; expected a table from id to tensor")
    return table


def _pairs(path: Path, table: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Yield ids and points of a table of either form."""
    if "landmarks" not in table:
        yield from ((_text(face), array) for face, array in table.items())
        return
    landmarks, ids = table["landmarks"], table.get("id", {})
    if not isinstance(landmarks, np.ndarray) or landmarks.ndim != 3:
        what = landmarks.shape if isinstance(landmarks, np.ndarray) else type(landmarks).__name__
        raise PredictionError(f"{path}: landmarks: {what}; expected (N, {POINTS}, 2 or 3)")
    names = [ids[key] for key in sorted(ids)] if isinstance(ids, dict) else np.asarray(ids).ravel().tolist()
    if len(names) != len(landmarks):
        raise PredictionError(f"{path}: {len(landmarks)} landmarks and {len(names)} in id; expected an id for each")
    yield from zip(map(_text, names), landmarks, strict=True)


def _text(face: Any) -> str:
    return face.decode("utf-8", "replace") if isinstance(face, bytes) else str(face)


def _read_folder(path: Path) -> Iterator[tuple[str, Any]]:
    for file in sorted(path.rglob("*")):
        if any(map(is_system_file, file.relative_to(path).parts)):
            continue
        face = file.relative_to(path).with_suffix("").as_posix()
        if file.suffix.lower() == ".t7":
            yield face, t7.load(file)
        elif file.suffix.lower() == ".pts":
            yield face, _read_pts(file)
        elif file.suffix.lower() == ".ljson":
            yield face, _read_ljson(file)


def _read_ljson(file: Path) -> NDArray[Any]:
    try:
        groups = parse_ljson(file.read_bytes())
    except (OSError, ValueError) as error:
        raise PredictionError(f"{file}: not a readable LJSON file ({error}); write it with menpo.io") from error
    if len(groups) == 1:
        return next(iter(groups.values()))
    if PREFERRED_GROUP not in groups:
        raise PredictionError(f"{file}: groups {', '.join(groups) or 'none'}; expected one, or {PREFERRED_GROUP}")
    return groups[PREFERRED_GROUP]


def _read_pts(file: Path) -> Floats:
    try:
        return parse_face(file.read_bytes()).annotation
    except Rejected as fault:
        raise PredictionError(f"{file}: {fault.reason}: {fault.detail}") from fault
    except OSError as error:
        raise PredictionError(f"{file}: cannot be read ({error.strerror})") from error


def _checked(path: Path, face: str, points: Any) -> Floats:
    if not isinstance(points, np.ndarray):
        raise PredictionError(f"{path}: {face}: a {type(points).__name__}; expected {POINTS} points of 2 or 3 numbers")
    if points.dtype.kind not in "fiu" or points.shape not in ((POINTS, 2), (POINTS, 3)):
        raise PredictionError(
            f"{path}: {face}: {points.dtype} {points.shape}; expected {POINTS} points of 2 or 3 numbers"
        )
    plane = to_float32(points[:, :2].astype(np.float64))
    if np.isinf(plane).any():
        raise PredictionError(f"{path}: {face}: an infinite coordinate; write NaN where there is no point")
    return plane
