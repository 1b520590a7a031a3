"""Hats: shells around the scalp, with or without a brim.

A table of rays from the middle of the skull to the head's triangles gives the scalp, so a hat fits a head of any shape
and hair.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from ls3dw.synth.head.landmarks import places
from ls3dw.synth.head.model import Group, Head
from ls3dw.synth.head.shape import SKULL
from ls3dw.synth.rng import Rng
from ls3dw.synth.scene.mesh import MeshPart, grid_triangles
from ls3dw.synth.scene.scene import Extra, HatKind
from ls3dw.synth.shade.tensors import constant, step

TOP: Final = (0.0, 0.92, -0.39)
"""Direction of a hat's top from the middle of the skull: the pole of polar angles, the axis of azimuths."""

COLUMNS: Final = 32
"""Azimuths; the first is in front."""

_POLAR_STEP = math.radians(7.5)
_POLAR_COUNT = 21
_RINGS = 11
_BRIM = 3
_RAYS_AT_ONCE = 64


@dataclass(frozen=True)
class HatShape:
    """Parameters (B, 1) of hats, in head units and radians; each kind uses some of them."""

    kind: Tensor
    """(B,) `HatKind`."""

    front: Tensor
    """Polar angle of the edge in front; `back`: behind."""
    back: Tensor
    side: Tensor
    """Rise of the edge at the ears."""
    gap: Tensor
    """Between the scalp and the hat."""
    bulge: Tensor
    """Extra height of the top."""
    brim: Tensor
    tilt: Tensor
    """Slope of the brim, downward."""
    backwards: Tensor
    """1 where a cap's brim is in front, -1 where it is behind."""


def draw_hats(worn: Tensor, rng: Rng) -> HatShape:
    """Draw hats; worn: (B,) bool, heads that wear one."""
    count = len(worn)

    def uniform(low: float, high: float) -> Tensor:
        return rng.uniform(count, 1, low=low, high=high)

    kind = torch.where(worn, 1 + rng.integers(len(HatKind) - 1, count), HatKind.NONE)
    beanie, hood = (kind == HatKind.BEANIE)[:, None], (kind == HatKind.HOOD)[:, None]
    degree = math.pi / 180
    return HatShape(
        kind=kind,
        front=torch.where(hood, uniform(50, 78), uniform(70, 92)) * degree,
        back=torch.where(hood, uniform(135, 150), uniform(88, 112)) * degree,
        side=torch.where(beanie, uniform(-14, 14), uniform(-2, 14)) * degree * ~hood,
        gap=torch.where(hood, uniform(0.1, 0.3), uniform(0.05, 0.1)),
        bulge=torch.where(beanie, uniform(0, 0.6) * uniform(0, 1), uniform(0.05, 0.3)),
        brim=torch.where((kind == HatKind.CAP)[:, None], uniform(0.5, 1.0), uniform(0.25, 0.9)),
        tilt=uniform(-0.1, 0.5),
        backwards=torch.where(rng.chance(0.15, count, 1), -1.0, 1.0),
    )


def hat_part() -> MeshPart:
    """Return the triangles of a hat: rings from the edge up, top, brim; vertices in the order of `Hatter.place`."""
    rings = grid_triangles(_RINGS, COLUMNS, closed=True)
    last = (_RINGS - 1) * COLUMNS + torch.arange(COLUMNS)
    top = torch.stack((last, last.roll(-1), torch.full_like(last, _RINGS * COLUMNS)), dim=1)
    brim = _RINGS * COLUMNS + 1 + grid_triangles(_BRIM, COLUMNS, closed=True)
    triangles = torch.cat((rings, top, brim))
    return MeshPart((_RINGS + _BRIM) * COLUMNS + 1, triangles, torch.full((len(triangles),), Extra.HAT))


