"""Perceptual hashes of faces: 64 bits that hardly change when a picture is resized or encoded again.

The face's crop is reduced to 32x32 grey pixels. Each bit is set if one of its 8x8 lowest frequencies lies above their
median. The arithmetic after the reduction is in integers, so all machines give the same bits.
"""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ls3dw.core.geometry import CROP_SIZE, Affine, compose, crop_affine, invert
from ls3dw.core.sample import ColourOrder, Picture

BITS: Final = 64
SIDE: Final = 32
FREQUENCIES: Final = 8

_PRECISION: Final = 1 << 12
_ROWS_AT_ONCE: Final = 128


def _cosines() -> NDArray[np.int64]:
    """Return the lowest rows of the cosine transform (8, 32), times `_PRECISION`."""
    frequency, place = np.arange(FREQUENCIES)[:, None], np.arange(SIDE) + 0.5
    cosines: NDArray[np.int64] = np.rint(_PRECISION * np.cos(np.pi * frequency * place / SIDE)).astype(np.int64)
    return cosines


_COSINES: Final = _cosines()


def face_hash(picture: Picture, to_picture: Affine, box: NDArray[Any], order: ColourOrder = "RGB") -> np.uint64:
    """Hash the face in `box` (4,), in source pixels.

    picture: (H, W, 3) uint8, channels in `order`; to_picture: affine from source pixels to pixels of `picture`.
    """
    to_crop = compose(crop_affine(np.asarray(box, dtype=np.float64)), invert(to_picture))
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY if order == "RGB" else cv2.COLOR_BGR2GRAY)
    crop = cv2.warpAffine(grey, to_crop, (CROP_SIZE, CROP_SIZE), flags=cv2.INTER_LINEAR)
    small = cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.uint64(hash_grey(np.asarray(small, dtype=np.uint8)[None])[0])


def hash_grey(pictures: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Hash grey pictures (N, 32, 32) -> (N,). Bit 8 v + u: frequency u across and v down; bit 0, the mean, stays 0."""
    spectrum = (_COSINES @ pictures.astype(np.int64) @ _COSINES.T).reshape(len(pictures), BITS)
    # The median of 63 frequencies is one of them: nothing is averaged.
    above = spectrum > np.median(spectrum[:, 1:], axis=1, keepdims=True)
    above[:, 0] = False
    return np.packbits(above, axis=1, bitorder="little").view("<u8")[:, 0].astype(np.uint64)


def distances(hashes: NDArray[np.uint64], others: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Count the bits in which each hash (N,) differs from each other one (M,) -> (N, M)."""
    signs = _signs(hashes), _signs(others).T
    # Equal bits minus different ones: small integers, exact in float32.
    return ((BITS - signs[0] @ signs[1]) / 2).astype(np.uint8)


def nearest(hashes: NDArray[np.uint64], others: NDArray[np.uint64], slack: int = 0) -> list[NDArray[np.intp]]:
    """Return for each hash (N,) the indices of the nearest others (M,), M > 0, and of any within `slack` bits more."""
    found: list[NDArray[np.intp]] = []
    for start in range(0, len(hashes), _ROWS_AT_ONCE):
        table = distances(hashes[start : start + _ROWS_AT_ONCE], others)
        found += [np.flatnonzero(row <= row.min() + slack) for row in table]
    return found


def _signs(hashes: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Return the bits (N, 64) of hashes as 1 and -1."""
    octets = np.ascontiguousarray(hashes, dtype="<u8").view(np.uint8).reshape(-1, BITS // 8)
    bits: NDArray[np.float32] = np.unpackbits(octets, axis=1, bitorder="little").astype(np.float32)
    return 2 * bits - 1
