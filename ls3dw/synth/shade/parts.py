"""Parts that are not skin: eyes, lashes, mouth, teeth, frames of glasses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ls3dw.synth.head.model import Group
from ls3dw.synth.rng import Rng
from ls3dw.synth.scene.scene import Attribute, Extra
from ls3dw.synth.shade.paint import Paint
from ls3dw.synth.shade.palette import IRIS, Looks, between, pick
from ls3dw.synth.shade.pixels import Pixels
from ls3dw.synth.shade.tensors import mix, planes, step

EYE_CENTRE = (0.4312, 0.3364, 0.1538)
"""Centre of the left eyeball on the mean head; the right one is its mirror image."""


def paint_eyes(paint: Paint, pixels: Pixels, rng: Rng) -> None:
    """Paint white, iris and pupil around each eye's axis in the rest pose; the mesh turns with the gaze."""
    count = len(pixels.rest)
    one = (count, 1, 1, 1)
    eye = ((pixels.group == Group.LEFT_EYE) | (pixels.group == Group.RIGHT_EYE)).float()
    mirrored = torch.cat((pixels.rest[:, :1].abs(), pixels.rest[:, 1:]), 1)
    axis = F.normalize(mirrored - planes(EYE_CENTRE, eye.device), dim=1)
    angle = torch.acos(axis[:, 2:].clamp(-0.999, 0.999))
    size = rng.uniform(*one, low=0.4, high=0.5)
    pupil = size * rng.uniform(*one, low=0.3, high=0.55)
    iris = step(angle, size + 0.03, size - 0.03)
    white = between(rng, (0.66, 0.57, 0.54), (0.96, 0.94, 0.93), count)
    white = white * (1 - 0.25 * step(axis[:, :1].abs(), 0.3, 0.9) * planes((0.2, 1.0, 0.9), eye.device))
    spokes = torch.sin(torch.atan2(axis[:, 1:2], axis[:, :1]) * 14 + angle * 20)
    shade = (1 + 0.2 * spokes) * (1 - 0.55 * step(angle, size * 0.78, size)) * rng.uniform(*one, low=0.7, high=1.4)
    colour = mix(white, pick(rng, IRIS, count) * shade, iris)
    colour = mix(colour, planes((0.03, 0.03, 0.03), eye.device), step(angle, pupil + 0.05, pupil - 0.05))
    # The upper lid and its lashes shade the eyeball.
    colour = colour * (1 - 0.55 * step(axis[:, 1:2], 0.05, 0.55))
    paint.coat(eye, colour, gloss=1.2)
    paint.flatten(eye)


def catch_lights(pixels: Pixels, light: Tensor, rng: Rng) -> Tensor:
    """Return reflections of lamps and windows in the eyes (B, 1, H, W); light: (B, 3, 1, 1) direction of the lamp."""
    count = len(pixels.rest)
    one = (count, 1, 1, 1)
    eye = (pixels.group == Group.LEFT_EYE) | (pixels.group == Group.RIGHT_EYE)
    # Lamps behind the head have none; most others appear high in the iris.
    lamp = F.normalize(light + planes((0.0, 0.2, 1.0), light.device) + 0.15 * rng.normal(count, 3, 1, 1), dim=1)
    away = pixels.normal - lamp
    wide = rng.uniform(*one, low=0.06, high=0.13)
    lamp_shape = step(away.square().sum(1, keepdim=True).sqrt(), wide, wide * 0.7)
    window = step(away[:, :1].abs(), wide, 0.7 * wide) * step(away[:, 1:2].abs(), wide, 0.7 * wide)
    shape = torch.where(rng.chance(0.5, *one), lamp_shape, window)
    return shape * eye * rng.uniform(*one) * rng.chance(0.8, *one)


