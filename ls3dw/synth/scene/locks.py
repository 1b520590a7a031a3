"""Locks of hair across a face, from above or from the side: broad curtains and thin wisps.

A lock is a band along a curve in the picture. A small random texture, stretched along it, makes single hairs, ragged
and partly transparent edges, and uneven ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from ls3dw.core.markup import MIRROR
from ls3dw.synth.raster.rasterizer import Fragments
from ls3dw.synth.rng import Rng
from ls3dw.synth.shade.tensors import constant, flagged_indices, step

COUNT: Final = 3
"""Locks in a picture that has any: a broad one or a wisp, and two more wisps."""

CROSSED: Final = (16, 15, 14, 13, 12, 45, 46, 47, 42, 35, 54, 57)
"""Points on the subject's left that locks fall toward; MIRROR gives those on the right."""

OPAQUE: Final = 0.5
"""Coverage from which hair counts as hiding a landmark."""

_TABLE = (6, 24)
"""Size of the texture: along a lock, and hairs across."""

_TABLE_WIDTH = 0.35
"""Half width of the texture in head units, the same for all locks: hairs keep their width."""

_THINNEST = 0.8
"""Least half width in pixels; thinner locks would break into dots."""

_ACROSS = 0.25
"""Share of pictures with locks that begin beyond the middle of the forehead."""

_FAR = 0.25
"""Share of turned heads with locks on the far side, over the less visible eye and brow."""


@dataclass(frozen=True)
class Locks:
    """The locks of some pictures, ready for shading."""

    index: Tensor
    """(n,) the pictures."""

    share: Tensor
    """(n, 1, H, W) coverage."""

    streaks: Tensor
    """(n, 1, H, W) relative lightness of hairs, around 0."""

    normal: Tensor
    """(n, 3, H, W) unit vectors, view frame."""

    def depth(self, count: int) -> Tensor:
        """Return a depth map (B, H, W) of all pictures: inf where hair is opaque, -inf elsewhere."""
        side = self.share.shape[-1]
        hidden = torch.where(self.share[:, 0] > OPAQUE, torch.inf, -torch.inf)
        return hidden.new_full((count, side, side), -torch.inf).index_copy(0, self.index, hidden)


@dataclass(frozen=True)
class _Curves:
    """K locks a picture: root and end (n, K, 2) in pixels, shape parameters (n, K, 1, 1)."""

    root: Tensor
    end: Tensor
    bow: Tensor
    """Distance from the straight line in head units: s (1 - s) (bow + sway s) at the share s of its length."""

    sway: Tensor
    width: Tensor
    """Half width, in head units."""

    taper: Tensor
    """Share of the width lost toward the end."""

    firmness: Tensor
    """Slope of opacity from edge to middle."""


def draw_locks(
    points: Tensor, scale: Tensor, hairy: Tensor, opaque: Fragments, over: Tensor, chance: float, rng: Rng
) -> Locks:
    """Draw locks across some faces.

    points: (B, 68, 3) on the screen; scale: (B,) pixels in a head unit; hairy: (B,) bool, heads with hair; over: (T,)
    bool, triangles that cover hair, such as hats; chance: for each head with hair
    """
    flag = (rng.chance(chance, len(points)) & hairy).float()
    index = flagged_indices(flag, chance, rng)
    curves = _draw_curves(points[index], scale[index], rng)
    share, streaks, normal = _paint(curves, scale[index], opaque.depth.shape[-1], rng)
    free = ~over[opaque.triangle[index].clamp(min=0)][:, None]
    return Locks(index, share * (free * flag[index].view(-1, 1, 1, 1)), streaks, normal)


def _draw_curves(points: Tensor, scale: Tensor, rng: Rng) -> _Curves:
    """Draw the curves of locks for faces with points (n, 68, 3)."""
    root, end, side = _draw_ends(points, scale, rng)
    count, device = len(points), points.device
    forms = (count, COUNT, 1, 1)
    broad = rng.chance(0.6, count, 1, 1, 1) & (torch.arange(COUNT, device=device) == 0).view(1, -1, 1, 1)
    wisp = rng.uniform(*forms, low=0.02, high=0.09)
    return _Curves(
        root=root,
        end=end,
        bow=-side[..., None] * rng.uniform(*forms, low=0.1, high=1.1),
        sway=0.5 * rng.normal(*forms),
        width=torch.where(broad, rng.uniform(*forms, low=0.2, high=0.5), wisp),
        taper=rng.uniform(*forms, low=0.2, high=0.8),
        firmness=torch.where(broad, rng.uniform(*forms, low=2.0, high=5.0), rng.uniform(*forms, low=1.0, high=2.5)),
    )


