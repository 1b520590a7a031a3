"""Flat occluders in front of faces."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ls3dw.synth.rng import Rng
from ls3dw.synth.shade.tensors import mix, planes


def occlude(images: Tensor, rng: Rng, chances: tuple[float, ...] = (0.18, 0.1)) -> Tensor:
    """Lay shapes over pictures (B, 3, H, W) in [0, 1], one with each of the probabilities.

    Shapes are filled with a shaded colour or with a part of another picture of the batch.
    """
    for chance in chances:
        images = _cover(images, rng, chance)
    return images


def _cover(images: Tensor, rng: Rng, chance: float) -> Tensor:
    count, _, height, width = images.shape
    one = (count, 1, 1, 1)
    along, across = _local(rng, count, height, width, images.device)
    angle = torch.atan2(across, along)
    waves = 0.15 * torch.sin(3 * angle + rng.uniform(*one, high=2 * math.pi))
    waves = waves + 0.08 * torch.sin(7 * angle + rng.uniform(*one, high=2 * math.pi))
    round_ = (along.square() + across.square()).sqrt() + waves * rng.uniform(*one)
    square = torch.maximum(along.abs(), across.abs())
    outline = torch.where(rng.chance(0.55, *one), round_, square)
    softness = rng.uniform(*one, low=8, high=40)
    share = torch.sigmoid((1 - outline) * softness) * rng.chance(chance, *one)
    # Never quite opaque for a few: glass, smoke, motion.
    share = share * torch.where(rng.chance(0.1, *one), rng.uniform(*one, low=0.4, high=0.9), 1.0)
    colour = _colour(rng, count, images.device) * (1 + 0.3 * rng.normal(*one) * along.clamp(-1, 1))
    fill = torch.where(rng.chance(0.5, *one), colour, _other(images, rng))
    return mix(images, fill, share).clamp_(0, 1)


def _local(rng: Rng, count: int, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return coordinates (B, 1, H, W) in which the shape's outline is at distance 1."""
    one = (count, 1, 1, 1)
    x = torch.linspace(-1, 1, width, device=device) - 0.45 * rng.normal(*one)
    y = torch.linspace(-1, 1, height, device=device)[:, None] - 0.15 - 0.45 * rng.normal(*one)
    angle = rng.uniform(*one, high=math.pi)
    long, short = rng.uniform(*one, low=0.08, high=0.42), rng.uniform(*one, low=0.06, high=0.3)
    return (x * angle.cos() + y * angle.sin()) / long, (y * angle.cos() - x * angle.sin()) / short


def _colour(rng: Rng, count: int, device: torch.device) -> Tensor:
    """Draw a colour (B, 3, 1, 1): of skin or of anything."""
    skin = planes((0.8, 0.58, 0.47), device) * rng.uniform(count, 1, 1, 1, low=0.3, high=1.15)
    anything = rng.uniform(count, 1, 1, 1) + (rng.uniform(count, 3, 1, 1) - 0.5) * rng.uniform(count, 1, 1, 1)
    return torch.where(rng.chance(0.4, count, 1, 1, 1), skin, anything).clamp(0, 1)


def _other(images: Tensor, rng: Rng) -> Tensor:
    """Return a turned, enlarged part of the next picture of the batch."""
    count = len(images)
    zoom, angle = rng.uniform(count, 1, low=0.15, high=0.6), rng.uniform(count, 1, high=2 * math.pi)
    rows = torch.stack((zoom * angle.cos(), -zoom * angle.sin(), zoom * angle.sin(), zoom * angle.cos()), 2)
    shift = rng.uniform(count, 2, 1, low=-0.5, high=0.5)
    grid = F.affine_grid(torch.cat((rows.view(count, 2, 2), shift), 2), list(images.shape), align_corners=False)
    return F.grid_sample(images.roll(1, 0), grid, padding_mode="reflection", align_corners=False)
