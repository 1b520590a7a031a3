"""AFLW2000-3D: 2,000 pictures with 68 points in 3D, 21 visible points in 2D and a head pose in a `.mat` each."""

from __future__ import annotations

from typing import ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.formats.mat import read_arrays
from ls3dw.core.markup import POINTS
from ls3dw.core.sample import Floats
from ls3dw.sources.face import Face, Rejected, to_float32, zero_based
from ls3dw.sources.layout import find, has_files, wrong_layout
from ls3dw.sources.stills import AnnotationFormat, Part, StillSource

FIELDS: Final = ("pt3d_68", "pt2d", "Pose_Para")
VISIBLE_POINTS: Final = 21
INVISIBLE: Final = -1
"""What stands for both coordinates of an invisible point in `pt2d`."""


def parse_mat(data: bytes) -> Face:
    """Read a `.mat` file.

    extra: z (68,) float32, pixels, as published; pt2d (21, 2) float32, NaN where invisible;
    pose (3,) float32: yaw, pitch, roll in degrees with the signs of `Pose_Para`.
    Only `pt3d_68` is needed. The others are NaN where they are absent or of another shape; flags name the latter.
    """
    try:
        fields = read_arrays(data, FIELDS)
    except ValueError as error:
        raise _malformed(str(error)) from error
    if "pt3d_68" not in fields:
        raise _malformed("no numeric pt3d_68 in the file")
    solid = fields["pt3d_68"]
    if solid.ndim != 2 or solid.shape[0] != 3:
        raise _malformed(f"pt3d_68 has shape {solid.shape}; expected (3, {POINTS})")
    if solid.shape[1] != POINTS:
        raise Rejected("wrong number of points", f"{solid.shape[1]} points; expected {POINTS}")
    points, z = zero_based(solid[:2].T), to_float32(solid[2])
    if not np.isfinite(z).all():
        raise Rejected("non-finite points", "a depth in pt3d_68")
    flat, parameters = fields.get("pt2d"), fields.get("Pose_Para")
    odd = {
        "odd pt2d": flat is not None and flat.shape != (2, VISIBLE_POINTS),
        "odd Pose_Para": parameters is not None and parameters.size < 3,
    }
    pose = _pose(parameters)
    extra = {"z": z, "pt2d": _visible_points(flat), "pose": pose}
    flags = tuple(flag for flag, there in odd.items() if there)
    return Face(points, points, extra, float(pose[0]) if np.isfinite(pose[0]) else None, flags)


def _visible_points(flat: NDArray[np.float64] | None) -> Floats:
    if flat is None or flat.shape != (2, VISIBLE_POINTS):
        return np.full((VISIBLE_POINTS, 2), np.nan, dtype=np.float32)
    visible = (flat != INVISIBLE).all(axis=0)
    return zero_based(np.where(visible, flat, np.nan).T)


def _pose(parameters: NDArray[np.float64] | None) -> Floats:
    if parameters is None or parameters.size < 3:
        return np.full(3, np.nan, dtype=np.float32)
    pitch, yaw, roll = to_float32(parameters.ravel()[:3])
    with np.errstate(over="ignore"):  # nonsense angles of a damaged file become infinite
        return np.degrees(np.array([yaw, pitch, roll], dtype=np.float32))


def _malformed(detail: str) -> Rejected:
    return Rejected("malformed annotation", detail)


class AFLW2000(StillSource):
    """AFLW2000-3D."""

    name: ClassVar[str] = "aflw2000"
    annotation_kind: ClassVar[Literal["2d", "3d"]] = "3d"
    format: ClassVar[AnnotationFormat] = AnnotationFormat(".mat", parse_mat)

    def find_parts(self) -> list[Part]:
        """Look for the folder with the `.mat` files."""
        folder = find(self.root, lambda path: has_files(path, ".mat"), hint=self.name)
        if folder is None:
            raise wrong_layout(self.name, self.root, "image00002.jpg with image00002.mat and so on")
        return [Part("all", "all", folder)]
