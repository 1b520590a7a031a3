"""The jaw in 3D: the places that make the contour of the frontal face.

2D annotators follow what is seen, and in half-profile that is an edge in front of the mandible's rear. The 3D points of
LS3D-W and of AFLW2000-3D are fixed places instead, projected whether they are seen or not; on a frontal face they and
the 2D points are the same ("How far are we", section 4). That defines them without any labels: at each jaw point's
height and direction, the first place to its rear that is farthest out. Of these places rendered heads take the depth
alone; x and y are those of each head's own frontal contour (`landmarks.frontal_jaw`).
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
"""Head units from the axis of the head at which rays begin: inside it at every depth."""

STEP: Final = 0.005
STEPS: Final = 160
"""How finely, and how far to the rear of a 2D point, the outline is looked at; head units."""

FALL: Final = 0.01
"""By how much the outline must fall behind a place for that to count as the farthest, and not as a ripple."""


def with_frontal_jaw(head: HeadShape, placement: Placement) -> Placement:
    """Put the 3D jaw points of a placement on the frontal contour, at the heights where its 2D points lie there.

    Under the jaw, where the outline runs into the neck and has no farthest place, a point is set back as far as its
    neighbours have it between them. What the 2D contour is found with (`jaw_*`) stays as it is.
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
    """Find the skin at some depths (R,) in the directions of points (R, 2) from the head's axis; and where it is."""
    outward = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    origins = np.concatenate((START * outward, depths[:, None]), axis=1)
    directions = np.concatenate((outward, np.zeros((len(depths), 1))), axis=1)
    return cast_rays(head.mean, head.triangles[head.skin], origins, directions, reach=1.6)


def _set_back(head: HeadShape, place: Floats, lowest: float) -> float:
    """Return how far behind a place (3,) the outline is farthest out in its direction; NaN if it ends in the neck."""
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
