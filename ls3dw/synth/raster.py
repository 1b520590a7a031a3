"""Which triangle is seen at each pixel, for batches of meshes with the same triangles."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Fragments:
    """What is seen at each pixel of B pictures."""

    triangle: Tensor
    """(B, H, W) int64: the nearest triangle, -1 where there is none."""

    depth: Tensor
    """(B, H, W) float32: its depth, larger is nearer, -inf where there is none."""
