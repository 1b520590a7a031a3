"""Reads landmarks that another method made, to be scored like our own: `.npz`, `.t7`, or a folder of files."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ls3dw import t7
from ls3dw.errors import PredictionError
from ls3dw.markup import POINTS
from ls3dw.sample import Floats
from ls3dw.sources.face import Rejected
from ls3dw.sources.pts import parse_face


@dataclass(frozen=True)
class Predictions:
    """Landmarks by face. points: id -> (68, 2) float32, 0-based image pixels, NaN where there is no such point."""

    origin: str
    points: Mapping[str, Floats]

    @property
    def ids(self) -> set[str]:
        return set(self.points)

    def take(self, ids: Iterable[str]) -> Floats:
        """Return the points of faces (N, 68, 2), NaN for a face that is not there."""
        none = np.full((POINTS, 2), np.nan, dtype=np.float32)
        return np.stack([self.points.get(face, none) for face in ids])


def read_predictions(path: Path) -> Predictions:
    """Read predictions; PredictionError says what is wrong with them.

    - `.npz`: `id` (N,) text and `landmarks` (N, 68, 2 or 3), 0-based; or one array (68, 2 or 3) an id.
    - `.t7`: a table from id to tensor 68 x 2 (or 3), 0-based; or one with `id` and `landmarks` as above.
    - a folder: `<id>.pts` (1-based, as all `.pts` files) or `<id>.t7` (0-based, as in LS3D-W), in folders as ids have.
    """
    if path.is_dir():
        pairs: Iterable[tuple[str, Any]] = _read_folder(path)
    elif path.suffix == ".npz":
        pairs = _pairs(path, _read_npz(path))
    elif path.suffix == ".t7":
        pairs = _pairs(path, _read_table(path))
    else:
        raise PredictionError(f"{path}: expected .npz, .t7, or a folder of .pts or .t7 files")
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
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise PredictionError(f"{path}: not a readable .npz file ({error}); write it with numpy.savez") from error


def _read_table(path: Path) -> dict[Any, Any]:
    table = t7.load(path)
    if not isinstance(table, dict):
        raise PredictionError(f"{path}: holds a {type(table).__name__}; expected a table from id to tensor")
    return table


def _pairs(path: Path, table: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    if "landmarks" not in table:
        return ((str(face), array) for face, array in table.items())
    ids, landmarks = table.get("id"), np.asarray(table["landmarks"])
    names = list(ids.values()) if isinstance(ids, dict) else np.asarray(ids).ravel().tolist()
    if ids is None or len(names) != len(landmarks):
        raise PredictionError(f"{path}: {len(landmarks)} landmarks and {0 if ids is None else len(names)} ids")
    return ((str(face), array) for face, array in zip(names, landmarks, strict=True))


def _read_folder(path: Path) -> Iterator[tuple[str, Any]]:
    for file in sorted(path.rglob("*")):
        face = file.relative_to(path).with_suffix("").as_posix()
        if file.suffix == ".t7":
            yield face, t7.load(file)
        elif file.suffix == ".pts":
            try:
                yield face, parse_face(file.read_bytes()).annotation
            except Rejected as fault:
                raise PredictionError(f"{file}: {fault.reason}: {fault.detail}") from fault


def _checked(path: Path, face: str, array: Any) -> Floats:
    points = np.asarray(array)
    if points.dtype.kind not in "fiu" or points.shape not in ((POINTS, 2), (POINTS, 3)):
        what = f"{points.dtype} {points.shape}" if points.dtype.kind != "O" else type(array).__name__
        raise PredictionError(f"{path}: {face}: {what}; expected {POINTS} points of 2 or 3 numbers")
    return points[:, :2].astype(np.float32)
