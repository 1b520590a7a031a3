"""Shading of a scene: all layers from back to front, under one light and exposure."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ls3dw.synth.head.model import Head
from ls3dw.synth.rng import Rng
from ls3dw.synth.scene.hair import long_hair, tinted
from ls3dw.synth.scene.locks import Locks
from ls3dw.synth.scene.props import Prop, draw_hand, draw_held, draw_long_beard
from ls3dw.synth.scene.scene import Scene
from ls3dw.synth.shade.background import backgrounds
from ls3dw.synth.shade.light import (
    Lights,
    cast_shadows,
    develop,
    draw_lights,
    expose,
    irradiance,
    reflection,
    to_linear,
)
from ls3dw.synth.shade.paint import Paint, bumped
from ls3dw.synth.shade.palette import Looks, draw_looks
from ls3dw.synth.shade.parts import catch_lights, openness
from ls3dw.synth.shade.pixels import Pixels, look, vertex_normals
from ls3dw.synth.shade.surface import paint_surface
from ls3dw.synth.shade.tensors import flagged_indices, mix

BESIDE = 0.25
"""Share of pictures with another person beside the head."""


def shade(scene: Scene, head: Head, bank: Tensor, rng: Rng) -> Tensor:
    """Shade a scene: pictures (B, 3, S, S) float32 in [0, 1], sRGB values.

    bank: (N, 3, side, side) uint8 pictures for backgrounds, clothes and reflections (`make_bank`)
    """
    count, side = len(scene.screen), scene.size
    normals = vertex_normals(scene)
    pixels = look(scene, scene.opaque, normals)
    looks, lights = draw_looks(rng, count), draw_lights(rng, count)
    paint, full_beard = paint_surface(pixels, scene, head, looks, bank, rng)
    light = _lit(pixels, paint, lights, scene, rng)
    gain = expose(light, pixels.seen * (pixels.rest[:, 1:2] > -1.4), rng)
    seen = pixels.seen.float()
    scenery = backgrounds(bank, rng, count, side)
    image = mix(scenery, develop(light * gain), seen)
    image = _lay_lenses(image, scene, scenery, rng)
    hair, share = long_hair(scene, normals, pixels.depth, looks, lights, rng)
    image = mix(_shaded_by(image, share, rng), develop(hair * gain), share)
    image = _neighbours(image, torch.maximum(seen, share), rng)
    points = (scene.screen[:, head.point_vertices] * head.point_weights[..., None]).sum(2)
    beard = draw_long_beard(points, scene.scale, pixels.depth, full_beard, looks.beard, rng)
    across = _coloured(scene.locks, looks, rng)
    hand = draw_hand(points, scene.scale, looks.skin, side, rng)
    held = draw_held(points, scene.scale, side, rng)
    for prop in (beard, across, held, hand):
        image = _add(image, prop, lights, gain, rng)
    return image.clamp(0, 1)


def _lit(pixels: Pixels, paint: Paint, lights: Lights, scene: Scene, rng: Rng) -> Tensor:
    """Return the light from every opaque pixel."""
    count = len(pixels.rest)
    normal = bumped(paint.normal, paint.relief, scene.scale)
    open_ = openness(pixels) ** rng.uniform(count, 1, 1, 1, low=0.6, high=1.4)
    lit = cast_shadows(scene, pixels.place, lights)
    light = to_linear(paint.colour) * irradiance(lights, normal, open_, lit)
    light = light + reflection(lights, normal, lit) * paint.gloss * open_
    return light + catch_lights(pixels, lights.lamp, rng)


def _lay_lenses(image: Tensor, scene: Scene, scenery: Tensor, rng: Rng) -> Tensor:
    """Lay lenses over the picture: clear, tinted, or dark with reflections."""
    count, _, side, _ = image.shape
    one = (count, 1, 1, 1)
    near = ((scene.lens.triangle >= 0) & (scene.lens.depth > scene.opaque.depth))[:, None].float()
    dark = rng.chance(0.3, *one)
    y = torch.linspace(0, 1, side, device=image.device)[:, None]
    fade = 1 - rng.chance(0.3, *one) * rng.uniform(*one) * y
    clear = rng.uniform(*one, high=0.25) * rng.chance(0.6, *one)
    share = torch.where(dark, rng.uniform(*one, low=0.7, high=1.0) * fade, clear) * near
    tint = torch.where(dark, rng.uniform(count, 3, 1, 1) * 0.2, rng.uniform(count, 3, 1, 1, low=0.6, high=1.0))
    strength = rng.uniform(*one) * torch.where(dark, 0.4, 0.2 * rng.chance(0.3, *one))
    # The scene behind the camera is unknown: reflect another picture's background.
    return mix(image, tint, share).addcmul_(scenery.roll(1, 0), strength * near)


def _shaded_by(image: Tensor, share: Tensor, rng: Rng) -> Tensor:
    """Darken the picture close behind a layer, where little light reaches."""
    side = image.shape[-1]
    coarse = F.avg_pool2d(F.pad(share, (0, 0, 4, 0)), 8, 8, ceil_mode=True)
    soft = F.interpolate(coarse, size=(side, side), mode="bilinear", align_corners=False)
    return image * (1 - rng.uniform(len(image), 1, 1, 1, low=0.1, high=0.55) * soft)


def _neighbours(image: Tensor, front: Tensor, rng: Rng) -> Tensor:
    """Put the next picture's head behind some heads, as another person beside them."""
    flag = rng.chance(BESIDE, len(image)).float()
    index = flagged_indices(flag, BESIDE, rng)
    count = len(index)
    zoom = rng.uniform(count, low=0.8, high=1.4)
    beside = (1 - 2 * rng.chance(0.5, count).float()) * rng.uniform(count, low=0.75, high=1.5)
    zero = torch.zeros_like(zoom)
    row, column = torch.stack((zoom, zero, beside), 1), torch.stack((zero, zoom, 0.25 * rng.normal(count)), 1)
    grid = F.affine_grid(torch.stack((row, column), 1), [count, *image.shape[1:]], align_corners=False)
    beyond = (index + 1) % len(image)
    persons = torch.cat((image[beyond] * front[beyond], front[beyond]), 1)
    persons = F.grid_sample(persons, grid, align_corners=False)
    other, share = persons[:, :3], persons[:, 3:]
    there = flag[index].view(-1, 1, 1, 1)
    behind = image[index] * (1 - share * there) + other * there
    return image.index_copy(0, index, mix(behind, image[index], front[index]))


def _coloured(locks: Locks, looks: Looks, rng: Rng) -> Prop:
    """Give locks across the face the head's hair colour."""
    one = (len(locks.index), 1, 1, 1)
    colour = looks.hair[locks.index] * rng.uniform(*one, low=0.85, high=1.1)
    colour = tinted(colour, locks.streaks, rng.uniform(*one, low=0.1, high=0.3))
    return Prop(locks.index, locks.normal, locks.share, colour, gloss=0.15)


def _add(image: Tensor, prop: Prop, lights: Lights, gain: Tensor, rng: Rng) -> Tensor:
    """Light a prop as the face, and lay it over its pictures."""
    mine = lights.of(prop.index)
    open_ = 0.45 + 0.55 * prop.normal[:, 2:]
    light = to_linear(prop.colour) * irradiance(mine, prop.normal, open_, open_)
    light = light + prop.gloss * reflection(mine, prop.normal, open_)
    behind = _shaded_by(image[prop.index], prop.share, rng)
    return image.index_copy(0, prop.index, mix(behind, develop(light * gain[prop.index]), prop.share))
