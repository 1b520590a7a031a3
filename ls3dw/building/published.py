"""The sources' own points as annotations; no network runs."""

from __future__ import annotations

import numpy as np

from ls3dw.core.annotations import Annotations
from ls3dw.core.crops import Windows
from ls3dw.core.markup import POINTS
from ls3dw.core.pose import head_pose
from ls3dw.core.sample import Floats
from ls3dw.models.annotator import CPU_BATCH
from ls3dw.models.face_batch import FaceBatch
from ls3dw.models.inference.device import check_device


class PublishedPoints:
    """Takes the place of an `Annotator`: returns the points that came with each face.

    For sources of projected 3D points, given as `FaceBatch.guidance`. What was not published (visible contour, depth,
    confidences) is NaN; the pose comes from the points.
    """

    model_2d = None
    model_3d = None
    model_depth = None

    def __init__(self) -> None:
        self.device = check_device("cpu")
        self.batch = CPU_BATCH

    def stage(self, windows: Windows) -> Windows:
        """Return the windows, which are not used."""
        return windows

    def begin(self, faces: FaceBatch) -> FaceBatch:
        """Return the faces."""
        return faces

    def result(self, begun: FaceBatch) -> Floats:
        """Return the points of the faces."""
        if begun.guidance is None:
            raise ValueError("faces without points of their source: expected guidance (N, 68, 2)")
        return begun.guidance.astype(np.float32)

    def finish(self, faces: FaceBatch, points: Floats) -> Annotations:
        """Return the annotations of the faces."""
        return Annotations(
            landmarks_2d=_missing(len(points), POINTS, 2),
            landmarks_3d=np.concatenate((points, _missing(len(points), POINTS, 1)), axis=2),
            confidence_2d=_missing(len(points), POINTS),
            confidence_3d=_missing(len(points), POINTS),
            pose=head_pose(points),
            crop=faces.crop,
        )


def _missing(*shape: int) -> Floats:
    return np.full(shape, np.nan, dtype=np.float32)
