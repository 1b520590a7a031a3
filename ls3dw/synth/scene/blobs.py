"""Things in front of faces, as flat shapes: torn and straight outlines, filled with colour or with other pictures."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ls3dw.synth.draws import Draws
from ls3dw.synth.shade.tensors import mix, planes


def occlude(images: Tensor, draws: Draws, chances: tuple[float, ...] = (0.18, 0.1)) -> Tensor:
    """Lay up to one shape a chance over pictures (B, 3, H, W) in [0, 1]; each comes with its own probability.

    Shapes are filled with a shaded colour or with a part of another picture of the batch.
    """
    for chance in chances:
        images = _cover(images, draws, chance)
    return images


def _cover(images: Tensor, draws: Draws, chance: float) -> Tensor:
    count, _, height, width = images.shape
    one = (count, 1, 1, 1)
    along, across = _local(draws, count, height, width, images.device)
    angle = torch.atan2(across, along)
    waves = 0.15 * torch.sin(3 * angle + draws.uniform(*one, high=2 * math.pi))
    waves = waves + 0.08 * torch.sin(7 * angle + draws.uniform(*one, high=2 * math.pi))
    round_ = (along.square() + across.square()).sqrt() + waves * draws.uniform(*one)
    square = torch.maximum(along.abs(), across.abs())
    outline = torch.where(draws.chance(0.55, *one), round_, square)
    softness = draws.uniform(*one, low=8, high=40)
    share = torch.sigmoid((1 - outline) * softness) * draws.chance(chance, *one)
    # Never quite opaque for a few: glass, smoke, motion.
    share = share * torch.where(draws.chance(0.1, *one), draws.uniform(*one, low=0.4, high=0.9), 1.0)
    colour = _colour(draws, count, images.device) * (1 + 0.3 * draws.normal(*one) * along.clamp(-1, 1))
    fill = torch.where(draws.chance(0.5, *one), colour, _other(images, draws))
    return mix(images, fill, share).clamp_(0, 1)


def _local(draws: Draws, count: int, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return coordinates (B, 1, H, W) in which the shape's outline is at distance 1."""
    one = (count, 1, 1, 1)
    x = torch.linspace(-1, 1, width, device=device) - 0.45 * draws.normal(*one)
    y = torch.linspace(-1, 1, height, device=device)[:, None] - 0.15 - 0.45 * draws.normal(*one)
    angle = draws.uniform(*one, high=math.pi)
    long, short = draws.uniform(*one, low=0.08, high=0.42), draws.uniform(*one, low=0.06, high=0.3)
    return (x * angle.cos() + y * angle.sin()) / long, (y * angle.cos() - x * angle.sin()) / short


def _colour(draws: Draws, count: int, device: torch.device) -> Tensor:
    """Draw a colour (B, 3, 1, 1): of skin or of anything."""
    skin = planes((0.8, 0.58, 0.47), device) * draws.uniform(count, 1, 1, 1, low=0.3, high=1.15)
    anything = draws.uniform(count, 1, 1, 1) + (draws.uniform(count, 3, 1, 1) - 0.5) * draws.uniform(count, 1, 1, 1)
    return torch.where(draws.chance(0.4, count, 1, 1, 1), skin, anything).clamp(0, 1)


def _other(images: Tensor, draws: Draws) -> Tensor:
    """Return a turned, enlarged part of the next picture of the batch."""
    count = len(images)
    zoom, angle = draws.uniform(count, 1, low=0.15, high=0.6), draws.uniform(count, 1, high=2 * math.pi)
    rows = torch.stack((zoom * angle.cos(), -zoom * angle.sin(), zoom * angle.sin(), zoom * angle.cos()), 2)
    shift = draws.uniform(count, 2, 1, low=-0.5, high=0.5)
    grid = F.affine_grid(torch.cat((rows.view(count, 2, 2), shift), 2), list(images.shape), align_corners=False)
    return F.grid_sample(images.roll(1, 0), grid, padding_mode="reflection", align_corners=False)