def _draw_ends(points: Tensor, scale: Tensor, rng: Rng) -> tuple[Tensor, Tensor, Tensor]:
    """Draw roots above forehead or temple and ends, (n, K, 2) each, and the side (n, 1, 1) they fall on.

    The side is 1 for the subject's left, -1 for the right; mostly the one turned to the camera (`_FAR`).
    """
    count, one = len(points), (len(points), 1, 1)
    each = (count, COUNT, 1)
    unit = scale.view(one)
    left, up, front = _axes(points)
    turned = (points[:, 26, 2] - points[:, 17, 2])[:, None, None] / unit
    side = 1 - 2 * (rng.uniform(*one) > (0.5 + 0.8 * turned).clamp(_FAR, 1 - _FAR)).float()
    aside = rng.uniform(*one, high=0.9) + 0.1 * rng.normal(*each)
    begin = side * torch.where(rng.chance(_ACROSS, *one), -0.6, 1.0)
    # On the scalp above every hairline of `shape`: high over the forehead, lower and farther back at the temples.
    lower = aside.square().square()
    root = up * (1.05 - 0.55 * lower) + left * (begin * aside) - front * (0.42 + 0.4 * lower)
    root = points[:, 27:28] + root * unit
    lefts = constant(CROSSED, points.device).long()
    chosen = lefts[rng.integers(len(CROSSED), *each[:2])]
    chosen = torch.where(side[..., 0] > 0, chosen, constant(MIRROR, points.device).long()[chosen])
    end = points.gather(1, chosen[..., None].expand(-1, -1, 3)) + 0.1 * unit * rng.normal(count, COUNT, 3)
    way = (end - root)[..., :2]
    # Hair hangs down in the picture, also on tilted heads.
    sag = 0.35 * way.norm(dim=-1, keepdim=True) * (constant((0.0, 1.0), points.device) + up[..., :2])
    return root[..., :2], root[..., :2] + way * rng.uniform(*each, low=0.9, high=1.5) + sag, side


def _axes(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the head's axes on the screen, (n, 1, 3) each: to the subject's left, up, to the front."""
    ears = (points[:, 0] + points[:, 16]) / 2
    ways = points[:, 26] - points[:, 17], points[:, 27] - points[:, 8], points[:, 27] - ears
    left, up, front = (F.normalize(way, dim=1)[:, None] for way in ways)
    return left, up, front


def _paint(curves: _Curves, scale: Tensor, size: int, rng: Rng) -> tuple[Tensor, Tensor, Tensor]:
    """Return coverage, streaks and normals (n, C, H, W) of locks."""
    count = len(scale)
    unit = scale.view(-1, 1, 1, 1)
    line = torch.arange(size, dtype=torch.float32, device=scale.device)
    way = curves.end - curves.root
    length = way.norm(dim=-1, keepdim=True).clamp(min=1.0)
    ahead = way / length
    ahead_x, ahead_y = ahead[..., None, None].unbind(2)
    x, y = line - curves.root[..., :1, None], line[:, None] - curves.root[..., 1:, None]
    along = (x * ahead_x + y * ahead_y) / length[..., None]
    bent = along * (1 - along) * (curves.bow + curves.sway * along)
    across = (y * ahead_x - x * ahead_y) / unit - bent
    inside = along.clamp(0, 1)
    gathered = (0.25 + 4 * inside).clamp_(max=1)
    half = (curves.width * gathered * (1 - curves.taper * inside)).clamp_(min=_THINNEST / unit)
    grid = torch.stack((across / _TABLE_WIDTH, 2 * along - 1), -1).flatten(0, 1)
    table = rng.normal(count * COUNT, 2, *_TABLE)
    hairs, tones = F.grid_sample(table, grid, padding_mode="reflection", align_corners=False).unbind(1)
    hairs, tones = hairs.view(along.shape), tones.view(along.shape)
    place = across / half
    share = (curves.firmness * (1 - place.abs()) + 0.35 * hairs).clamp_(0, 1)
    share = share * ((1 - along) * 8 + hairs).clamp_(0, 1) * step(along, -0.02, 0.06)
    share = share * rng.uniform(count, COUNT, 1, 1, low=0.75, high=1.0)
    weight = share / (share.sum(1, keepdim=True) + 1e-6)
    # A lock is round: normals turn from one edge to the other. y is down on the screen, up in the view frame.
    round_ = weight * place.clamp(-1, 1)
    aside = torch.stack(((round_ * -ahead_y).sum(1), (round_ * -ahead_x).sum(1)), 1)
    normal = F.normalize(torch.cat((0.7 * aside, torch.ones_like(aside[:, :1])), 1), dim=1)
    return 1 - (1 - share).prod(1, keepdim=True), (weight * tones).sum(1, keepdim=True), normal
