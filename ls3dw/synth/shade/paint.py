"""Surface paint: colour, relief, normal and gloss at every pixel."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from ls3dw.synth.shade.tensors import mix

STEEPEST = 0.7
"""Largest slope of relief; silhouettes of parts in front of each other would exceed it."""


@dataclass
class Paint:
    """The paint so far; each part of the head adds to it."""

    colour: Tensor
    """(B, 3, H, W) sRGB values."""

    relief: Tensor
    """(B, 1, H, W) height above the mesh, head units."""

    normal: Tensor
    """(B, 3, H, W) unit vectors in the view frame, of the mesh or of cloth over it."""

    gloss: Tensor
    """(B, 1, H, W) strength of specular reflection; skin has about 1."""

    def of(self, index: Tensor) -> Paint:
        """Copy the paint of some of the pictures (n,)."""
        return Paint(**{entry.name: getattr(self, entry.name)[index] for entry in fields(self)})

    def put(self, index: Tensor, other: Paint) -> None:
        """Replace the paint of some of the pictures."""
        for entry in fields(self):
            setattr(self, entry.name, getattr(self, entry.name).index_copy(0, index, getattr(other, entry.name)))

    def coat(self, share: Tensor, colour: Tensor, gloss: float | None = None) -> None:
        """Cover with a colour, and its gloss; share: opacity from 0 to 1."""
        self.colour = mix(self.colour, colour, share)
        if gloss is not None:
            self.gloss = self.gloss * (1 - share) + gloss * share

    def raise_by(self, height: Tensor) -> None:
        """Add to the relief."""
        self.relief = self.relief + height

    def wrap(self, share: Tensor, normal: Tensor) -> None:
        """Blend the normal into another and flatten the relief; share: from 0 to 1."""
        self.normal = F.normalize(mix(self.normal, normal, share), dim=1)
        self.flatten(share)

    def flatten(self, share: Tensor) -> None:
        """Remove a share, from 0 to 1, of the relief."""
        self.relief = self.relief * (1 - share)


def bumped(normal: Tensor, relief: Tensor, scale: Tensor) -> Tensor:
    """Tilt normals (B, 3, H, W) by the slope of the relief; scale (B,) is pixels a head unit."""
    padded = F.pad(relief, (1, 1, 1, 1), mode="replicate")
    half = scale.view(-1, 1, 1, 1) / 2
    right = ((padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) * half).clamp(-STEEPEST, STEEPEST)
    up = ((padded[:, :, :-2, 1:-1] - padded[:, :, 2:, 1:-1]) * half).clamp(-STEEPEST, STEEPEST)
    return F.normalize(normal - torch.cat((right, up, torch.zeros_like(up)), 1), dim=1)
