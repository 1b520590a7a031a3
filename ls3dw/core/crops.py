"""Cuts from a picture of one face: the window for the networks, and the picture that is stored in the shards.

numpy and OpenCV only: decoding processes do not load torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ls3dw.core.geometry import (
    CROP_SIZE,
    REFERENCE_SIDE,
    Affine,
    apply,
    compose,
    crop_affine,
    crop_placement,
    invert,
    resize_affine,
)
from ls3dw.core.parallel.shared import SharedArray
from ls3dw.core.sample import ColourOrder, Picture
from ls3dw.errors import PictureError

Decode = Literal["subpixel", "reference"]

STORED_SIDE = 2.1
"""Side of a stored picture in crop sides. Training rotates by up to 70 degrees and zooms out to 0.7, which needs
sqrt(2) / 0.7 = 2.02; the rest is for jittered boxes."""

STORED_ZOOM = 2.0
"""Largest resolution of a stored picture, in pixels per pixel of the 256-pixel crop; larger faces are reduced."""

LARGEST_CROP = 16.0
"""Largest side and offset of a crop, in longer sides of the picture."""

JPEG_QUALITY = 95

Chroma = Literal["4:4:4", "4:2:0"]
"""Colour of a JPEG file at full or at half resolution."""

STILL: Final[Chroma] = "4:4:4"
FRAME: Final[Chroma] = "4:2:0"
"""Videos have their colour at half the resolution already; measured in docs/reports/2026-11-22/pictures.md."""

_SAMPLING: Final[dict[Chroma, int]] = {
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
}


@dataclass(frozen=True)
class Window:
    """The part of a picture that covers a network's crop, (h, w, 3) uint8.

    to_crop: affine from the window's pixels to the crop; crop: affine from the picture's pixels to the crop.
    """

    pixels: Picture
    to_crop: Affine
    crop: Affine

    def in_rgb(self, order: ColourOrder) -> Window:
        """Return it with RGB channels. order: present order of the channels."""
        if order == "RGB":
            return self
        return replace(self, pixels=np.asarray(cv2.cvtColor(self.pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8))


@dataclass(frozen=True)
class Windows:
    """The windows of N faces as one array, which moves to a device in one piece.

    pixels: (N, H, W, 3) uint8, each window in the upper left corner, the rest black; to_crop, crop: (N, 2, 3).
    """

    pixels: SharedArray
    to_crop: Affine
    crop: Affine

    def __len__(self) -> int:
        return len(self.crop)

    def rows(self, start: int, stop: int) -> Windows:
        """Return windows `start` to `stop`."""
        if (start, stop) == (0, len(self)):
            return self
        pixels = SharedArray.of(self.pixels.array()[start:stop])
        return Windows(pixels, self.to_crop[start:stop], self.crop[start:stop])


@dataclass(frozen=True)
class StoredPicture:
    """A face's picture as it is stored. to_picture: affine from the source picture's pixels to the stored one's."""

    pixels: Picture
    to_picture: Affine


def cut_window(image: Picture, box: NDArray[Any], decode: Decode = "subpixel", reduction: int = 1) -> Window:
    """Cut the networks' input for the face in `box` (4,) from a picture (H, W, 3), channels as they are.

    reduction: how many times `image` is smaller than the picture of `box` and of the window's `crop`.
    Raises PictureError for a box far larger than the picture or far outside it.
    """
    if reduction > 1:
        reduce = resize_affine(1 / reduction, 1 / reduction)
        window = cut_window(image, _reduced(box, reduce), decode)
        return replace(window, crop=compose(window.crop, reduce))
    _check_proportion(image, box)
    return _reference_window(image, box) if decode == "reference" else _exact_window(image, box)


def _check_proportion(image: Picture, box: NDArray[Any]) -> None:
    """Raise PictureError for a box that cannot be a face's, before its crop is allocated."""
    centre, scale = crop_placement(box)
    largest = LARGEST_CROP * max(image.shape[:2])
    if not (np.abs((*centre, REFERENCE_SIDE * scale)) < largest).all():
        height, width = image.shape[:2]
        raise PictureError(f"box {np.asarray(box).tolist()} is far beyond its {width}x{height} picture")


