"""The tiles of a gallery: a small square picture of each face, cut from its kept picture."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from ls3dw.core.geometry import Affine, compose, invert
from ls3dw.dataset.open import Face
from ls3dw.errors import PictureError
from ls3dw.review.overlay import MARGIN, tile_affine

TILE: Final = 192
QUALITY: Final = 80

_REDUCED: Final = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}


def to_tile(face: Face) -> Affine:
    """Return the affine from pixels of the kept picture to those of the tile."""
    return compose(tile_affine(face.box, TILE, MARGIN), invert(face.picture_affine))


def encode_tile(face: Face) -> bytes:
    """Cut the tile and encode it as JPEG."""
    affine = to_tile(face)
    zoom = float(affine[0, 0])
    # Large pictures are decoded at half or quarter size: several times faster, no aliasing.
    reduction = max(step for step in _REDUCED if zoom * step <= 1 or step == 1)
    picture = cv2.imdecode(face.jpeg, _REDUCED[reduction]) if face.jpeg.size else None
    if picture is None:
        raise PictureError(f"{face.id}: the kept picture is not a JPEG; run ls3dw verify")
    grow = np.array([[reduction, 0, (reduction - 1) / 2], [0, reduction, (reduction - 1) / 2]])
    tile = cv2.warpAffine(picture, compose(affine, grow), (TILE, TILE), flags=cv2.INTER_LINEAR)
    return bytes(cv2.imencode(".jpg", tile, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1])