def paint_mouth(paint: Paint, pixels: Pixels, rng: Rng) -> None:
    """Paint the inside of the mouth, the tongue and the teeth."""
    count = len(pixels.rest)
    one = (count, 1, 1, 1)
    inside = step(pixels.share(Attribute.MOUTH), 0.4, 0.6) * pixels.skin
    paint.coat(inside, between(rng, (0.13, 0.04, 0.04), (0.5, 0.2, 0.18), count), gloss=1.0)
    tongue = (pixels.group == Group.TONGUE).float()
    paint.coat(tongue, between(rng, (0.55, 0.25, 0.25), (0.86, 0.5, 0.48), count), gloss=1.5)
    teeth = ((pixels.group == Group.UPPER_TEETH) | (pixels.group == Group.LOWER_TEETH)).float()
    gap = step(torch.cos(pixels.rest[:, :1] * rng.uniform(*one, low=36, high=46)), -0.97, -0.8)
    enamel = between(rng, (0.68, 0.6, 0.48), (0.97, 0.95, 0.91), count)
    # Back teeth are in the shade of the cheeks.
    enamel = enamel * (0.8 + 0.2 * gap) * (0.55 + 0.45 * step(pixels.rest[:, 2:], -0.1, 0.32))
    upper = pixels.group == Group.UPPER_TEETH
    root = torch.where(upper, step(pixels.rest[:, 1:2], -0.46, -0.41), step(pixels.rest[:, 1:2], -0.82, -0.88))
    gum = between(rng, (0.5, 0.22, 0.22), (0.85, 0.5, 0.48), count)
    paint.coat(teeth, mix(enamel, gum, root), gloss=1.5)
    paint.flatten(torch.maximum(teeth, tongue))


def paint_lashes(paint: Paint, pixels: Pixels, looks: Looks, rng: Rng) -> None:
    """Paint lashes: black and dense with make-up, else thin."""
    one = (len(pixels.rest), 1, 1, 1)
    lashes = (pixels.group == Group.LASHES).float()
    dark = planes((0.04, 0.03, 0.03), lashes.device)
    colour = torch.where(looks.made_up, dark, mix(dark, looks.brow * 0.6, rng.uniform(*one)))
    dense = torch.where(looks.made_up, rng.uniform(*one, low=0.4, high=1.0), rng.uniform(*one, low=0.1, high=0.6))
    hairs = 0.5 + 0.5 * torch.sin(pixels.rest[:, :1].abs() * 150)
    # Between them is lid or eye, which is unknown here: a shade of both.
    paint.coat(lashes, looks.skin * 0.55, gloss=0.3)
    paint.coat(lashes * (dense + (1 - dense) * 0.5 * hairs), colour, gloss=0.1)
    paint.flatten(lashes)


def paint_frames(paint: Paint, pixels: Pixels, rng: Rng) -> None:
    """Paint the frames of glasses: mostly dark, else metal or coloured."""
    count = len(pixels.rest)
    one = (count, 1, 1, 1)
    frame = (pixels.group == Extra.GLASSES_FRAME).float()
    colour = rng.uniform(count, 3, 1, 1) * rng.uniform(*one)
    metal = between(rng, (0.45, 0.4, 0.3), (0.85, 0.82, 0.75), count)
    colour = torch.where(rng.chance(0.25, *one), metal, colour)
    colour = torch.where(rng.chance(0.6, *one), rng.uniform(count, 3, 1, 1) * 0.15, colour)
    paint.coat(frame, colour, gloss=3.0)
    paint.flatten(frame)


def openness(pixels: Pixels) -> Tensor:
    """Return the share of ambient light (B, 1, H, W).

    The mesh's occlusion is that of a closed mouth, which would leave an open one black: it is raised there.
    """
    value = pixels.share(Attribute.OCCLUSION)
    floor = 0.45 * (pixels.share(Attribute.LIP) > 0.2) + 0.3 * (pixels.share(Attribute.MOUTH) > 0.2)
    value = torch.maximum(value, floor * pixels.skin)
    for group, level in ((Group.UPPER_TEETH, 0.8), (Group.LOWER_TEETH, 0.7), (Group.TONGUE, 0.55)):
        value = torch.where(pixels.group == group, level, value)
    eye = (pixels.group == Group.LEFT_EYE) | (pixels.group == Group.RIGHT_EYE)
    value = torch.where(eye, value * 1.3 + 0.25, value)
    return torch.where(pixels.group > Group.HAIR, 1.0, value).clamp(0, 1)
