"""Cloth: clothes, hats, and masks, scarves, headscarves and veils over faces."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ls3dw.synth.head.model import Group
from ls3dw.synth.rng import Rng
from ls3dw.synth.scene.scene import Attribute, Extra, Scene
from ls3dw.synth.shade.background import crops
from ls3dw.synth.shade.paint import Paint
from ls3dw.synth.shade.palette import between
from ls3dw.synth.shade.pixels import Pixels
from ls3dw.synth.shade.tensors import bell, flagged_indices, mix, planes, step

COVERED = 0.11
"""Share of faces with a mask, scarf, headscarf or veil."""


def paint_cloth(paint: Paint, pixels: Pixels, scene: Scene, bank: Tensor, fine: Tensor, rng: Rng) -> None:
    """Paint clothes, hats and coverings, plain or with a texture from the bank."""
    count, _, side, _ = pixels.rest.shape
    texture = crops(bank, rng, count, side, 0.05, 0.6)
    _clothe(paint, pixels, _fabric(texture, fine, rng), fine, rng)
    hat = (pixels.group == Extra.HAT).float()
    fabric = _fabric(texture.roll(1, 0), fine, rng)
    knit = torch.sin(torch.atan2(pixels.rest[:, :1], pixels.rest[:, 2:] + 0.5) * 60) * rng.chance(0.3, count, 1, 1, 1)
    paint.coat(hat, fabric * (1 + 0.12 * knit), gloss=0.2)
    paint.raise_by(hat * 0.008 * knit)
    _cover(paint, pixels, scene, _fabric(texture.roll(2, 0), fine, rng), fine, rng)


def _fabric(texture: Tensor, fine: Tensor, rng: Rng) -> Tensor:
    """Return plain cloth, mostly dark and dull, or textured cloth."""
    count = len(texture)
    one = (count, 1, 1, 1)
    lightness = rng.uniform(*one).pow(1.4)
    plain = lightness + 0.3 * rng.normal(count, 3, 1, 1) * rng.uniform(*one)
    return mix(texture, plain.clamp(0.02, 1), rng.chance(0.6, *one).float()) * (1 + 0.04 * fine[:, :1])


def _clothe(paint: Paint, pixels: Pixels, fabric: Tensor, fine: Tensor, rng: Rng) -> None:
    """Paint clothes up to a collar of random height and neckline."""
    one = (len(fabric), 1, 1, 1)
    x, y = pixels.rest[:, :1].abs(), pixels.rest[:, 1:2]
    collar = -1.75 + rng.uniform(*one, low=-0.45, high=0.2) + 0.25 * step(x, 0.2, 1.0) * rng.uniform(*one)
    neckline = rng.chance(0.4, *one) * rng.uniform(*one, high=1.2) * (pixels.rest[:, 2:] > -0.95)
    collar = collar - neckline * step(x, 0.7, 0.0)
    share = (step(y, collar, collar - 0.03) * pixels.skin).clamp(0, 1)
    folds = torch.sin(pixels.rest[:, :1] * 9 + y * 6 * rng.normal(*one) + 2 * fine[:, 1:] * 0.3)
    rim = bell(y, collar, 0.05)
    paint.coat(share, fabric * (1 - 0.3 * rim), gloss=0.15)
    paint.flatten(share)
    paint.raise_by(share * 0.03 * (folds + 1.5))


def _cover(paint: Paint, pixels: Pixels, scene: Scene, fabric: Tensor, fine: Tensor, rng: Rng) -> None:
    """Cover some faces with a mask, a scarf, a headscarf, or a veil that leaves the eyes free."""
    flag = rng.chance(COVERED, len(fabric)).float()
    index = flagged_indices(flag, COVERED, rng)
    part = pixels.of(index)
    painted = paint.of(index)
    _wind(painted, part, scene.rotation[index], fabric[index], fine[index], flag[index].view(-1, 1, 1, 1), rng)
    paint.put(index, painted)


def _wind(paint: Paint, pixels: Pixels, rotation: Tensor, fabric: Tensor, fine: Tensor, flag: Tensor, rng: Rng) -> None:
    """Paint a covering on heads with a flag (n, 1, 1, 1) of 1."""
    one = (len(fabric), 1, 1, 1)
    kind = rng.uniform(*one)
    regions = _regions(pixels, fine, rng)
    share = torch.zeros_like(regions[0])
    for region, low, high in zip(regions, (0.0, 0.4, 0.55, 0.92), (0.4, 0.55, 0.92, 1.0), strict=True):
        share = share + region * ((kind >= low) & (kind < high)) * flag
    below = (pixels.group == Group.TONGUE) | (pixels.group == Group.UPPER_TEETH) | (pixels.group == Group.LOWER_TEETH)
    share = share * (pixels.skin | below | (pixels.group == Extra.HAT))
    medical = between(rng, (0.55, 0.75, 0.85), (0.97, 0.97, 0.97), len(fabric))
    medical = torch.where(rng.chance(0.25, *one), planes((0.07, 0.07, 0.08), fabric.device), medical)
    is_mask = kind < 0.4
    colour = torch.where(is_mask, medical * (1 + 0.02 * fine[:, :1]), fabric)
    # Cloth spans the hollows of a face: its shape is an egg.
    egg = F.normalize(pixels.rest * planes((1.0, 0.55, 1.0), share.device) + planes((0, 0.3, 0.5), share.device), dim=1)
    egg = torch.einsum("bij,bjhw->bihw", rotation, egg)
    paint.coat(share, colour, gloss=0.15)
    paint.wrap(share * 0.75, egg)
    pleats = torch.sin(pixels.rest[:, 1:2] * 38) * is_mask * 0.006
    folds = torch.sin((pixels.rest[:, 1:2] + 0.4 * pixels.rest[:, :1].abs()) * 11 + fine[:, 1:] * 0.5) * ~is_mask * 0.02
    paint.raise_by(share * (0.03 + pleats + folds))


def _regions(pixels: Pixels, fine: Tensor, rng: Rng) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the coverage of a mask, a scarf, a headscarf and a veil, (B, 1, H, W) each."""
    one = (len(fine), 1, 1, 1)
    x, y, z = pixels.rest[:, :1].abs(), pixels.rest[:, 1:2], pixels.rest[:, 2:]
    top = torch.where(rng.chance(0.15, *one), -0.4, rng.uniform(*one, low=-0.12, high=0.14))
    upper = top - 0.3 * x.square()
    lower = rng.uniform(*one, low=-1.4, high=-1.2) + 0.5 * x.square()
    cup = step(y, upper + 0.02, upper - 0.02) * step(y, lower - 0.03, lower + 0.03) * step(x, 1.02, 0.9) * (z > -0.5)
    loops = (bell(y, upper + 0.1, 0.035) + bell(y, lower + 0.25 + 0.9 * (x - 0.8), 0.035)).clamp(0, 1)
    mask = torch.maximum(cup, loops * step(x, 0.85, 0.9) * (pixels.share(Attribute.EAR) < 0.3))
    edge = rng.uniform(*one, low=-1.05, high=-0.2) + 0.05 * fine[:, 1:] - 0.1 * x
    scarf = step(y, edge + 0.03, edge - 0.03)
    wide, high = rng.uniform(*one, low=0.78, high=0.98), rng.uniform(*one, low=1.0, high=1.3)
    oval = (x / wide).square() + ((y + 0.12) / high).square() + step(z, 0.0, -0.4)
    headscarf = step(oval, 0.95, 1.05)
    slit = rng.uniform(*one, low=0.16, high=0.3)
    veil = torch.maximum(headscarf, step((y - 0.34).abs(), slit, slit + 0.05))
    return mask, scarf, headscarf, veil
