"""The networks' output for a batch of faces."""

from __future__ import annotations

from dataclasses import dataclass

from ls3dw.core.geometry import Affine
from ls3dw.core.sample import Floats


@dataclass(frozen=True)
class Annotations:
    """The networks' output for N faces, in image pixels.

    landmarks_2d: (N, 68, 2) visible contour; landmarks_3d: (N, 68, 3), z relative to the mean of the face's points,
    larger is nearer, NaN without a depth network; confidence_2d, confidence_3d: (N, 68) heatmap peaks in [0, 1], NaN
    for networks without heatmaps;
    pose: (N, 3) yaw, pitch, roll in degrees; all float32. crop: (N, 2, 3) float64, image to 256x256 crop.
    """

    landmarks_2d: Floats
    landmarks_3d: Floats
    confidence_2d: Floats
    confidence_3d: Floats
    pose: Floats
    crop: Affine
