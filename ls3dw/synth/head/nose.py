"""The ridge of the nose: point 30 is the tip; 28 and 29 divide the height between 27 and 30 into thirds.

A fit to labels put point 30 far above the tip (docs/reports/2026-11-22/placement.md). So the tip comes from the head
itself: the foremost place of the midline.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from ls3dw.synth.authoring.sliding import HeadShape, local_vertices
from ls3dw.synth.head.placement import Placement
from ls3dw.synth.head.places import Places, cast_rays

ROOT: Final = 27
TIP: Final = 30
BASE: Final = 33

HEIGHTS: Final = 400
"""Candidate places for the tip between root and base of the nose: one per thousandth of a face."""


def with_nose_tip(head: HeadShape, placement: Placement) -> Placement:
    """Put points 28, 29 and 30 of a placement on the ridge between point 27 and the tip of the mean head's nose."""
    points = Places(local_vertices(head, placement.point_vertices), placement.point_weights.astype(np.float64))
    root, base = points.positions(head.mean)[[ROOT, BASE], 1]
    heights = np.linspace(root, base, HEIGHTS)
    tip = heights[_midline(head, heights).positions(head.mean)[:, 2].argmax()]
    found = _midline(head, np.linspace(root, tip, TIP - ROOT + 1)[1:])
    vertices, weights = placement.point_vertices.copy(), placement.point_weights.copy()
    vertices[ROOT + 1 : TIP + 1], weights[ROOT + 1 : TIP + 1] = head.full_ids[found.vertices], found.weights
    return replace(placement, point_vertices=vertices, point_weights=weights)


def _midline(head: HeadShape, heights: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Places:
    """Find the skin of the midline at some heights, by rays toward the front."""
    origins = np.stack((np.zeros_like(heights), heights, np.zeros_like(heights)), axis=1)
    directions = np.broadcast_to(np.array([0.0, 0.0, 1.0]), origins.shape)
    return cast_rays(head.mean, head.triangles[head.skin], origins, directions, 3.0)[0]
