"""Skin: tone, redness, freckles, wrinkles, lips, make-up. Coordinates are those of the mean head."""

from __future__ import annotations

import torch
from torch import Tensor

from ls3dw.synth.rng import Rng
from ls3dw.synth.scene.scene import Attribute
from ls3dw.synth.shade.noise import sinusoid_noise
from ls3dw.synth.shade.paint import Paint
from ls3dw.synth.shade.palette import LIPSTICK, Looks, pick
from ls3dw.synth.shade.pixels import Pixels
from ls3dw.synth.shade.tensors import bell, mix, planes, step

RED = (1.08, 0.83, 0.8)
"""Factor on the colour of skin with much blood."""


def paint_skin(pixels: Pixels, looks: Looks, rng: Rng) -> tuple[Paint, Tensor]:
    """Start the paint with skin everywhere; also return fine noise (B, 2, H, W) for other parts."""
    count = len(pixels.rest)
    one = (count, 1, 1, 1)
    coarse = sinusoid_noise(pixels.rest, rng, 0.8, 5, waves=8, channels=3)
    fine = sinusoid_noise(pixels.rest, rng, 6, 60, waves=14, channels=2)
    mottling = 1 + 0.035 * rng.uniform(*one) * coarse + 0.05 * rng.uniform(*one) * fine[:, :1]
    redness = _redness(pixels) * rng.uniform(*one, high=0.7) + 0.15 * rng.uniform(*one) * coarse[:, :1]
    colour = looks.skin * mottling * mix(torch.ones(1, device=fine.device), _red(fine.device), redness.clamp(0, 1))
    spots = sinusoid_noise(pixels.rest, rng, 30, 120, waves=16) + 0.5 * coarse[:, 2:]
    amount = torch.where(rng.chance(0.1, *one), rng.uniform(*one), looks.age * 0.3 * rng.uniform(*one))
    colour = colour * (1 - 0.22 * amount * step(spots, 1.2, 2.2))
    pores = 0.002 * fine[:, 1:] * rng.uniform(*one)
    paint = Paint(colour, pores, pixels.normal, torch.ones_like(spots))
    _wrinkle(paint, pixels, looks, coarse, rng)
    _make_up(paint, pixels, looks, rng)
    _paint_lips(paint, pixels, looks, fine, rng)
    return paint, fine


def _red(device: torch.device) -> Tensor:
    return planes(RED, device)


def _redness(pixels: Pixels) -> Tensor:
    """Return the redness of cheeks, nose and ears."""
    x, y, z = pixels.rest.abs()[:, :1], pixels.rest[:, 1:2], pixels.rest[:, 2:]
    cheeks = bell(x, 0.55, 0.3) * bell(y, -0.15, 0.3)
    nose = bell(x, 0.0, 0.22) * bell(y, -0.22, 0.2)
    return (cheeks + 0.8 * nose) * step(z, -0.5, 0.2) + 0.9 * pixels.share(Attribute.EAR)


