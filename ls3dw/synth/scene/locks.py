"""Locks of hair that fall across a face, from above or from the side: curtains before cheek and eye, and thin wisps.

A lock is a band about a curve on the picture. How its hairs lie side by side is a small table of random numbers,
stretched along it, which makes its edges ragged and partly transparent, and its hairs end one after the other.
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
"""Locks of each picture that has any: a broad one or a wisp, and two more wisps."""

CROSSED: Final = (16, 15, 14, 13, 12, 45, 46, 47, 42, 35, 54, 57)
"""Points of the subject's left that locks fall towards; MIRROR has those of the right."""

OPAQUE: Final = 0.5
"""Share of a pixel from which on hair hides what is behind it."""

_TABLE = (6, 24)
"""Rows along a lock and hairs across."""

_TABLE_WIDTH = 0.35
"""Half the breadth of that table in head units: hairs keep their breadth, however broad the lock."""

_THINNEST = 0.8
"""Pixels from the middle of a lock to its edge, at least: thinner ones would break into dots."""

_ACROSS = 0.25
"""Share of the pictures whose locks begin beyond the middle of the forehead."""

_FAR = 0.25
"""Share of the turned heads whose locks fall on the far side: before the eye and the brow that are seen least."""


@dataclass(frozen=True)
class Locks:
    """The locks of some pictures, ready for shading."""

    index: Tensor
    """(n,) the pictures."""

    share: Tensor
    """(n, 1, H, W) how much they cover."""

    streaks: Tensor
    """(n, 1, H, W) how much lighter a hair is than others, about 0."""

    normal: Tensor
    """(n, 3, H, W) unit vectors, view frame."""

    def depth(self, count: int) -> Tensor:
        """Return the depth (B, H, W) for all pictures: before everything where hair is opaque, -inf elsewhere."""
        side = self.share.shape[-1]
        hidden = torch.where(self.share[:, 0] > OPAQUE, torch.inf, -torch.inf)
        return hidden.new_full((count, side, side), -torch.inf).index_copy(0, self.index, hidden)


@dataclass(frozen=True)
class _Curves:
    """K locks a picture: from a root (n, K, 2) to an end in pixels, and what else makes their form (n, K, 1, 1)."""

    root: Tensor
    end: Tensor
    bow: Tensor
    """How far the curve leaves the straight line, in head units: s (1 - s) (bow + sway s) at the share s of its way."""

    sway: Tensor
    width: Tensor
    """From the middle to the edge, in head units."""

    taper: Tensor
    """Share of its width that a lock loses toward its end."""

    firmness: Tensor
    """How fast it grows opaque from its edge to its middle."""


def draw_locks(
    points: Tensor, scale: Tensor, hairy: Tensor, opaque: Fragments, over: Tensor, chance: float, rng: Rng
) -> Locks:
    """Let hair fall across some faces that have any.

    points (B, 68, 3) and scale (B,) are of the screen; hairy (B,) bool: who has hair; over (T,) bool: the triangles
    that lie on hair, as hats do; chance: of each hairy head.
    """
    flag = (rng.chance(chance, len(points)) & hairy).float()
    index = flagged_indices(flag, chance, rng)
    curves = _draw_curves(points[index], scale[index], rng)
    share, streaks, normal = _paint(curves, scale[index], opaque.depth.shape[-1], rng)
    free = ~over[opaque.triangle[index].clamp(min=0)][:, None]
    return Locks(index, share * (free * flag[index].view(-1, 1, 1, 1)), streaks, normal)


def _draw_curves(points: Tensor, scale: Tensor, rng: Rng) -> _Curves:
    """Draw the locks of faces with points (n, 68, 3)."""
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
    """Draw where locks begin above forehead or temple, where they end, (n, K, 2) each, and on which side (n, 1, 1).

    The side, 1 for the subject's left and -1 for the right, is mostly that turned to the camera (`_FAR`).
    """
    count, one = len(points), (len(points), 1, 1)
    each = (count, COUNT, 1)
    unit = scale.view(one)
    left, up, front = _axes(points)
    turned = (points[:, 26, 2] - points[:, 17, 2])[:, None, None] / unit
    side = 1 - 2 * (rng.uniform(*one) > (0.5 + 0.8 * turned).clamp(_FAR, 1 - _FAR)).float()
    aside = rng.uniform(*one, high=0.9) + 0.1 * rng.normal(*each)
    begin = side * torch.where(rng.chance(_ACROSS, *one), -0.6, 1.0)
    # On the scalp, above every hairline of `shape`: over the forehead high, at the temples lower and farther back.
    lower = aside.square().square()
    root = up * (1.05 - 0.55 * lower) + left * (begin * aside) - front * (0.42 + 0.4 * lower)
    root = points[:, 27:28] + root * unit
    lefts = constant(CROSSED, points.device).long()
    chosen = lefts[rng.integers(len(CROSSED), *each[:2])]
    chosen = torch.where(side[..., 0] > 0, chosen, constant(MIRROR, points.device).long()[chosen])
    end = points.gather(1, chosen[..., None].expand(-1, -1, 3)) + 0.1 * unit * rng.normal(count, COUNT, 3)
    way = (end - root)[..., :2]
    # Hair hangs down in the picture, if the head is tilted or not.
    sag = 0.35 * way.norm(dim=-1, keepdim=True) * (constant((0.0, 1.0), points.device) + up[..., :2])
    return root[..., :2], root[..., :2] + way * rng.uniform(*each, low=0.9, high=1.5) + sag, side


def _axes(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the head's directions on the screen, (n, 1, 3) each: to the subject's left, up, and to the front."""
    ears = (points[:, 0] + points[:, 16]) / 2
    ways = points[:, 26] - points[:, 17], points[:, 27] - points[:, 8], points[:, 27] - ears
    left, up, front = (F.normalize(way, dim=1)[:, None] for way in ways)
    return left, up, front


def _paint(curves: _Curves, scale: Tensor, size: int, rng: Rng) -> tuple[Tensor, Tensor, Tensor]:
    """Return the share of the locks (n, 1, H, W), their streaks and normals."""
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
    # A lock is rounded: its normals turn from one edge to the other. On the screen y goes down, in the view up.
    round_ = weight * place.clamp(-1, 1)
    aside = torch.stack(((round_ * -ahead_y).sum(1), (round_ * -ahead_x).sum(1)), 1)
    normal = F.normalize(torch.cat((0.7 * aside, torch.ones_like(aside[:, :1])), 1), dim=1)
    return 1 - (1 - share).prod(1, keepdim=True), (weight * tones).sum(1, keepdim=True), normal
