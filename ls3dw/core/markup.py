"""The 68-point mark-up of iBUG / Multi-PIE as data: names, groups, mirror partners, lines. 0-based indices."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

POINTS: Final = 68

GROUPS: Final[dict[str, tuple[int, ...]]] = {
    "jaw": tuple(range(17)),
    "right brow": tuple(range(17, 22)),
    "left brow": tuple(range(22, 27)),
    "nose ridge": tuple(range(27, 31)),
    "nose base": tuple(range(31, 36)),
    "right eye": tuple(range(36, 42)),
    "left eye": tuple(range(42, 48)),
    "outer lip": tuple(range(48, 60)),
    "inner lip": tuple(range(60, 68)),
}
"""Point indices of each part of the face; right and left are the subject's."""

CLOSED: Final = frozenset({"right eye", "left eye", "outer lip", "inner lip"})
"""The groups whose last point joins the first."""

MIRROR: Final[tuple[int, ...]] = (
    *range(16, -1, -1),
    *range(26, 16, -1),
    *range(27, 31),
    *range(35, 30, -1),
    *(45, 44, 43, 42, 47, 46),
    *(39, 38, 37, 36, 41, 40),
    *range(54, 47, -1),
    *range(59, 54, -1),
    *range(64, 59, -1),
    *range(67, 64, -1),
)
"""MIRROR[i] is the point that i becomes in the mirrored picture."""


def _lines() -> tuple[tuple[int, int], ...]:
    pairs: list[tuple[int, int]] = []
    for name, members in GROUPS.items():
        pairs += pairwise(members)
        if name in CLOSED:
            pairs.append((members[-1], members[0]))
    return tuple(pairs)


LINES: Final[tuple[tuple[int, int], ...]] = _lines()
"""Pairs of points that a drawing of the face connects."""
