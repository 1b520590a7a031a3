"""What each vertex of the head carries beside its place: parts of the face, light from all around, how it is posed."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from ls3dw.synth.authoring.head_source import Mesh, Source
from ls3dw.synth.head.model import Group
from ls3dw.synth.raster.rasterizer import rasterize

Floats = NDArray[np.float32]

SCALE: Final = 100.0
"""Pixels to the unit of the head where the light is measured."""

DIRECTIONS: Final = 160
_BIAS = 3.0
"""Pixels by which a place may lie behind what is seen there and still count as seen."""

_ZENITH = 0.5
"""More light comes from above: 1.5 times the horizon's from the zenith, half of it from below."""

LEAST_LIGHT: Final = {Group.UPPER_TEETH: 0.8, Group.LOWER_TEETH: 0.8, Group.TONGUE: 0.55}
"""The least light of what is dark only while the mouth is closed: teeth that are seen at all are seen bright."""

LEAST_LIP, LEAST_MOUTH = 0.45, 0.3

_NECK_SHARE = 0.5
_HAIR_STILL, _HAIR_TURNS = -1.9, -0.9
"""Heights between which long hair goes over from lying on the torso to turning with the head."""


def masks(source: Source) -> dict[str, Floats]:
    """Make lips, eyelids, ears and inner mouth, each (V,) from 0 to 1 and the same on both sides.

    They belong to the skin: the textures mean nothing on the other groups.
    """
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
    """Mix each vertex's value (V,) half with the mean of its neighbours', once."""
    corners = mesh.triangles
    edges = np.concatenate((corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]))
    ends = np.concatenate((edges, edges[:, ::-1]))
    total = np.bincount(ends[:, 0], values[ends[:, 1]], len(values))
    count = np.bincount(ends[:, 0], minlength=len(values))
    return ((values + total / np.maximum(count, 1)) / 2).astype(np.float32)


def light(mean: Floats, mesh: Mesh, parts: dict[str, Floats]) -> Floats:
    """Measure how much of the light from all around reaches each vertex of the mean head: (V,) from 0 to 1.

    Seen from each of many directions, a vertex is lit when it is the nearest there. Lashes and hair hide nothing.
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
    """Return normals of length 1 (V, 3), each triangle counted by its area; 0 where there is none."""
    corners = vertices[mesh.triangles]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.zeros_like(vertices)
    np.add.at(total, mesh.triangles, normal[:, None])
    normals: Floats = total / np.linalg.norm(total, axis=1, keepdims=True).clip(1e-9)
    return normals


def head_weight(source: Source, mean: Floats) -> Floats:
    """Return by how much each vertex turns with the head: (V,), 1 with it, 0 with the torso."""
    mesh = source.mesh
    skin = source.bone_weight("head", "eye.") + _NECK_SHARE * source.bone_weight("neck")
    hair = (mean[:, 1] - _HAIR_STILL) / (_HAIR_TURNS - _HAIR_STILL)
    group = mesh.vertex_group
    weight = np.where(group == Group.SKIN, skin, np.where(group == Group.HAIR, hair, 1.0))
    return weight.astype(np.float32).clip(0, 1)


def _sphere(count: int) -> torch.Tensor:
    """Spread unit vectors (count, 3) evenly: a golden spiral."""
    step = torch.arange(count, dtype=torch.float64) + 0.5
    polar, turn = torch.arccos(1 - 2 * step / count), torch.pi * (1 + 5**0.5) * step
    return torch.stack((turn.cos() * polar.sin(), polar.cos(), turn.sin() * polar.sin()), 1).float()


def _seen_from(direction: torch.Tensor, head: torch.Tensor, triangles: torch.Tensor) -> torch.Tensor:
    """Mark the vertices (V,) of the head that nothing hides from that direction."""
    # Any two axes across the direction do; no direction of the spiral is parallel to this one.
    right = torch.nn.functional.normalize(torch.linalg.cross(direction, torch.tensor([0.0, 1.0, 0.01])), dim=0)
    down = torch.linalg.cross(right, direction)
    view = SCALE * head @ torch.stack((right, down, direction), 1)
    corner = view[:, :2].amin(0) - 2
    view = view - torch.cat((corner, corner.new_zeros(1)))
    width, height = (view[:, :2].amax(0) + 3).int().tolist()
    nearest = rasterize(view[None], triangles, height, width).depth[0]
    x, y = view[:, :2].round().long().unbind(1)
    return (view[:, 2] > nearest[y, x] - _BIAS).float()
