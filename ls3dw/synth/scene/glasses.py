"""Glasses: rims, lenses, bridge and temples, fitted to eyes and ears."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from ls3dw.synth.rng import Rng
from ls3dw.synth.scene.mesh import MeshPart, grid_triangles
from ls3dw.synth.scene.scene import Extra
from ls3dw.synth.shade.tensors import constant

SEGMENTS: Final = 24
"""Corners of each rim."""

_RINGS = 3
_BRIDGE, _TEMPLE = 4, 6
_WRAP = 0.42
"""Curvature of frames toward the temples: depth in head units per square head unit beyond `_FLAT`."""
_FLAT = 0.25


@dataclass(frozen=True)
class GlassesShape:
    """Parameters (B, 1) of glasses, in head units."""

    half_width: Tensor
    half_height: Tensor
    thickness: Tensor
    squareness: Tensor
    """Exponent of the superellipse: 1 an ellipse, 0 a rectangle."""
    distance: Tensor
    """From the root of the nose to the plane of the lenses."""
    drop: Tensor
    apart: Tensor


def draw_glasses(count: int, rng: Rng) -> GlassesShape:
    """Draw shapes of glasses, from wire frames to thick ones."""
    half_width = rng.uniform(count, 1, low=0.26, high=0.42)
    return GlassesShape(
        half_width=half_width,
        half_height=half_width * rng.uniform(count, 1, low=0.5, high=1.0),
        thickness=rng.uniform(count, 1, low=0.02, high=0.09) * rng.uniform(count, 1, low=0.3) + 0.008,
        squareness=rng.uniform(count, 1, low=0.45, high=1.0),
        distance=rng.uniform(count, 1, low=0.04, high=0.16),
        drop=rng.normal(count, 1) * 0.04 - 0.03,
        apart=rng.uniform(count, 1, low=0.95, high=1.05),
    )


def glasses_part() -> MeshPart:
    """Return the triangles of glasses; vertices in the order of `place_glasses`."""
    lens, frame = [], []
    for side in range(2):
        base = side * (_RINGS * SEGMENTS + 1)
        frame.append(base + grid_triangles(_RINGS, SEGMENTS, closed=True))
        ring = base + torch.arange(SEGMENTS)
        lens.append(torch.stack((ring, ring.roll(-1), torch.full_like(ring, base + _RINGS * SEGMENTS)), dim=1))
    strips = 2 * (_RINGS * SEGMENTS + 1)
    frame.append(strips + grid_triangles(2, _BRIDGE // 2))
    frame += [strips + _BRIDGE + side * _TEMPLE + grid_triangles(2, _TEMPLE // 2) for side in range(2)]
    triangles = torch.cat((*frame, *lens))
    group = torch.full((len(triangles),), Extra.GLASSES_FRAME)
    group[-2 * SEGMENTS :] = Extra.GLASSES_LENS
    return MeshPart(strips + _BRIDGE + 2 * _TEMPLE, triangles, group)


def place_glasses(points: Tensor, shape: GlassesShape) -> Tensor:
    """Fit glasses to heads with anatomical points (B, 68, 3): vertices (B, N, 3) of the head frame."""
    eyes = torch.stack((points[:, 36:42].mean(1), points[:, 42:48].mean(1)), dim=1)
    middle = eyes[..., 0] * shape.apart
    height = eyes[..., 1].mean(1, keepdim=True) + shape.drop
    front = points[:, 27, 2:] + shape.distance
    rims = _rims(middle, height, front, shape)
    strips = _bridge(middle, height, front, shape), _temples(points, middle, height, front, shape)
    return torch.cat((rims, *strips), dim=1)


def _bend(x: Tensor) -> Tensor:
    """Return the depth of the frame behind its front at x."""
    return _WRAP * (x.abs() - _FLAT).clamp(min=0).square()


def _rims(middle: Tensor, height: Tensor, front: Tensor, shape: GlassesShape) -> Tensor:
    """Return inner ring, outer ring, back of the outer ring, and middle of the lens, for both sides."""
    angle = torch.arange(SEGMENTS, device=middle.device) * (2 * math.pi / SEGMENTS)
    cos, sin = angle.cos(), angle.sin()
    across = cos.sign() * cos.abs() ** shape.squareness
    down = sin.sign() * sin.abs() ** shape.squareness
    grown = constant((0.0, 1.0, 1.0), middle.device)[None, :, None] * shape.thickness[..., None]
    back = constant((0.0, 0.0, 1.0), middle.device)[None, :, None] * (0.04 + shape.thickness[..., None])
    x = middle[:, :, None, None] + ((shape.half_width[..., None] + grown) * across[:, None])[:, None]
    y = (height[..., None] + (shape.half_height[..., None] + grown) * down[:, None])[:, None].expand_as(x)
    z = (front[..., None] - back)[:, None] - _bend(x)
    rings = torch.stack((x, y, z), dim=-1).flatten(2, 3)
    lens = torch.stack((middle, height.expand_as(middle), front - _bend(middle) - 0.01), dim=-1)
    return torch.cat((rings, lens[:, :, None]), dim=2).flatten(1, 2)


def _bridge(middle: Tensor, height: Tensor, front: Tensor, shape: GlassesShape) -> Tensor:
    x = torch.cat((middle[:, :1] + shape.half_width, middle[:, 1:] - shape.half_width), dim=1)
    y = height + 0.3 * shape.half_height
    upper = torch.stack((x, (y + 0.03).expand_as(x), (front + 0.02).expand_as(x)), dim=-1)
    return torch.cat((upper, upper - constant((0.0, 0.06, 0.0), x.device)), dim=1)


def _temples(points: Tensor, middle: Tensor, height: Tensor, front: Tensor, shape: GlassesShape) -> Tensor:
    """Return two strips from the hinges over the temples to the ears."""
    sign = constant((-1.0, 1.0), middle.device)
    hinge_x = middle + sign * (shape.half_width + shape.thickness)
    ears = points[:, (0, 16)]
    ear_x = ears[..., 0] + sign * 0.06
    y = (height + 0.3 * shape.half_height).expand_as(hinge_x)
    ear_y = ears[..., 1] + 0.22
    hinge_z = (front - _bend(hinge_x)).expand_as(hinge_x)
    # Sideways from the hinge first, to pass outside the head.
    x = torch.stack((hinge_x, hinge_x + 0.4 * (ear_x - hinge_x), ear_x), dim=2)
    y = torch.stack((y, y, ear_y), dim=2)
    z = torch.stack((hinge_z, hinge_z - 0.06, ears[..., 2] - 0.1), dim=2)
    upper = torch.stack((x, y, z), dim=-1)
    half = (0.03 + 0.24 * shape.thickness)[:, :, None] * constant((0.0, 1.0, 0.0), x.device)
    return torch.cat((upper + half[:, None], upper - half[:, None]), dim=2).flatten(1, 2)
