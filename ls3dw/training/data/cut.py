"""Cuts training pictures from photographs, in the decoding processes: numpy and OpenCV only, no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ls3dw.core.geometry import CROP_SIZE, REFERENCE_SIDE, Affine, apply, compose, crop_affine, crop_placement, invert
from ls3dw.core.sample import Floats, Picture

WINDOW: Final = 538
"""Side of a training picture at the crop's resolution. A crop turned by any angle, zoomed to 0.7 and mirrored reaches
sqrt(2) / 0.7 = 2.02 crop sides; the rest is for shaken boxes. Like the pictures that a data set keeps."""


@dataclass(frozen=True)
class TrainingFace:
    """picture: (538, 538, 3) uint8 with the crop in its middle; landmarks as in `Batch`, crop pixels, NaN unknown."""

    picture: Picture
    landmarks_2d: Floats
    landmarks_3d: Floats


def cut_face(image: Picture, to_image: Affine, box: NDArray[Any], points_2d: Floats, points_3d: Floats) -> TrainingFace:
    """Cut around the published crop of `box` (4,) from a picture (H, W, 3); outside it is black.

    Box and points are in the pixels of the source; to_image: affine from those to the pixels of `image`.
    """
    crop = crop_affine(box)
    zoom = CROP_SIZE / (REFERENCE_SIDE * float(crop_placement(box)[1]))
    pixel = float(np.sqrt(abs(np.linalg.det(to_image[:, :2]))))
    shrink = min(1.0, zoom / pixel)
    if shrink < 1:
        height, width = image.shape[:2]
        small = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        # Averaged by area first: the resampling that follows looks at four pixels only.
        image = np.asarray(cv2.resize(image, small, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        factor_x, factor_y = small[0] / width, small[1] / height
        resize = np.array([[factor_x, 0, (factor_x - 1) / 2], [0, factor_y, (factor_y - 1) / 2]])
        to_image = compose(resize, to_image)
    to_window = crop.copy()
    to_window[:, 2] += (WINDOW - CROP_SIZE) / 2
    window = cv2.warpAffine(image, compose(to_window, invert(to_image)), (WINDOW, WINDOW), flags=cv2.INTER_LINEAR)
    return TrainingFace(np.asarray(window, dtype=np.uint8), apply(crop, points_2d), apply(crop, points_3d))