def _wrinkle(paint: Paint, pixels: Pixels, looks: Looks, coarse: Tensor, rng: Rng) -> None:
    """Add lines of the forehead, frown, crow's feet, bags under the eyes and nasolabial folds."""
    count = len(pixels.rest)
    one = (count, 1, 1, 1)
    side, y, z = pixels.rest[:, :1], pixels.rest[:, 1:2], pixels.rest[:, 2:]
    x = side.abs()
    strength = looks.age * rng.uniform(*one, low=0.3, high=1.2)
    wave = torch.sin((y + 0.05 * coarse[:, 1:2] - 0.12 * x) * rng.uniform(*one, low=35, high=65))
    forehead = wave.pow(3) * step(y, 0.68, 0.82) * step(y, 1.25, 1.0) * step(x, 0.65, 0.35) * (z > 0)
    frown = -bell(x, 0.09, 0.025) * step(y, 0.42, 0.5) * step(y, 0.75, 0.6) * (z > 0)
    angle = torch.atan2(y - 0.31, x - 0.5)
    crow = torch.sin(angle * 16 + coarse[:, 2:]).pow(3) * step(x, 0.66, 0.74) * step(x, 0.98, 0.85)
    crow = crow * step((y - 0.3).abs(), 0.2, 0.1)
    # Each fold is a valley along a curve x(y) or y(x).
    cheek_edge = 0.2 + 0.2 * ((-0.22 - y) / 0.45).clamp(0, 1.3) + 0.03 * rng.normal(*one)
    nasolabial = -bell(x, cheek_edge, 0.045) * step(y, -0.2, -0.3) * step(y, -0.95, -0.75) * (z > 0)
    lower_lid = 0.13 - 0.35 * (x - 0.45).square() - 0.05 * rng.uniform(*one)
    bag = -bell(y, lower_lid, 0.04) * bell(x, 0.42, 0.26) * (z > 0)
    always = 0.25 + 0.75 * strength
    relief = 0.010 * strength * (forehead + 0.6 * crow) + 0.012 * strength * frown
    relief = relief + 0.03 * always * rng.uniform(*one) * nasolabial + 0.018 * always * rng.uniform(*one) * bag
    paint.raise_by(relief * pixels.skin)
    paint.colour = paint.colour * (1 + 6 * relief.clamp(-0.05, 0.0))
    under_eye = bell(y, lower_lid + 0.04, 0.07) * bell(x, 0.4, 0.22) * step(z, -0.2, 0.2)
    paint.colour = paint.colour * (1 - under_eye * 0.3 * rng.uniform(*one).square() * planes((0.6, 1.0, 0.8), x.device))


def _make_up(paint: Paint, pixels: Pixels, looks: Looks, rng: Rng) -> None:
    """Paint eyelids and make-up around the eyes; lids are a little darker than the skin."""
    count = len(pixels.rest)
    one = (count, 1, 1, 1)
    x, y, z = pixels.rest.abs()[:, :1], pixels.rest[:, 1:2], pixels.rest[:, 2:]
    lid = step(pixels.share(Attribute.LID), 0.2, 0.8)
    paint.colour = paint.colour * (1 - lid * 0.3 * rng.uniform(*one).square())
    around = bell(x, 0.45, 0.24) * bell(y, 0.43, 0.09) * step(z, -0.2, 0.2)
    shade = rng.uniform(count, 3, 1, 1) * rng.uniform(*one, low=0.2, high=0.8)
    paint.coat(torch.maximum(around, lid) * (looks.made_up * rng.uniform(*one).square() * 0.75), shade)
    liner = lid * looks.made_up * rng.chance(0.6, *one) * rng.uniform(*one)
    paint.coat(liner * 0.8, planes((0.06, 0.04, 0.04), x.device))


def _paint_lips(paint: Paint, pixels: Pixels, looks: Looks, fine: Tensor, rng: Rng) -> None:
    count = len(pixels.rest)
    one = (count, 1, 1, 1)
    natural = looks.skin * planes((0.93, 0.66, 0.66), fine.device) * rng.uniform(*one, low=0.78, high=1.08)
    natural = mix(natural, looks.skin, 0.5 * rng.uniform(*one).square())
    stick = pick(rng, LIPSTICK, count) * rng.uniform(*one, low=0.8, high=1.15)
    worn = looks.made_up & rng.chance(0.5, *one)
    colour = torch.where(worn, stick, natural) * (1 + 0.06 * fine[:, :1])
    share = step(pixels.share(Attribute.LIP), 0.25, 0.6) * rng.uniform(*one, low=0.5, high=1.0)
    paint.coat(share, colour)
    shiny = torch.where(worn & rng.chance(0.5, *one), 2.5, 1.2)
    paint.gloss = mix(paint.gloss, shiny.expand_as(paint.gloss), share)
