"""Decodes pictures strictly: whole, or not at all."""

from __future__ import annotations

import io
import threading
import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, UnidentifiedImageError

from ls3dw.core.sample import Picture
from ls3dw.errors import PictureError

FORMATS: Final = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP")
"""The formats of the data sets and their usual conversions; Pillow's rarer readers never see a file."""

MODES: Final = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
"""Pixels of 8 bits at most: Pillow would clip 16-bit and float pixels to white without a word."""

WHOLE_PIXELS: Final = 1 << 26
"""Larger pictures are reduced: 67 megapixels, 200 MB as RGB."""

MOST_BYTES: Final = 1 << 30
"""Largest memory that Pillow may take for the decoded file: 268 megapixels of RGB, a gigapixel of grey."""

_ONE_BYTE: Final = frozenset({"1", "L", "P"})
_REDUCIBLE: Final = frozenset({"L", "RGB", "CMYK", "YCbCr"})

_opening = threading.Lock()


@dataclass(frozen=True)
class DecodedPicture:
    """pixels: (H, W, 3) uint8 RGB; size: width and height in the file; reduction: how many times smaller `pixels` is.

    Pixel (x, y) of the file lies at ((x + 0.5) / reduction - 0.5, ...) of `pixels`.
    """

    pixels: Picture
    size: tuple[int, int]
    reduction: int = 1


def decode_picture(data: bytes) -> DecodedPicture:
    """Decode a picture file as stored: an EXIF rotation is not applied, alpha is left out.

    The annotations of the field were made on pixels as Matlab and older OpenCV read them, which do not turn pictures;
    videos are read alike. Pictures of more than `WHOLE_PIXELS` are reduced by a power of two.
    Raises PictureError when the data is truncated, no picture, or decodes to more than `MOST_BYTES`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with _open(data) as image:
                return _decoded(image)
        except (PictureError, MemoryError):
            # Too little memory is no fault of the picture, which would be dropped for it.
            raise
        except UnidentifiedImageError as error:
            # Pillow's own text holds a memory address, which would differ from run to run.
            raise PictureError(f"not a picture ({', '.join(FORMATS)})") from error
        except Exception as error:
            # On damaged files Pillow's readers raise OSError, SyntaxError, struct.error and a dozen others.
            raise PictureError(f"damaged picture: {error}") from error


def _open(data: bytes) -> Image.Image:
    """Read a file's header. Pillow's own limit, of pixels and for the whole process, makes way for ours."""
    with _opening:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(data), formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _decoded(image: Image.Image) -> DecodedPicture:
    if image.mode not in MODES:
        raise PictureError(f"pixels of kind {image.mode!r}; expected 8 bits per channel")
    size = image.size
    reduction = 1
    while size[0] * size[1] > WHOLE_PIXELS * reduction**2:
        reduction *= 2
    if reduction > 1 and image.format == "JPEG":
        image.draft(None, (size[0] // reduction, size[1] // reduction))
    bytes_needed = image.width * image.height * (1 if image.mode in _ONE_BYTE else 4)
    if bytes_needed > MOST_BYTES:
        raise PictureError(
            f"{size[0]}x{size[1]} pixels decode to {bytes_needed} bytes; the limit is {MOST_BYTES}: make it smaller"
        )
    left = reduction // round(size[0] / image.width)
    if left > 1:
        image = image if image.mode in _REDUCIBLE else image.convert("L" if image.mode == "1" else "RGB")
        image = image.reduce(left)
    # convert() would copy what is RGB already.
    return DecodedPicture(np.array(image if image.mode == "RGB" else image.convert("RGB")), size, reduction)
