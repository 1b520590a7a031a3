"""300W-LP: 300-W rendered in large poses, with 68 points in 2D and 3D, for training.

Pictures and `.mat` files lie in `AFW/`, `HELEN/`, `IBUG/`, `LFPW/` and their mirrored `_Flip/`; the points to use are
those of `landmarks/<SET>/<stem>_pts.mat`. Without them, only the original pictures, whose stem ends in `_0`, have
right 2D points in their own `.mat`: the `pt2d` of a turned picture is that of its original.

Your own data in this layout is read too: any folder `<SET>/` next to a `landmarks/<SET>/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.formats.mat import read_arrays
from ls3dw.core.markup import POINTS
from ls3dw.core.sample import Floats, Sample
from ls3dw.sources.face import Face, Place, Rejected, make_sample, read_face, reading, to_float32, zero_based
from ls3dw.sources.layout import find, visible, wrong_layout
from ls3dw.sources.stills import (
    AnnotationFormat,
    Pair,
    StillFolder,
    StillMedia,
    StillSource,
    decode,
    list_pairs,
    only_annotation,
    only_picture,
    read_bytes,
)

OWN_FIELDS: Final = ("pt2d", "pt3d_68", "Pose_Para")
POINT_FIELDS: Final = ("pts_2d", "pts_3d")
UNTURNED: Final = "_0"
LANDMARKS: Final = "landmarks"


def parse_points(data: bytes, own: Path) -> Face:
    """Read a `_pts.mat` file; the picture's own `.mat` adds pose and depth if it has them.

    extra: points_3d (68, 3) float32, x and y of `pts_3d`; z relative to the mean, larger is nearer, or NaN.
    """
    fields = _arrays(data, POINT_FIELDS)
    points_2d, points_3d = (_as_rows(fields.get(name), name) for name in POINT_FIELDS)
    own_fields = _own_arrays(own)
    return _face(zero_based(points_2d), zero_based(points_3d), _depths(own_fields), own_fields)


def parse_own(data: bytes, turned: bool) -> Face:
    """Read a picture's own `.mat` in place of a `_pts.mat`: `pt2d`, and `pt3d_68` if it has one."""
    fields = _arrays(data, OWN_FIELDS)
    if turned:
        raise Rejected(
            "missing annotation", "no landmarks/.../_pts.mat, and pt2d of a turned picture is the original's"
        )
    solid = fields.get("pt3d_68")
    plane = np.full((POINTS, 2), np.nan, np.float32) if solid is None else zero_based(_as_rows(solid[:2], "pt3d_68"))
    return _face(zero_based(_as_rows(fields.get("pt2d"), "pt2d")), plane, _depths(fields), fields)


def _face(flat: Floats, plane: Floats, depth: Floats, own: dict[str, NDArray[np.float64]]) -> Face:
    pose = own.get("Pose_Para", np.full(3, np.nan)).ravel()
    yaw = float(np.degrees(pose[1])) if pose.size >= 3 and np.isfinite(pose[1]) else None
    solid = np.concatenate((plane, depth[:, None]), axis=1)
    return Face(flat, flat, {"points_3d": solid.astype(np.float32)}, yaw=yaw)


def _depths(fields: dict[str, NDArray[np.float64]]) -> Floats:
    solid = fields.get("pt3d_68")
    if solid is None or solid.shape != (3, POINTS):
        return np.full(POINTS, np.nan, np.float32)
    return to_float32(solid[2] - solid[2].mean())


def _as_rows(values: NDArray[np.float64] | None, name: str) -> NDArray[np.float64]:
    """Return (68, 2) or (2, 68) as (68, 2)."""
    if values is None:
        raise Rejected("missing annotation", f"no {name}")
    rows = values.T if values.shape == (2, POINTS) else values
    if rows.shape != (POINTS, 2):
        raise Rejected("wrong number of points", f"{name} has shape {values.shape}; expected ({POINTS}, 2)")
    return rows


def _arrays(data: bytes, names: tuple[str, ...]) -> dict[str, NDArray[np.float64]]:
    try:
        return read_arrays(data, names)
    except ValueError as error:
        raise Rejected("malformed annotation", str(error)) from error


def _own_arrays(path: Path) -> dict[str, NDArray[np.float64]]:
    """Read a picture's own `.mat`; without one it has no pose and no depth."""
    with reading(path, "malformed annotation"):
        return _arrays(path.read_bytes(), OWN_FIELDS) if path.is_file() else {}


def _own_sets(folder: Path) -> list[str]:
    """List the folders that have one of the same name in `landmarks/`."""
    landmarks = folder / LANDMARKS
    if not landmarks.is_dir():
        return []
    return [path.name for path in visible(landmarks) if path.is_dir() and (folder / path.name).is_dir()]


@dataclass(frozen=True)
class TurnedMedia(StillMedia):
    """Some pictures of one set. landmarks: the folder of its `_pts.mat` files."""

    landmarks: Path = Path()

    def files(self) -> Iterator[Path]:
        """Yield pictures, annotations and `_pts.mat` files."""
        yield from super().files()
        yield from filter(Path.is_file, (self.landmarks / f"{pair.stem}_pts.mat" for pair in self.pairs))

    def _sample(self, pair: Pair, place: Place) -> Sample:
        picture_file = self.folder.path / only_picture(pair)
        own = self.folder.path / (pair.annotations[0] if pair.annotations else f"{pair.stem}.mat")
        points = self.landmarks / f"{pair.stem}_pts.mat"
        if points.is_file():
            face = read_face(points, partial(parse_points, own=own))
        else:
            only_annotation(pair)
            face = read_face(own, partial(parse_own, turned=not pair.stem.endswith(UNTURNED)))
        return make_sample(face, decode(read_bytes(picture_file), picture_file.name), place)


class W300LP(StillSource):
    """300W-LP. Its subsets are the sets; the mirrored ones are read only if named."""

    name: ClassVar[str] = "300wlp"
    format: ClassVar[AnnotationFormat] = AnnotationFormat(".mat", partial(parse_own, turned=True))

    def find_folders(self) -> list[StillFolder]:
        """Look for the folders of the sets."""
        sets: dict[str, str] = {name: entry["folder"] for name, entry in self.manifest["subsets"].items()}

        def fits(path: Path) -> bool:
            return any((path / folder).is_dir() for folder in sets.values()) or bool(_own_sets(path))

        outer = find(self.root, fits, hint="300w")
        if outer is None:
            raise wrong_layout(
                self.name,
                self.root,
                "AFW/, HELEN/, IBUG/, LFPW/ with .jpg and .mat files, or <SET>/ and landmarks/<SET>/",
            )
        own = {name: name for name in _own_sets(outer) if name not in sets.values()}
        folders = [
            StillFolder(name, name, outer / folder, prefix=f"{folder}/") for name, folder in {**sets, **own}.items()
        ]
        return [folder for folder in folders if folder.path.is_dir()]

    @property
    def default_subsets(self) -> tuple[str, ...]:
        """The sets that are there, without the mirrored ones of 300W-LP."""
        known = self.manifest["subsets"]
        return tuple(subset for subset in self.subsets if known.get(subset, {"default": True}).get("default", False))

    def _pieces(self, folder: StillFolder, piece: int) -> Iterator[StillMedia]:
        landmarks = folder.path.parent / LANDMARKS / folder.path.name
        pairs = list_pairs(folder.path, self.format.suffix)
        for start in range(0, len(pairs), piece):
            some = tuple(pairs[start : start + piece])
            yield TurnedMedia(folder.name, start, self.name, self.root, folder, self.format, some, landmarks)
