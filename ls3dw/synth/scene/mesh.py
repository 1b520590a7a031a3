"""Meshes of what heads wear: triangles of grids, and parts to be joined to the head's own mesh."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Part:
    """Triangles of one worn thing; its vertices come from the function that places it."""

    vertices: int
    triangles: Tensor
    """(T, 3) numbers of the part's own vertices."""

    group: Tensor
    """(T,) `scene.Extra`."""


def grid_triangles(rows: int, columns: int, closed: bool = False) -> Tensor:
    """Return two triangles for each cell of a grid of vertices; closed: the last column joins the first."""
    row, column = torch.meshgrid(
        torch.arange(rows - 1), torch.arange(columns if closed else columns - 1), indexing="ij"
    )
    a = row * columns + column
    b = row * columns + (column + 1) % columns
    c, d = a + columns, b + columns
    return torch.cat((torch.stack((a, b, c), dim=-1), torch.stack((b, d, c), dim=-1))).view(-1, 3)
