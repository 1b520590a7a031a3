"""The light of each picture: a lamp with shadows, a fill light, ambient light, and exposure."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ls3dw.synth.head.model import Group
from ls3dw.synth.raster.rasterizer import rasterize
from ls3dw.synth.rng import Rng
from ls3dw.synth.scene.scene import Extra, Scene
from ls3dw.synth.shade.tensors import constant, mix, planes

GAMMA = 2.2
FILM = 1.4
"""Sensitivity of the film: light of 1 becomes 1 - exp(-1.4), three quarters of white."""

SHADOW_SIDE = 192
SHADOW_REACH = 2.8
"""Head units from the middle of the shadow map to its edge."""

SHADOW_BIAS = 0.11
"""Least distance of a caster in front of its shadow, in head units; hides the coarseness of the map."""

SUBSURFACE = (0.32, 0.16, 0.12)
"""How far light reaches around the shaded edge of skin, by channel; red goes deepest."""

SETUPS = (
    # odds, direction of the lamp (x, y, z), spread, range of its strength, range of ambient light
    (0.42, (0.0, 0.45, 0.9), 0.55, (0.5, 1.1), (0.3, 0.7)),  # a room, a studio
    (0.16, (0.9, 0.25, 0.25), 0.35, (0.7, 1.4), (0.08, 0.35)),  # from the side
    (0.12, (0.0, 1.0, 0.3), 0.3, (0.7, 1.4), (0.15, 0.5)),  # from above: the sun at noon
    (0.07, (0.3, 0.4, -0.8), 0.4, (0.8, 1.6), (0.25, 0.6)),  # from behind
    (0.1, (0.0, 0.1, 1.0), 0.08, (0.8, 1.4), (0.05, 0.3)),  # flash
    (0.13, (0.0, 0.8, 0.5), 0.6, (0.1, 0.5), (0.7, 1.0)),  # an overcast sky
)
"""Kinds of light; the odds sum to 1."""


@dataclass(frozen=True)
class Lights:
    """The lights of B pictures."""

    lamp: Tensor
    """(B, 3, 1, 1) unit vectors towards the lamp, view frame."""

    lamp_colour: Tensor
    """(B, 3, 1, 1)"""

    fill: Tensor
    fill_colour: Tensor
    around: Tensor
    """(B, 3, 1, 1) ambient light, mean over directions."""

    slope: Tensor
    """(B, 3, 1, 1) gradient of the ambient light over directions."""

    wrap: Tensor
    """(B, 1, 1, 1) size of the lamp: how far it lights beyond the terminator."""

    shadow: Tensor
    """(B, 1, 1, 1) darkness of cast shadows."""

    polish: Tensor
    """(B, 1, 1, 1) exponent of the lamp's reflection."""

    oil: Tensor
    """(B, 1, 1, 1) strength of that reflection."""

    def of(self, index: Tensor) -> Lights:
        """Return the lights of some of the pictures (n,)."""
        return Lights(**{entry.name: getattr(self, entry.name)[index] for entry in fields(self)})


def draw_lights(rng: Rng, count: int) -> Lights:
    """Draw one of `SETUPS` for each picture, and vary it."""
    one = (count, 1, 1, 1)
    device = rng.device
    table = constant(tuple((*aim, spread, *lamp, *around) for _, aim, spread, lamp, around in SETUPS), device)
    edges = constant(tuple(setup[0] for setup in SETUPS), device).cumsum(0)
    chosen = table[(rng.uniform(count, 1) > edges).sum(1).clamp(max=len(SETUPS) - 1)][:, :, None, None]
    aim = chosen[:, :3] * torch.cat(
        (1 - 2 * rng.chance(0.5, *one).float(), torch.ones(count, 2, 1, 1, device=device)), 1
    )
    lamp = F.normalize(aim + chosen[:, 3:4] * rng.normal(count, 3, 1, 1), dim=1)
    fill = F.normalize(rng.normal(count, 3, 1, 1) + planes((0.0, 0.2, 0.3), device), dim=1)
    warmth = planes((0.12, 0.0, -0.14), device)
    stage = torch.where(rng.chance(0.06, *one), 0.45, 0.0)

    def tint(most: float) -> Tensor:
        cast = 1 + most * warmth * rng.normal(*one) + (0.02 + stage * most) * rng.normal(count, 3, 1, 1)
        return cast.clamp(0.15, 1.8)

    def strength(first: int) -> Tensor:
        return mix(chosen[:, first : first + 1], chosen[:, first + 1 : first + 2], rng.uniform(*one))

    return Lights(
        lamp=lamp,
        lamp_colour=strength(4) * tint(1.0),
        fill=fill,
        fill_colour=rng.uniform(*one).square() * 0.5 * tint(1.5),
        around=strength(6) * tint(0.8),
        slope=planes((0.0, 0.3, 0.1), device) * rng.uniform(*one) + 0.15 * rng.normal(count, 3, 1, 1),
        wrap=rng.uniform(*one, high=0.3),
        shadow=rng.uniform(*one, low=0.35, high=0.97),
        polish=torch.exp(rng.uniform(*one, low=1.6, high=4.0)),
        oil=rng.uniform(*one).square() * 0.4,
    )


