"""Menpo 2D: semi-frontal faces with 68 points and profile faces with 39, in the layouts of both releases."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.markup import POINTS
from ls3dw.core.sample import Floats
from ls3dw.sources.face import Face, Rejected, zero_based
from ls3dw.sources.layout import find, has_files, wrong_layout
from ls3dw.sources.pts import BARE, is_bare, parse_pts
from ls3dw.sources.stills import AnnotationFormat, StillFolder, StillSource

PROFILE_POINTS: Final = 39
RELEASED_AGAIN: Final = {
    f"{subset}-{kind}": (subset, f"{subset.title()}/image/{kind}")
    for subset in ("train", "test")
    for kind in ("semifrontal", "profile")
}
"""Name -> subset and folder in the re-release."""

JAW_AND_CHIN: Final = slice(0, 12)
"""The outline of a profile face, from the ear to the chin."""


def parse_menpo(data: bytes) -> Face:
    """Read a `.pts` file of 68 or 39 points.

    extra: profile (39, 2) float32, NaN for a 68-point face; side () int8: see `facing`, 0 for a 68-point face.
    """
    points = zero_based(parse_pts(data))
    if len(points) == POINTS:
        extra = _extra(_missing(PROFILE_POINTS), 0)
        return Face(points, points, extra, flags=(BARE,) if is_bare(data) else ())
    if len(points) == PROFILE_POINTS:
        # The 39 points do not correspond to any of the 68.
        return Face(points, _missing(POINTS), _extra(points, facing(points)))
    raise Rejected("wrong number of points", f"{len(points)} points; expected {POINTS} or {PROFILE_POINTS}")


def facing(profile: Floats) -> int:
    """Return the direction that profile points (39, 2) face, which no file has: +1 left, -1 right.

    It is the sign of the area between the outline and the top of the picture: +1 if the outline runs to the right.
    """
    x, y = profile[JAW_AND_CHIN].astype(np.float64).T
    with np.errstate(invalid="ignore"):  # infinite points are reported later
        area = np.sum(np.diff(x) * (y[1:] + y[:-1]))
    return 1 if area > 0 else -1


def _extra(profile: Floats, side: int) -> dict[str, NDArray[Any]]:
    return {"profile": profile, "side": np.array(side, dtype=np.int8)}


def _missing(count: int) -> Floats:
    return np.full((count, 2), np.nan, dtype=np.float32)


class Menpo(StillSource):
    """Menpo 2D. The re-release has the subsets train and test; the challenge's flat folder is train.

    Ids are `menpo/<stem>` in both, since stems are unique.
    """

    name: ClassVar[str] = "menpo"
    format: ClassVar[AnnotationFormat] = AnnotationFormat(".pts", parse_menpo)

    def find_folders(self) -> list[StillFolder]:
        """Look for the re-release first."""
        folders = self._released_again() or self._flat()
        if not folders:
            raise wrong_layout(self.name, self.root, "aflw__face_NNNNN.jpg with .pts, or Train/image/semifrontal/")
        return folders

    def _released_again(self) -> list[StillFolder]:
        def fits(path: Path) -> bool:
            return any((path / folder).is_dir() for _, folder in RELEASED_AGAIN.values())

        outer = find(self.root, fits, hint=self.name)
        if outer is None:
            return []
        folders = [StillFolder(name, subset, outer / folder) for name, (subset, folder) in RELEASED_AGAIN.items()]
        return [folder for folder in folders if folder.path.is_dir()]

    def _flat(self) -> list[StillFolder]:
        folder = find(self.root, lambda path: has_files(path, ".pts"), hint=self.name)
        return [StillFolder("train", "train", folder)] if folder else []