def _exact_window(image: Picture, box: NDArray[Any]) -> Window:
    crop = crop_affine(box)
    centre, scale = crop_placement(box)
    # The resampling filter reads one crop pixel, and at least one picture pixel, beyond the crop.
    reach = REFERENCE_SIDE * scale * (0.5 + 1 / CROP_SIZE) + 1
    pixels, to_window = _cut(image, centre, float(reach))
    factor = int(REFERENCE_SIDE * scale / (STORED_ZOOM * CROP_SIZE))
    if factor > 1:
        pixels, to_window = _reduce(pixels, to_window, factor)
    return Window(pixels, compose(crop, invert(to_window)), crop)


def _reference_window(image: Picture, box: NDArray[Any]) -> Window:
    """Crop as the published code does: whole pixels, then a bilinear resize, in single precision where that has it."""
    centre, scale = crop_placement(box)
    side = REFERENCE_SIDE * float(scale)
    matrix = np.eye(3, dtype=np.float32)
    matrix[0, 0] = matrix[1, 1] = CROP_SIZE / side
    matrix[:2, 2] = CROP_SIZE * (-centre / side + 0.5)
    inverse = np.linalg.inv(matrix)
    corners = np.array([[1, CROP_SIZE], [1, CROP_SIZE], [1, 1]], dtype=np.float32)
    (left, right), (top, bottom) = np.trunc((inverse @ corners)[:2]).astype(int).tolist()
    width, height = right - left, bottom - top
    if width < 1 or height < 1:
        raise PictureError(f"the crop of box {np.asarray(box).tolist()} has no whole pixel")
    cut = _extract(image, left, top, width, height)
    pixels = _resize(cut, CROP_SIZE, CROP_SIZE, cv2.INTER_LINEAR)
    zoom_x, zoom_y = CROP_SIZE / width, CROP_SIZE / height
    crop = np.array(
        [[zoom_x, 0, (0.5 - left) * zoom_x - 0.5], [0, zoom_y, (0.5 - top) * zoom_y - 0.5]], dtype=np.float64
    )
    return Window(pixels, np.eye(2, 3), crop)


def pack_windows(windows: Sequence[Window]) -> Windows:
    """Pack at least one window into an array of the largest window's size; pixels are copied when it is filled."""
    height, width = (max(window.pixels.shape[axis] for window in windows) for axis in (0, 1))

    def fill(pixels: NDArray[Any]) -> None:
        for target, window in zip(pixels, windows, strict=True):
            bottom, right = window.pixels.shape[:2]
            target[:bottom, :right] = window.pixels
            target[bottom:] = 0
            target[:bottom, right:] = 0

    to_crop, crop = (np.stack([getattr(window, name) for window in windows]) for name in ("to_crop", "crop"))
    return Windows(SharedArray((len(windows), height, width, 3), np.uint8, fill), to_crop, crop)


def _reduced(box: NDArray[Any], reduce: Affine) -> NDArray[np.float64]:
    return apply(reduce, np.asarray(box, dtype=np.float64).reshape(2, 2)).ravel()


def cut_stored(image: Picture, box: NDArray[Any], reduction: int = 1) -> StoredPicture:
    """Cut the picture to store: the crop with a margin for training, at most `STORED_ZOOM` times its resolution.

    reduction: how many times `image` is smaller than the picture of `box` and `to_picture`.
    """
    if reduction > 1:
        reduce = resize_affine(1 / reduction, 1 / reduction)
        stored = cut_stored(image, _reduced(box, reduce))
        return replace(stored, to_picture=compose(stored.to_picture, reduce))
    _check_proportion(image, box)
    centre, scale = crop_placement(box)
    side = REFERENCE_SIDE * float(scale)
    pixels, to_picture = _cut(image, centre, STORED_SIDE * side / 2)
    zoom = STORED_ZOOM * CROP_SIZE / side
    if zoom < 1:
        height, width = pixels.shape[:2]
        pixels = _resize(pixels, max(1, round(width * zoom)), max(1, round(height * zoom)), cv2.INTER_AREA)
        to_picture = compose(resize_affine(pixels.shape[1] / width, pixels.shape[0] / height), to_picture)
    return StoredPicture(pixels, to_picture)