class Hatter:
    """Puts hats on the heads of one model."""

    def __init__(self, head: Head) -> None:
        device = head.mean.device
        self._azimuth = torch.arange(COLUMNS, device=device) * (2 * math.pi / COLUMNS)
        polar = torch.arange(_POLAR_COUNT, device=device) * _POLAR_STEP
        self._rays = directions(self._azimuth[:, None], polar[None])
        self._corners, self._weights = _cast(head, self._rays.flatten(0, 1))

    def place(self, vertices: Tensor, shape: HatShape) -> Tensor:
        """Fit hats to heads (B, V, 3) of the head frame: (B, N, 3)."""
        scalp = places(vertices, self._corners, self._weights).view(len(vertices), COLUMNS, _POLAR_COUNT, 3)
        edge = edge_angle(shape, self._azimuth)
        # Two rings at the edge, one on the skin, close the gap between hat and head.
        shares = constant((0.0, *(index / (_RINGS - 1) for index in range(_RINGS - 1))), vertices.device)
        polar = edge[:, None] * (1 - shares[:, None])
        surface = _along(_smooth(scalp), polar)
        top = scalp[:, :, 0].mean(1)
        out = directions(self._azimuth, polar)
        rows = torch.arange(_RINGS, device=vertices.device)
        lift = shape.gap[..., None] * (rows > 0)[:, None] + self._bulge(shape, shares)
        rings = (surface + out * lift[..., None]).flatten(1, 2)
        peak = top + (shape.gap + shape.bulge) * constant(TOP, vertices.device)
        return torch.cat((rings, peak[:, None], self._brim(rings[:, COLUMNS : 2 * COLUMNS], shape)), dim=1)

    @staticmethod
    def _bulge(shape: HatShape, shares: Tensor) -> Tensor:
        """Return how far each ring stands out beyond the edge: (B, rings, 1)."""
        fold = (shape.kind == HatKind.BEANIE)[:, None] * 0.05 * (1 - step(shares, 0.12, 0.25))
        return (shape.bulge * step(shares, 0.1, 1.0).sqrt() + fold * (shares > 0))[..., None]

    def _brim(self, edge: Tensor, shape: HatShape) -> Tensor:
        """Return rings (B, `_BRIM` * columns, 3) from the hat's edge (B, columns, 3) outward."""
        x, z = self._azimuth.sin(), self._azimuth.cos()
        facing = (z * shape.backwards).clamp(min=0)
        visor = (1 - (1 - facing.square()) / 0.72).clamp(min=0).sqrt()
        around = (shape.kind == HatKind.BRIM)[:, None]
        length = shape.brim * torch.where(around, torch.ones_like(visor), visor)
        length = length * (around | (shape.kind == HatKind.CAP)[:, None])
        ahead = torch.stack(
            (torch.zeros_like(length), -shape.tilt.expand_as(length), shape.backwards.expand_as(length)), 2
        )
        outward = torch.stack((x.expand_as(length), -shape.tilt.expand_as(length), z.expand_as(length)), dim=2)
        course = torch.where(around[..., None], outward, ahead) * length[..., None]
        steps = torch.linspace(0, 1, _BRIM, device=edge.device)
        return (edge[:, None] + course[:, None] * steps[:, None, None]).flatten(1, 2)

    def covered(self, rest: Tensor, shape: HatShape) -> Tensor:
        """Return how far places (B, P, 3) on the mean head lie above the hat's edge: (B, P) radians; -inf without."""
        arms = rest - constant(SKULL, rest.device)
        forward = constant(_FORWARD, rest.device)
        up = (arms @ constant(TOP, rest.device)) / arms.norm(dim=-1).clamp(min=1e-6)
        azimuth = torch.atan2(arms[..., 0], arms @ forward)
        above = edge_angle(shape, azimuth) - torch.acos(up.clamp(-1, 1))
        return torch.where((shape.kind > 0)[:, None], above, -torch.inf)


_FORWARD: Final = (0.0, -TOP[2], TOP[1])


def directions(azimuth: Tensor, polar: Tensor) -> Tensor:
    """Return unit vectors (..., 3). azimuth: from the front to the subject's left; polar: from the top down."""
    top, forward = constant(TOP, polar.device), constant(_FORWARD, polar.device)
    left = constant((1.0, 0.0, 0.0), polar.device)
    around = azimuth.cos()[..., None] * forward + azimuth.sin()[..., None] * left
    return polar.cos()[..., None] * top + polar.sin()[..., None] * around


def edge_angle(shape: HatShape, azimuth: Tensor) -> Tensor:
    """Return the polar angle of the hat's edge (B, A) at azimuths (A,) or (B, A)."""
    behind = (1 - azimuth.cos()) / 2
    # A hood opens in front of the face only; other edges are tilted circles.
    hood = (shape.kind == HatKind.HOOD)[:, None]
    behind = torch.where(hood, step(behind, 0.08, 0.5), behind)
    return shape.front + (shape.back - shape.front) * behind - shape.side * azimuth.sin().square()


def _smooth(scalp: Tensor) -> Tensor:
    """Average places (B, columns, polar, 3) with their neighbours around the head, to remove bumps over ears."""
    return (scalp.roll(1, 1) + 2 * scalp + scalp.roll(-1, 1)) / 4


def _along(scalp: Tensor, polar: Tensor) -> Tensor:
    """Interpolate the table (B, columns, polar, 3) at angles (B, rings, columns): (B, rings, columns, 3)."""
    place = (polar / _POLAR_STEP).clamp(0, _POLAR_COUNT - 1 - 1e-4)
    first = place.floor()
    share = (place - first)[..., None]
    index = first.long().transpose(1, 2)[..., None].expand(-1, -1, -1, 3)
    low, high = scalp.gather(2, index).transpose(1, 2), scalp.gather(2, index + 1).transpose(1, 2)
    return low + (high - low) * share


def _cast(head: Head, rays: Tensor) -> tuple[Tensor, Tensor]:
    """Find where rays (R, 3) from the middle of the skull leave the mean head: corners and weights (R, 3).

    Raises `ValueError` if a ray hits nothing, as the head model then has a hole.
    """
    triangles = head.triangles[head.triangle_group == Group.SKIN]
    corners = head.mean[triangles] - constant(SKULL, rays.device)
    found, weights = [], []
    for some in torch.split(rays, _RAYS_AT_ONCE):
        # Solve ray * distance = sum of weights * corners, up to scale, by volumes.
        a, b, c = corners.unbind(1)
        volumes = torch.stack(
            (some @ torch.linalg.cross(b, c).T, some @ torch.linalg.cross(c, a).T, some @ torch.linalg.cross(a, b).T),
            dim=-1,
        )
        total = volumes.sum(-1, keepdim=True)
        shares = volumes / torch.where(total.abs() < 1e-12, 1e-12, total)
        distance = (shares[..., None] * corners).sum(-2)
        reach = (distance * some[:, None]).sum(-1)
        best, number = torch.where((shares >= -1e-5).all(-1), reach, -torch.inf).max(1)
        if not bool((best > 0).all()):
            raise ValueError("the head's skin has a hole: a ray from the middle of the skull meets none of it")
        found.append(triangles[number])
        weights.append(shares[torch.arange(len(some), device=rays.device), number])
    return torch.cat(found), torch.cat(weights)
