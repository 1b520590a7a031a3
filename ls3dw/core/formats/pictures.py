"""Decodes a picture strictly: whole, or not at all."""

from __future__ import annotations

import io
import warnings
from typing import Final

import numpy as np
from PIL import Image, UnidentifiedImageError

from ls3dw.core.sample import Picture
from ls3dw.errors import PictureError

FORMATS: Final = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP")
"""The formats of the data sets and their usual conversions; Pillow's rarer readers never see a file."""

MODES: Final = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
"""Pixels of 8 bits at most: Pillow would clip 16-bit and float pixels to white without a word."""


def decode_picture(data: bytes) -> Picture:
    """Decode a picture file to (H, W, 3) uint8 RGB as stored: an EXIF rotation is not applied, alpha is left out.

    Raises PictureError when the data is truncated, no picture, or so large that it looks like a decompression bomb.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return _pixels(image)
        except (PictureError, MemoryError):
            # Too little memory is no fault of the picture, which would be dropped for it.
            raise
        except UnidentifiedImageError as error:
            # Pillow's own text holds a memory address, which would differ from run to run.
            raise PictureError(f"not a picture ({', '.join(FORMATS)})") from error
        except Exception as error:
            # On damaged files Pillow's readers raise OSError, SyntaxError, struct.error and a dozen others.
            raise PictureError(f"damaged picture: {error}") from error


def _pixels(image: Image.Image) -> Picture:
    if image.mode not in MODES:
        raise PictureError(f"pixels of kind {image.mode!r}; expected 8 bits per channel")
    return np.array(image.convert("RGB"))
