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
from ls3dw.sources.stills import AnnotationFormat, StillFolder, StillSource

FIELDS: Final = ("pt3d_68", "pt2d", "Pose_Para")
VISIBLE_POINTS: Final = 21
INVISIBLE: Final = -1
"""Both coordinates of an invisible point in `pt2d`."""


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
    points_3d = fields["pt3d_68"]
    if points_3d.ndim != 2 or points_3d.shape[0] != 3:
        raise _malformed(f"pt3d_68 has shape {points_3d.shape}; expected (3, {POINTS})")
    if points_3d.shape[1] != POINTS:
        raise Rejected("wrong number of points", f"{points_3d.shape[1]} points; expected {POINTS}")
    points, z = zero_based(points_3d[:2].T), to_float32(points_3d[2])
    if not np.isfinite(z).all():
        raise Rejected("non-finite points", "a depth in pt3d_68")
    points_2d, parameters = fields.get("pt2d"), fields.get("Pose_Para")
    odd = {
        "odd pt2d": points_2d is not None and points_2d.shape != (2, VISIBLE_POINTS),
        "odd Pose_Para": parameters is not None and parameters.size < 3,
    }
    pose = _pose(parameters)
    extra = {"z": z, "pt2d": _visible_points(points_2d), "pose": pose}
    flags = tuple(flag for flag, there in odd.items() if there)
    return Face(points, points, extra, float(pose[0]) if np.isfinite(pose[0]) else None, flags)


def _visible_points(points_2d: NDArray[np.float64] | None) -> Floats:
    if points_2d is None or points_2d.shape != (2, VISIBLE_POINTS):
        return np.full((VISIBLE_POINTS, 2), np.nan, dtype=np.float32)
    visible = (points_2d != INVISIBLE).all(axis=0)
    return zero_based(np.where(visible, points_2d, np.nan).T)


def _pose(parameters: NDArray[np.float64] | None) -> Floats:
    if parameters is None or parameters.size < 3:
        return np.full(3, np.nan, dtype=np.float32)
    pitch, yaw, roll = to_float32(parameters.ravel()[:3])
    with np.errstate(over="ignore"):  # absurd angles of a damaged file become infinite
        return np.degrees(np.array([yaw, pitch, roll], dtype=np.float32))


def _malformed(detail: str) -> Rejected:
    return Rejected("malformed annotation", detail)


class AFLW2000(StillSource):
    """AFLW2000-3D."""

    name: ClassVar[str] = "aflw2000"
    annotation_kind: ClassVar[Literal["2d", "3d"]] = "3d"
    format: ClassVar[AnnotationFormat] = AnnotationFormat(".mat", parse_mat)

    def find_folders(self) -> list[StillFolder]:
        """Look for the folder with the `.mat` files."""
        folder = find(self.root, lambda path: has_files(path, ".mat"), hint=self.name)
        if folder is None:
            raise wrong_layout(self.name, self.root, "image00002.jpg with image00002.mat and so on")
        return [StillFolder("all", "all", folder)]
