"""The 3D points of the jaw: the places on the skin that make the contour of the frontal face.

2D annotators follow the visible edge, which in half-profile lies in front of the mandible's rear. The 3D points of
LS3D-W and AFLW2000-3D are fixed places, projected visible or not, and equal the 2D points on a frontal face ("How far
are we", section 4). This defines them without labels: at each jaw point's height and direction, the first place behind
it that is farthest out. Rendered heads only use the depth of these places; x and y come from each head's own frontal
contour (`landmarks.frontal_jaw`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.markup import GROUPS
from ls3dw.synth.authoring.sliding import HeadShape, local_vertices
from ls3dw.synth.head.placement import Placement
from ls3dw.synth.head.places import Floats, Places, cast_rays

JAW: Final = len(GROUPS["jaw"])
CHIN: Final = JAW // 2

START: Final = 0.25
"""Distance from the head's axis where rays begin, in head units; inside the head at every depth."""

STEP: Final = 0.005
STEPS: Final = 160
"""Sampling of the outline behind a 2D point: distance in head units, and number."""

FALL: Final = 0.01
"""How far the outline must fall behind a maximum for it to be more than a ripple; head units."""


def with_frontal_jaw(head: HeadShape, placement: Placement) -> Placement:
    """Put the 3D jaw points of a placement on the frontal contour, at the heights of its 2D points.

    Under the jaw the outline runs into the neck without a maximum: there the set-back is interpolated between
    neighbours. The lines of the 2D contour (`jaw_*`) stay as they are.
    """
    seen = Places(local_vertices(head, placement.jaw_vertices[:, 0]), placement.jaw_weights[:, 0].astype(np.float64))
    places = seen.positions(head.mean)
    back = np.array([_set_back(head, place, lowest=places[:, 1].min()) for place in places])
    back[CHIN] = 0.0  # the same place in 2D and 3D
    known = np.flatnonzero(np.isfinite(back))
    depths = places[:, 2] - np.interp(np.arange(JAW), known, back[known])
    found, hit = _outline(head, places[:, :2], depths)
    vertices, weights = placement.point_vertices.copy(), placement.point_weights.copy()
    for point in np.flatnonzero(hit):
        vertices[point], weights[point] = head.full_ids[found.vertices[point]], found.weights[point]
    return replace(placement, point_vertices=vertices, point_weights=weights)


def _outline(head: HeadShape, flat: Floats, depths: Floats) -> tuple[Places, NDArray[np.bool_]]:
    """Find the skin at depths (R,) in the directions of points (R, 2) from the head's axis, and which rays hit it."""
    outward = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    origins = np.concatenate((START * outward, depths[:, None]), axis=1)
    directions = np.concatenate((outward, np.zeros((len(depths), 1))), axis=1)
    return cast_rays(head.mean, head.triangles[head.skin], origins, directions, reach=1.6)


def _set_back(head: HeadShape, place: Floats, lowest: float) -> float:
    """Return how far behind a place (3,) the outline is farthest out in its direction; NaN if it runs into the neck."""
    steps = STEP * np.arange(STEPS)
    rays, hit = _outline(head, np.broadcast_to(place[:2], (STEPS, 2)), place[2] - steps)
    found = rays.positions(head.mean)
    reach = np.where(hit, found[:, :2] @ place[:2] / np.linalg.norm(place[:2]), -np.inf)
    best = 0
    for step in range(STEPS):
        if hit[step] and found[step, 1] < lowest:
            return float("nan")
        if reach[step] > reach[best]:
            best = step
        elif reach[step] < reach[best] - FALL:  # or the ear begins
            return float(steps[best])
    return float("nan")
