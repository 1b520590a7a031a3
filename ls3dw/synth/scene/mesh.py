"""Meshes of worn things."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class MeshPart:
    """The triangles of one worn thing; another function places its vertices."""

    vertices: int
    triangles: Tensor
    """(T, 3) vertex numbers within the part."""

    group: Tensor
    """(T,) `scene.Extra`."""


def grid_triangles(rows: int, columns: int, closed: bool = False) -> Tensor:
    """Return two triangles for each cell of a grid of vertices; closed: connect the last column to the first."""
    row, column = torch.meshgrid(
        torch.arange(rows - 1), torch.arange(columns if closed else columns - 1), indexing="ij"
    )
    a = row * columns + column
    b = row * columns + (column + 1) % columns
    c, d = a + columns, b + columns
    return torch.cat((torch.stack((a, b, c), dim=-1), torch.stack((b, d, c), dim=-1))).view(-1, 3)