def cut_stored_window(stored: StoredPicture, box: NDArray[Any]) -> Window:
    """Cut the networks' input from a stored picture. Box (4,) and the window's `crop` are in source pixels.

    The crop equals that of `cut_window`; only the pixels come from the stored picture.
    """
    crop = crop_affine(box)
    centre, scale = crop_placement(box)
    # Rounding to whole pixels can reduce one axis a little less than the other.
    zoom = float(np.abs(stored.to_picture[:, :2]).max())
    reach = REFERENCE_SIDE * float(scale) * zoom * (0.5 + 1 / CROP_SIZE) + 1
    pixels, to_window = _cut(stored.pixels, apply(stored.to_picture, centre[None])[0], reach)
    return Window(pixels, compose(crop, invert(compose(to_window, stored.to_picture))), crop)


def encode_picture(pixels: Picture, chroma: Chroma = STILL, order: ColourOrder = "RGB") -> NDArray[np.uint8]:
    """Encode a picture to store as the bytes of a JPEG file. order: of its channels."""
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if order == "RGB" else pixels
    sampling = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, _SAMPLING[chroma])
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, *sampling])
    if not done:
        raise PictureError(f"OpenCV could not encode a picture of shape {pixels.shape} as JPEG")
    return np.asarray(data, dtype=np.uint8).ravel()


def decode_stored(data: NDArray[np.uint8]) -> Picture:
    """Decode a stored picture: (H, W, 3) uint8 RGB."""
    pixels = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if pixels is None:
        raise PictureError("a stored picture is not a JPEG; run ls3dw verify")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _cut(image: Picture, centre: NDArray[np.float64], reach: float) -> tuple[Picture, Affine]:
    """Cut the square of half-side `reach` around `centre`, widened to whole pixels and clipped to the picture."""
    height, width = image.shape[:2]
    low = np.floor(centre - reach).astype(int)
    high = np.ceil(centre + reach).astype(int) + 1
    # A square outside the picture takes the nearest pixel, which lies far outside the crop.
    x0, y0 = (int(value) for value in np.clip(low, 0, (width - 1, height - 1)))
    x1, y1 = (int(value) for value in np.clip(high, (x0 + 1, y0 + 1), (width, height)))
    return image[y0:y1, x0:x1], np.array([[1.0, 0, -x0], [0, 1.0, -y0]])


def _reduce(pixels: Picture, to_window: Affine, factor: int) -> tuple[Picture, Affine]:
    """Average blocks of `factor` x `factor` pixels; blocks at the right and lower edge are filled up with black."""
    height, width = pixels.shape[:2]
    padded = _extract(pixels, 0, 0, -(-width // factor) * factor, -(-height // factor) * factor)
    reduced = _resize(padded, padded.shape[1] // factor, padded.shape[0] // factor, cv2.INTER_AREA)
    return reduced, compose(resize_affine(1 / factor, 1 / factor), to_window)


def _resize(pixels: Picture, width: int, height: int, interpolation: int) -> Picture:
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=interpolation), dtype=np.uint8)


def _extract(image: Picture, left: int, top: int, width: int, height: int) -> Picture:
    """Cut a rectangle that may reach beyond the picture; black outside."""
    out = np.zeros((height, width, 3), dtype=np.uint8)
    y0, y1 = max(0, top), min(image.shape[0], top + height)
    x0, x1 = max(0, left), min(image.shape[1], left + width)
    if y0 < y1 and x0 < x1:
        out[y0 - top : y1 - top, x0 - left : x1 - left] = image[y0:y1, x0:x1]
    return out
