"""Geometry at each pixel, as planes (B, C, H, W)."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from ls3dw.synth.head.model import Group
from ls3dw.synth.raster.rasterizer import Fragments, barycentric, interpolate
from ls3dw.synth.scene.scene import Attribute, Scene


@dataclass(frozen=True)
class Pixels:
    """One layer of a scene; where it is empty, group is -1 and the planes are 0."""

    rest: Tensor
    """(B, 3, H, W) place on the mean head: texture coordinates."""

    normal: Tensor
    """(B, 3, H, W) unit vectors in the view frame, facing the camera."""

    place: Tensor
    """(B, 3, H, W) place in the view frame, head units."""

    shares: Tensor
    """(B, 5, H, W) columns of `Attribute`."""

    group: Tensor
    """(B, 1, H, W) int64."""

    depth: Tensor
    """(B, 1, H, W) screen depth, -inf where empty."""

    @property
    def seen(self) -> Tensor:
        """(B, 1, H, W) bool."""
        return self.group >= 0

    @property
    def skin(self) -> Tensor:
        """(B, 1, H, W) bool: skin, on which clothes are painted too."""
        return self.group == Group.SKIN

    def of(self, index: Tensor) -> Pixels:
        """Select some of the pictures (n,)."""
        return Pixels(**{entry.name: getattr(self, entry.name)[index] for entry in fields(self)})

    def share(self, attribute: Attribute) -> Tensor:
        """Return one attribute (B, 1, H, W)."""
        return self.shares[:, attribute : attribute + 1]


def vertex_normals(scene: Scene) -> Tensor:
    """Return unit normals (B, V, 3) of the posed vertices; 0 for triangles without area."""
    corners = scene.posed[:, scene.triangles]
    first, second = corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0]
    faces = torch.linalg.cross(first, second)
    normals = torch.zeros_like(scene.posed)
    for corner in range(3):
        normals.index_add_(1, scene.triangles[:, corner], faces)
    return F.normalize(normals, dim=2)


def look(scene: Scene, fragments: Fragments, normals: Tensor) -> Pixels:
    """Interpolate the geometry at a layer's pixels; normals: (B, V, 3) from `vertex_normals`."""
    weights = barycentric(fragments, scene.screen, scene.triangles)

    def blend(values: Tensor) -> Tensor:
        return interpolate(fragments, weights, values, scene.triangles).permute(0, 3, 1, 2).contiguous()

    moved, fixed = blend(torch.cat((normals, scene.posed), 2)), blend(torch.cat((scene.rest, scene.attributes), 1))
    normal = F.normalize(moved[:, :3], dim=1)
    normal = normal * torch.where(normal[:, 2:] < 0, -1.0, 1.0)
    triangle = fragments.triangle[:, None]
    group = torch.where(triangle >= 0, scene.triangle_group[triangle.clamp(min=0)], -1)
    return Pixels(fixed[:, :3], normal, moved[:, 3:], fixed[:, 3:], group, fragments.depth[:, None])
