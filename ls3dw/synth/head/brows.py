"""Variation of brows: their height, and how far from the nose they begin and end.

The points follow the visible brow, as annotators do. On 1,764 nearly frontal faces of MERL-RAV they vary along the
brow by 0.05 head units (one standard deviation; 2.7 % of a face's size), on heads whose brows end at fixed places by
half of that: `docs/reports/2026-11-22/placement.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from ls3dw.synth.rng import Rng
from ls3dw.synth.shade.tensors import constant

POINTS_A_BROW: Final = 5

USUAL: Final = (0.021, 0.002, -0.01, -0.005, 0.011)
"""How much farther from the nose people's points lie than the placement's, in head units, from the nose outward."""

SHIFT: Final = 0.034
"""Standard deviation of a brow's shift from the nose, in head units; at its outer end times `SHIFT_OUTSIDE`."""

SHIFT_OUTSIDE: Final = 0.6
LENGTHENED: Final = 0.024
"""Standard deviation of the lengthening at each end of a brow, in head units."""

ONE_SIDED: Final = 0.25
"""Share of these variances that is independent between the two brows."""

_HEIGHT_LIMITS = (-0.1, 0.12)
_SLIDE_LIMIT = 0.11


@dataclass(frozen=True)
class Brows:
    """Differences of brows, points 17 to 26, from those of the mean head, in head units."""

    height: Tensor
    """(B, 10) rise at each point."""

    slide: Tensor
    """(B, 10) shift of brow and points along the brow, away from the nose."""

    @classmethod
    def mean(cls, count: int, device: torch.device | str = "cpu") -> Brows:
        """Return those of the mean head."""
        return cls(*(torch.zeros(count, 2 * POINTS_A_BROW, device=device) for _ in range(2)))


def draw_brows(count: int, rng: Rng) -> Brows:
    """Draw brows, nearly alike on both sides."""
    return Brows(_draw_height(count, rng), _draw_slide(count, rng))


def _draw_height(count: int, rng: Rng) -> Tensor:
    steps = constant((-2.0, -1.0, 0.0, 1.0, 2.0), rng.device)
    height, slope = rng.normal(count, 1) * 0.035, rng.normal(count, 1) * 0.012
    curve = height + slope * steps
    both = torch.cat((curve, curve.flip(1)), dim=1)
    side = (rng.normal(count, 2) * 0.006).repeat_interleave(POINTS_A_BROW, dim=1)
    return (both + side).clamp(*_HEIGHT_LIMITS)


def _draw_slide(count: int, rng: Rng) -> Tensor:
    """Draw how far points slide outward: (B, 10)."""
    shared, own = rng.normal(count, 1, 2), rng.normal(count, 2, 2)
    shift, longer = ((1 - ONE_SIDED) ** 0.5 * shared + ONE_SIDED**0.5 * own).unbind(-1)
    inner = SHIFT * shift - LENGTHENED * longer
    outer = SHIFT_OUTSIDE * SHIFT * shift + LENGTHENED * longer
    outward = torch.linspace(0, 1, POINTS_A_BROW, device=rng.device)
    slide = torch.lerp(inner[..., None], outer[..., None], outward)
    return _from_nose(slide).clamp(-_SLIDE_LIMIT, _SLIDE_LIMIT)


def _from_nose(points: Tensor) -> Tensor:
    """Reorder right and left brows, counted from the nose (B, 2, 5, ...), to points 17 to 26 (B, 10, ...)."""
    right, left = points.unbind(1)
    return torch.cat((right.flip(1), left), dim=1)


def to_nose(points: Tensor) -> Tensor:
    """Split points 17 to 26 (B, 10, ...) into right and left brows, counted from the nose: (B, 2, 5, ...)."""
    right, left = points[:, :POINTS_A_BROW], points[:, POINTS_A_BROW:]
    return torch.stack((right.flip(1), left), dim=1)


def brow_points(lifted: Tensor, brows: Brows, gaps: Tensor) -> Tensor:
    """Find points 17 to 26 (B, 10, 3); lifted: the placement's points at the brows' heights; gaps: as in `slid`."""
    usual = constant(USUAL, lifted.device).expand(1, 2, -1)
    return slid(lifted, brows.slide + _from_nose(usual), gaps)


def slid(points: Tensor, slide: Tensor, gaps: Tensor) -> Tensor:
    """Move points (B, 10, C) along their brows by a slide (B, 10) in head units.

    gaps: (4,) head units between neighbouring points of the mean head, from the nose outward. Brows extend straight
    beyond their ends.
    """
    brow, far = to_nose(points), to_nose(slide)
    ways = (brow[:, :, 1:] - brow[:, :, :-1]) / gaps[:, None]
    outward = torch.cat((ways, ways[:, :, -1:]), dim=2)
    inward = torch.cat((ways[:, :, :1], ways), dim=2)
    way = torch.where(far[..., None] > 0, outward, inward)
    return _from_nose(brow + far[..., None] * way)
