"""Attributes of the head's vertices: parts of the face, ambient light, and how they turn with the head."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch

from ls3dw.core.sample import Floats
from ls3dw.synth.authoring.head_source import Mesh, Source
from ls3dw.synth.head.model import Group
from ls3dw.synth.raster.rasterizer import rasterize

SCALE: Final = 100.0
"""Pixels in a head unit, for measuring the light."""

DIRECTIONS: Final = 160
_BIAS = 3.0
"""Depth in pixels by which a place may be behind the visible surface and still count as visible."""

_ZENITH = 0.5
"""Light from the zenith is 1 + this times that of the horizon, from below 1 - this."""

LEAST_LIGHT: Final = {Group.UPPER_TEETH: 0.8, Group.LOWER_TEETH: 0.8, Group.TONGUE: 0.55}
"""Least light of parts that only a closed mouth darkens."""

LEAST_LIP, LEAST_MOUTH = 0.45, 0.3

_NECK_SHARE = 0.5
_HAIR_STILL, _HAIR_TURNS = -1.9, -0.9
"""Heights between which long hair changes from resting on the torso to turning with the head."""


def masks(source: Source) -> dict[str, Floats]:
    """Make masks of lips, eyelids, ears and inner mouth, each (V,) from 0 to 1 and symmetric; 0 outside the skin."""
    mesh = source.mesh
    skin = mesh.vertex_group == Group.SKIN

    def sampled(texture: str) -> Floats:
        values = source.mask(texture)
        both: Floats = np.where(skin, (values + values[mesh.mirror]) / 2, 0).astype(np.float32)
        return both

    return {
        "lips": smooth(sampled("lips"), mesh),
        "eyelids": sampled("eyelids"),
        "ears": sampled("ears"),
        "inner_mouth": (sampled("inside-mouth") > 0.3).astype(np.float32),
    }


def smooth(values: Floats, mesh: Mesh) -> Floats:
    """Average each vertex's value (V,) with the mean of its neighbours."""
    corners = mesh.triangles
    edges = np.concatenate((corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]))
    ends = np.concatenate((edges, edges[:, ::-1]))
    total = np.bincount(ends[:, 0], values[ends[:, 1]], len(values))
    count = np.bincount(ends[:, 0], minlength=len(values))
    return ((values + total / np.maximum(count, 1)) / 2).astype(np.float32)


def light(mean: Floats, mesh: Mesh, parts: dict[str, Floats]) -> Floats:
    """Measure the share of ambient light that reaches each vertex of the mean head: (V,).

    A vertex is lit from a direction if it is the nearest one seen from there. Lashes and hair hide nothing.
    """
    solid = ~np.isin(mesh.triangle_group, (Group.LASHES, Group.HAIR))
    triangles, head = torch.from_numpy(mesh.triangles[solid]), torch.from_numpy(mean)
    normals = torch.from_numpy(vertex_normals(mean, mesh))
    reached, whole = torch.zeros(len(mean)), torch.zeros(len(mean))
    for direction in _sphere(DIRECTIONS):
        facing = (normals @ direction).clamp(min=0) * (1 + _ZENITH * direction[1])
        reached += facing * _seen_from(direction, head, triangles)
        whole += facing
    lit = (reached / whole.clamp(min=1e-6)).numpy()
    lit = (lit + lit[mesh.mirror]) / 2
    lit = np.where(mesh.vertex_group == Group.SKIN, smooth(lit, mesh), lit)
    for group, least in LEAST_LIGHT.items():
        lit = np.where(mesh.vertex_group == group, np.maximum(lit, least), lit)
    for part, least in (("lips", LEAST_LIP), ("inner_mouth", LEAST_MOUTH)):
        lit = np.where(parts[part] > 0.2, np.maximum(lit, least), lit)
    return lit.clip(0, 1).astype(np.float32)


def vertex_normals(vertices: Floats, mesh: Mesh) -> Floats:
    """Return unit normals (V, 3), averaged over triangles by area; 0 for vertices without triangles."""
    corners = vertices[mesh.triangles]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.zeros_like(vertices)
    np.add.at(total, mesh.triangles, normal[:, None])
    normals: Floats = total / np.linalg.norm(total, axis=1, keepdims=True).clip(1e-9)
    return normals


def head_weight(source: Source, mean: Floats) -> Floats:
    """Return how much each vertex turns with the head: (V,), 1 fully, 0 not at all."""
    mesh = source.mesh
    skin = source.bone_weight("head", "eye.") + _NECK_SHARE * source.bone_weight("neck")
    hair = (mean[:, 1] - _HAIR_STILL) / (_HAIR_TURNS - _HAIR_STILL)
    group = mesh.vertex_group
    weight = np.where(group == Group.SKIN, skin, np.where(group == Group.HAIR, hair, 1.0))
    return weight.astype(np.float32).clip(0, 1)


def _sphere(count: int) -> torch.Tensor:
    """Return unit vectors (count, 3), evenly spread on a golden spiral."""
    step = torch.arange(count, dtype=torch.float64) + 0.5
    polar, turn = torch.arccos(1 - 2 * step / count), torch.pi * (1 + 5**0.5) * step
    return torch.stack((turn.cos() * polar.sin(), polar.cos(), turn.sin() * polar.sin()), 1).float()


def _seen_from(direction: torch.Tensor, head: torch.Tensor, triangles: torch.Tensor) -> torch.Tensor:
    """Return which vertices (V,) of the head are visible from a direction."""
    # Any two axes across the direction serve; no direction of the spiral is parallel to this one.
    right = torch.nn.functional.normalize(torch.linalg.cross(direction, torch.tensor([0.0, 1.0, 0.01])), dim=0)
    down = torch.linalg.cross(right, direction)
    view = SCALE * head @ torch.stack((right, down, direction), 1)
    corner = view[:, :2].amin(0) - 2
    view = view - torch.cat((corner, corner.new_zeros(1)))
    width, height = (view[:, :2].amax(0) + 3).int().tolist()
    nearest = rasterize(view[None], triangles, height, width).depth[0]
    x, y = view[:, :2].round().long().unbind(1)
    return (view[:, 2] > nearest[y, x] - _BIAS).float()
