"""Glasses, hats and long hair, joined with the head to one mesh."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ls3dw.synth.head.brows import Brows
from ls3dw.synth.head.landmarks import anatomical_points
from ls3dw.synth.head.model import Group, Head
from ls3dw.synth.options import RenderOptions
from ls3dw.synth.rng import Rng, SplitRng
from ls3dw.synth.scene.glasses import GlassesShape, draw_glasses, glasses_part, place_glasses
from ls3dw.synth.scene.hats import HatShape, Hatter, draw_hats, hat_part
from ls3dw.synth.scene.mesh import MeshPart
from ls3dw.synth.scene.scene import Attribute, Extra, HatKind
from ls3dw.synth.shade.noise import sinusoid_noise
from ls3dw.synth.shade.tensors import constant

INSIDE = (0.0, 0.0, -0.6)
"""Place inside the head for all vertices of things that are not worn."""

_NONE = 3.0
"""A height above every head."""


@dataclass(frozen=True)
class HairCut:
    """Where long hair ends, (B, 1) in head units on the mean head."""

    worn: Tensor
    """(B,) bool."""
    fringe: Tensor
    part: Tensor
    """Slope of the fringe toward one side."""
    length: Tensor
    strands: Tensor
    """Distance from the middle of hair in front of the ears; very large without any."""
    forward: Tensor
    """How far forward that hair reaches."""


@dataclass(frozen=True)
class Outfit:
    """What B heads wear."""

    has_glasses: Tensor
    glasses: GlassesShape
    hat: HatShape
    hair: HairCut


def draw_outfit(count: int, rng: Rng, options: RenderOptions) -> Outfit:
    """Draw what is worn."""
    return Outfit(
        has_glasses=rng.chance(options.glasses_chance, count),
        glasses=draw_glasses(count, rng),
        hat=draw_hats(rng.chance(options.hat_chance, count), rng),
        hair=_draw_cut(count, rng, options),
    )


def _draw_cut(count: int, rng: Rng, options: RenderOptions) -> HairCut:
    fringe = rng.uniform(count, 1, low=0.5, high=1.1)
    strands = rng.uniform(count, 1, low=0.6, high=1.0)
    return HairCut(
        worn=rng.chance(options.long_hair_chance, count),
        fringe=torch.where(rng.chance(0.45, count, 1), fringe, _NONE),
        part=rng.uniform(count, 1, low=-0.5, high=0.5) * rng.chance(0.5, count, 1),
        length=rng.uniform(count, 1, low=-2.6, high=0.2),
        strands=torch.where(rng.chance(0.5, count, 1), strands, _NONE),
        forward=rng.uniform(count, 1, low=0.3, high=0.65),
    )


class Accessories:
    """The mesh of a head with everything it may wear; all heads have the same triangles."""

    def __init__(self, head: Head) -> None:
        device = head.mean.device
        self.head = head
        self._hatter = Hatter(head)
        parts = [glasses_part(), hat_part()]
        self.triangles, self.triangle_group, self.layers = _join(head, parts)
        worn = sum(part.vertices for part in parts)
        self.attributes = torch.cat((_attributes(head), _open(worn, device)))
        self._hair = head.vertex_group == Group.HAIR
        plain = RenderOptions(glasses_chance=1, hat_chance=1, long_hair_chance=0)
        # One pair of glasses and one hat on the mean head give the texture coordinates of all.
        pattern = draw_outfit(1, SplitRng(0, device), plain)
        self.rest = self._dress(head.mean[None], Brows.mean(1, device), pattern)[0]

    def dress(self, vertices: Tensor, brows: Brows, outfit: Outfit, rng: Rng) -> Tensor:
        """Add worn things to heads (B, V, 3) in the head frame: (B, V + worn, 3)."""
        return self._dress(self._hang(vertices, rng), brows, outfit)

    def _dress(self, vertices: Tensor, brows: Brows, outfit: Outfit) -> Tensor:
        points = anatomical_points(self.head, vertices, brows)
        glasses = place_glasses(points, outfit.glasses)
        hat = self._hatter.place(vertices, outfit.hat)
        inside = constant(INSIDE, vertices.device)
        worn = (glasses, outfit.has_glasses), (hat, outfit.hat.kind > HatKind.NONE)
        return torch.cat((vertices, *(torch.where(on[:, None, None], part, inside) for part, on in worn)), dim=1)

    def _hang(self, vertices: Tensor, rng: Rng) -> Tensor:
        """Vary width, depth and waves of long hair."""
        count = len(vertices)
        width = rng.uniform(count, 1, low=0.95, high=1.12)
        size = torch.stack((width, torch.full_like(width, 1.02), 0.5 + 0.5 * width), dim=-1)
        rest = self.head.mean.T[None].expand(count, -1, -1)
        waves = 0.05 * sinusoid_noise(rest, rng, 1, 6, waves=8, channels=3).transpose(1, 2)
        return torch.where(self._hair[:, None], vertices * size + waves, vertices)

    def weight(self, of_head: Tensor) -> Tensor:
        """Extend the weights (V,) with which vertices turn with the head to worn things, which turn fully."""
        worn = len(self.rest) - len(of_head)
        return torch.cat((of_head, torch.ones(worn, device=of_head.device)))

    def hair_cut(self, rest: Tensor, outfit: Outfit) -> Tensor:
        """Return how far places (B, P, 3) on the mean head lie inside the cut of long hair: (B, P), -inf without it."""
        cut = outfit.hair
        x, y, z = rest.unbind(-1)
        below = y - cut.length
        fringe = y - cut.fringe - cut.part * x
        in_front = torch.maximum(fringe, torch.minimum(torch.minimum(x.abs() - cut.strands, cut.forward - z), below))
        inside = torch.where(z > 0.25, in_front, below)
        inside = torch.minimum(inside, -self._hatter.covered(rest, outfit.hat))
        return torch.where(cut.worn[:, None], inside, -torch.inf)


@dataclass(frozen=True)
class Layers:
    """Ranges of triangles that are drawn together."""

    opaque: slice
    lens: slice
    hair: slice


def _join(head: Head, parts: list[MeshPart]) -> tuple[Tensor, Tensor, Layers]:
    """Join the triangles of head and parts, ordered by layer; also return their groups and the layers."""
    triangles, group = [head.triangles], [head.triangle_group]
    base = len(head.mean)
    for part in parts:
        triangles.append(part.triangles.to(head.mean.device) + base)
        group.append(part.group.to(head.mean.device))
        base += part.vertices
    joined, groups = torch.cat(triangles), torch.cat(group)
    layer = (groups == Extra.GLASSES_LENS) + 2 * (groups == Group.HAIR)
    order = layer.argsort(stable=True)
    opaque, lens, _ = (int((layer == number).sum()) for number in range(3))
    bounds = Layers(slice(0, opaque), slice(opaque, opaque + lens), slice(opaque + lens, len(joined)))
    return joined[order], groups[order], bounds


def _attributes(head: Head) -> Tensor:
    """Return the attributes of the head's vertices (V, 5).

    Teeth, tongue and lips get a least brightness: occlusion is that of a closed mouth, which would leave them black.
    """
    least = 0.45 * (head.lips > 0.2)
    least = torch.maximum(least, 0.3 * (head.inner_mouth > 0.2))
    teeth = (head.vertex_group == Group.UPPER_TEETH) | (head.vertex_group == Group.LOWER_TEETH)
    least = torch.where(teeth, 0.8, torch.where(head.vertex_group == Group.TONGUE, 0.55, least))
    columns = {
        Attribute.OCCLUSION: torch.maximum(head.occlusion, least),
        Attribute.LIP: head.lips,
        Attribute.MOUTH: head.inner_mouth,
        Attribute.EAR: head.ears,
        Attribute.LID: head.eyelids,
    }
    return torch.stack([columns[column] for column in Attribute], dim=1)


def _open(count: int, device: torch.device) -> Tensor:
    """Return the attributes of unoccluded vertices."""
    values = torch.zeros(count, len(Attribute), device=device)
    values[:, Attribute.OCCLUSION] = 1
    return values