def cast_shadows(scene: Scene, place: Tensor, lights: Lights) -> Tensor:
    """Return the share of the lamp's light that reaches places (B, 3, H, W) in the view frame: (B, 1, H, W)."""
    lamp = lights.lamp.flatten(1)
    across = F.normalize(torch.linalg.cross(constant((0.0, 1.0, 0.01), lamp.device).expand_as(lamp), lamp), dim=1)
    basis = torch.stack((across, torch.linalg.cross(lamp, across), lamp), 1)
    middle = scene.rotation @ constant((0.0, 0.2, -0.3), lamp.device)
    scale = SHADOW_SIDE / 2 / SHADOW_REACH
    centre = constant(((SHADOW_SIDE - 1) / 2, (SHADOW_SIDE - 1) / 2, 0.0), lamp.device)
    seen = ((scene.posed - middle[:, None]) @ basis.transpose(1, 2)) * scale + centre
    depth = rasterize(seen, _casting(scene.triangles, scene.triangle_group), SHADOW_SIDE, SHADOW_SIDE).depth
    depth = depth.clamp(min=-1e4)[:, None]
    at = torch.einsum("bij,bjhw->bihw", basis, place - middle[:, :, None, None])
    grid = at[:, :2].permute(0, 2, 3, 1) / SHADOW_REACH
    hidden = torch.zeros_like(place[:, :1])
    texel = 2 / SHADOW_SIDE
    for x, y in ((0.0, 0.0), (1.3, 0.4), (-0.6, 1.2), (-0.7, -1.1)):
        shifted = grid + constant((x * texel, y * texel), grid.device)
        nearest = F.grid_sample(depth, shifted, mode="nearest", padding_mode="border", align_corners=False)
        hidden = hidden + (nearest > (at[:, 2:] + SHADOW_BIAS) * scale)
    return 1 - hidden / 4 * lights.shadow


@lru_cache(maxsize=4)
def _casting(triangles: Tensor, group: Tensor) -> Tensor:
    """Return the triangles that cast shadows: all but lenses and long hair, as the map knows nothing of its cut.

    Cached by the identity of the tensors, since this waits for the device.
    """
    return triangles[(group != Extra.GLASSES_LENS) & (group != Group.HAIR)]


def irradiance(lights: Lights, normal: Tensor, openness: Tensor, lit: Tensor) -> Tensor:
    """Return the light (B, 3, H, W) on surfaces.

    normal: (B, 3, H, W); openness, lit: (B, 1, H, W) shares of ambient light and of the lamp's light that arrive
    """
    facing, second, slope = _along(normal, lights.lamp, lights.fill, lights.slope)
    wrap = lights.wrap + planes(SUBSURFACE, normal.device)
    direct = torch.add(facing, wrap).clamp_(min=0).mul_((openness * 0.6).add_(0.4).mul_(lit))
    light = direct.mul_(lights.lamp_colour / (1 + wrap))
    light.addcmul_(second.clamp(min=0).mul_(openness), lights.fill_colour)
    return light.addcmul_((slope + 1).clamp_(min=0).mul_(openness), lights.around)


def _along(normal: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
    """Return the dot products of normals (B, 3, H, W) with vectors (B, 3, 1, 1): (B, 1, H, W) each."""
    products = torch.bmm(torch.stack([vector.flatten(1) for vector in vectors], 1), normal.flatten(2))
    return products.view(len(normal), len(vectors), *normal.shape[2:]).chunk(len(vectors), 1)


def reflection(lights: Lights, normal: Tensor, lit: Tensor) -> Tensor:
    """Return the lamp's reflection on a surface as glossy as skin, and the sheen at grazing angles: (B, 3, H, W)."""
    half = F.normalize(lights.lamp + planes((0.0, 0.0, 1.0), normal.device), dim=1)
    (towards,) = _along(normal, half)
    spot = towards.sub_(1).mul_(lights.polish).exp_().mul_(lit)
    sheen = (1 - normal[:, 2:]).clamp_(0, 1).pow_(4)
    return (spot * (lights.oil * lights.lamp_colour)).addcmul_(sheen, 0.35 * lights.oil * lights.around)


def to_linear(colour: Tensor) -> Tensor:
    """Convert sRGB values to linear light."""
    return colour.clamp(0, 1).pow_(GAMMA)


def expose(light: Tensor, weight: Tensor, rng: Rng) -> Tensor:
    """Return the gain (B, 1, 1, 1) of an imperfect automatic exposure.

    light: (B, 3, H, W); weight: (B, 1, H, W), the metered part of the picture
    """
    one = (len(light), 1, 1, 1)
    mean = (light.mean(1, keepdim=True).clamp_(0, 2) * weight).sum((2, 3), keepdim=True) / (
        weight.sum((2, 3), keepdim=True) + 1
    )
    wished = rng.uniform(*one, low=math.log(0.08), high=math.log(0.45)).exp()
    return ((wished / mean.clamp(min=1e-3)) ** rng.uniform(*one, low=0.5, high=1.0)).clamp(0.3, 6)


def develop(light: Tensor) -> Tensor:
    """Convert linear light to sRGB values as film does, without clipped whites."""
    return (light * -FILM).expm1_().neg_().clamp_(min=1e-5).pow_(1 / GAMMA)
