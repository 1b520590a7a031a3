"""Thin lips: a change of shape that MakeHuman lacks; its lips are fuller than people's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

UPPER: Final = (48, 49, 50, 51)
LOWER: Final = (48, 59, 58, 57)
LINE: Final = (61, 62, 63, 65, 66, 67)
"""Points on the right half of the lips' borders, from the corner to the middle, and on the line between the lips."""

FADE: Final = (0.15, 0.2)
"""Distance beyond the border of the upper and the lower lip over which the skin follows; head units."""

_DEEPEST, _FULL = 0.3, 0.4
"""Depths between which the change sets in, which leaves the throat as it is; head units."""


def lip_changes(arrays: Mapping[str, NDArray[Any]], skin: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the moves of vertices (2, V, 3) by which the upper and the lower lip lose all of their height.

    arrays: mean, point_vertices and point_weights of a placed head; skin: (V,). Heights above the line between the lips
    shrink in proportion up to the lip's border; the skin beyond follows less and less.
    """
    vertices = arrays["mean"].astype(np.float64)
    points = (vertices[arrays["point_vertices"]] * arrays["point_weights"][..., None]).sum(1)
    middle = points[list(LINE), 1].mean()
    changes = np.zeros((2, *vertices.shape))
    for change, border, fade, sign in zip(changes, (UPPER, LOWER), FADE, (1.0, -1.0), strict=True):
        across, up, _ = points[list(border)].T
        heights = sign * (up - middle)
        heights[0] = 0.0  # the corner of the mouth stays
        red = np.interp(-abs(vertices[:, 0]), across, heights, left=0.0)
        height = sign * (vertices[:, 1] - middle)
        beyond = ((height - red) / fade).clip(0, 1)
        follows = 1 - beyond**2 * (3 - 2 * beyond)
        change[:, 1] = -sign * np.minimum(height, red).clip(min=0) * follows
    before = ((vertices[:, 2] - _DEEPEST) / (_FULL - _DEEPEST)).clip(0, 1)
    changes *= ((skin) * before)[:, None]
    return changes
