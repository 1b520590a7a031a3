"""Finds the origin of a face from its id: its video, or the picture that several data sets share.

300W-LP has rotated pictures of AFW, HELEN, IBUG and LFPW, the parts of 300-W: all faces from one picture have one
origin. Menpo and AFLW2000-3D both have pictures of AFLW under other names: perceptual hashes find these.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

_MIRRORED: Final = "_mirror"
"""How dlib's 300-W names the mirrored copy of a picture."""

_VIDEO: Final = re.compile(r"300vw/([^/]+)/\d+")
_TURNED: Final = re.compile(r"300wlp/(AFW|HELEN|IBUG|LFPW)(?:_Flip)?/(?:\1_)?(.+)_\d+")
_PART: Final = re.compile(r"300w/(afw|ibug|helen|lfpw)/(?:(train|test)set/)?(.+)")


def origin_of(face: str) -> str:
    """Return the video or picture that a face comes from; a split keeps faces of one origin together.

    `300vw/001/000001` -> `300vw/001`; `300wlp/HELEN/HELEN_30427236_1_7` and `300w/helen/testset/30427236_1` ->
    `helen/30427236_1`; a mirrored copy `x_mirror` -> that of `x`;
    the picture itself, by its id, where no other face shares it.
    """
    face = face.removesuffix(_MIRRORED)
    if found := _VIDEO.fullmatch(face):
        return f"300vw/{found[1]}"
    if found := _TURNED.fullmatch(face):
        return _shared(found[1].lower(), found[2])
    if found := _PART.fullmatch(face):
        # Both halves of LFPW have an image_0001; 300W-LP calls them image_train_0001 and image_test_0001.
        stem = found[3].replace("image_", f"image_{found[2]}_") if found[1] == "lfpw" else found[3]
        return _shared(found[1], stem)
    return face


def is_mirrored(face: str) -> bool:
    """Tell by its id whether a face is the mirrored copy `x_mirror` of a picture `x`."""
    return face.endswith(_MIRRORED)


def _shared(part: str, stem: str) -> str:
    # One stem of IBUG is written with a space in some copies.
    return f"{part}/{stem.replace(' ', '')}"


def is_video(origin: str) -> bool:
    """Return whether an origin is a video, not a picture."""
    return origin.startswith(("300vw/", "video:"))


def origins(index: pd.DataFrame) -> NDArray[np.object_]:
    """Return the origin of each face of an index (N,): from its id, or the file of any other video."""
    found = [origin_of(face) for face in index["id"]]
    moving = index["frame"].to_numpy() > 0
    return np.array(
        [
            f"video:{source}/{media}" if moves and not is_video(origin) else origin
            for origin, moves, source, media in zip(found, moving, index["source"], index["media"], strict=True)
        ],
        dtype=object,
    )


def numbered(values: Sequence[str] | NDArray[np.object_]) -> tuple[NDArray[np.int64], list[str]]:
    """Number values in order of first appearance: numbers (N,), and the value of each number."""
    known: dict[str, int] = {}
    numbers = np.fromiter((known.setdefault(value, len(known)) for value in values), np.int64, len(values))
    return numbers, list(known)
