"""A rasterizer for batches of meshes with the same triangles, and interpolation of vertex values.

Every pixel keeps the largest 64-bit key, with depth in the upper half and the triangle's number in the lower. A maximum
does not depend on order, so results are deterministic; CPU and GPU agree up to the rounding of depth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ls3dw.synth.raster.coverage import EDGE, THINNEST

NOTHING = -(2**63)
"""Key of an empty pixel."""

_PIECE = 1 << 21
"""Candidate pixels tested at once, which bounds memory."""


@dataclass(frozen=True)
class Fragments:
    """The nearest surface at each pixel of B pictures."""

    triangle: Tensor
    """(B, H, W) int64, -1 where empty."""

    depth: Tensor
    """(B, H, W) float32, larger is nearer, -inf where empty."""


def rasterize(vertices: Tensor, triangles: Tensor, height: int, width: int) -> Fragments:
    """Find the nearest triangle at the centre of every pixel, on the device of the vertices.

    vertices: (B, V, 3) float32, x and y in pixels with pixel centres at integers, z larger is nearer
    triangles: (T, 3), visible from both sides; of triangles at equal depth the last is kept
    """
    keys = torch.full((len(vertices), height, width), NOTHING, dtype=torch.int64, device=vertices.device)
    if vertices.is_cuda:
        from ls3dw.synth.raster.kernels import draw_keys  # Triton comes with CUDA only

        draw_keys(keys, vertices, triangles)
    else:
        _draw_keys(keys, vertices, triangles)
    hit = keys != NOTHING
    depth = _in_order((keys >> 32).to(torch.int32)).view(torch.float32)
    return Fragments(torch.where(hit, keys & 0xFFFFFFFF, -1), torch.where(hit, depth, -torch.inf))


def _in_order(bits: Tensor) -> Tensor:
    """Map the bits of floats (int32) to integers of the same order; its own inverse."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _draw_keys(keys: Tensor, vertices: Tensor, triangles: Tensor) -> None:
    """Raise keys (B, H, W) to those of the triangles, with tensor operations."""
    height, width = keys.shape[1:]
    corners = vertices[:, triangles].flatten(0, 1)
    size = torch.tensor((width, height))
    low = corners[..., :2].amin(1).ceil().clamp(min=0).nan_to_num(nan=1e9)
    high = torch.minimum(corners[..., :2].amax(1).floor().nan_to_num(nan=-1.0), size - 1)
    sides = (high - low + 1).clamp(min=0).long()
    counts = sides.prod(1)
    drawn = ((counts > 0) & (_doubled_area(corners).abs() >= THINNEST)).nonzero()[:, 0]
    number = drawn % len(triangles)
    picture = drawn // len(triangles)
    corners, low, sides, counts = corners[drawn], low[drawn].long(), sides[drawn], counts[drawn]
    flat = keys.view(-1)
    for first, last in _pieces(counts):
        owner, step = _expand(counts[first:last])
        owner += first
        x = low[owner, 0] + step % sides[owner, 0]
        y = low[owner, 1] + step // sides[owner, 0]
        weights = _weights(corners[owner], torch.stack((x, y), dim=-1).float())
        inside = (weights >= -EDGE).all(-1).nonzero()[:, 0]
        owner, place = owner[inside], (y * width + x)[inside] + picture[owner[inside]] * height * width
        depth = (weights[inside] * corners[owner, :, 2]).sum(-1)
        key = (_in_order(depth.view(torch.int32)).long() << 32) | number[owner]
        flat.scatter_reduce_(0, place, key, "amax")


def _pieces(counts: Tensor) -> Iterator[tuple[int, int]]:
    """Split triangles into runs of about `_PIECE` candidate pixels, at least one triangle each."""
    ends = counts.cumsum(0)
    first = 0
    while first < len(counts):
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(torch.searchsorted(ends, before + _PIECE, right=True)))
        yield first, last
        first = last


def _expand(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return each candidate pixel's triangle, and its number among that triangle's candidates."""
    owner = torch.repeat_interleave(torch.arange(len(counts)), counts)
    starts = counts.cumsum(0) - counts
    return owner, torch.arange(len(owner)) - starts[owner]


def _doubled_area(corners: Tensor) -> Tensor:
    """Return the signed doubled area (...) of triangles (..., 3, 2 or 3)."""
    a, b = corners[..., 0, :2] - corners[..., 2, :2], corners[..., 1, :2] - corners[..., 2, :2]
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _weights(corners: Tensor, places: Tensor) -> Tensor:
    """Return the barycentric weights (..., 3) of places (..., 2) in triangles (..., 3, 2 or 3)."""
    third = corners[..., 2, :2]
    a, b, p = corners[..., 0, :2] - third, corners[..., 1, :2] - third, places - third
    area = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    first = (p[..., 0] * b[..., 1] - p[..., 1] * b[..., 0]) / area
    second = (a[..., 0] * p[..., 1] - a[..., 1] * p[..., 0]) / area
    return torch.stack((first, second, 1 - first - second), dim=-1)


def barycentric(fragments: Fragments, vertices: Tensor, triangles: Tensor) -> Tensor:
    """Return the barycentric weights (B, H, W, 3) of every pixel in its triangle, 0 where empty."""
    if vertices.is_cuda:
        from ls3dw.synth.raster.kernels import find_weights

        return find_weights(fragments.triangle, vertices, triangles)
    batch, height, width = fragments.triangle.shape
    device = vertices.device
    index = _corner_index(fragments, triangles, vertices.shape[1])
    corners = F.embedding(index, vertices[..., :2].reshape(-1, 2))
    rows = torch.arange(height, dtype=torch.float32, device=device)
    columns = torch.arange(width, dtype=torch.float32, device=device)
    places = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).view(1, -1, 2)
    weights = _weights(corners, places).view(batch, height, width, 3).clamp(0, 1)
    return torch.where(fragments.triangle[..., None] >= 0, weights, 0.0)


def interpolate(fragments: Fragments, weights: Tensor, values: Tensor, triangles: Tensor) -> Tensor:
    """Interpolate vertex values, (B, V, C) or (V, C), by weights (B, H, W, 3): (B, H, W, C), 0 where empty."""
    shared = values.dim() == 2
    if values.is_cuda:
        from ls3dw.synth.raster.kernels import blend

        return blend(fragments.triangle, weights, values, triangles)
    index = _corner_index(fragments, triangles, 0 if shared else values.shape[1])
    # embedding_bag is the only operation that blends rows without first writing them to memory.
    blended = F.embedding_bag(
        index.flatten(0, 1), values.flatten(0, -2), per_sample_weights=weights.reshape(-1, 3), mode="sum"
    )
    return blended.view(*fragments.triangle.shape, values.shape[-1])


def _corner_index(fragments: Fragments, triangles: Tensor, vertices: int) -> Tensor:
    """Return the corners (B, H*W, 3) of every pixel's triangle, as rows of values with `vertices` rows a picture."""
    number = fragments.triangle.flatten(1).clamp(min=0)
    first = torch.arange(len(number), device=number.device) * vertices
    return F.embedding(number, triangles) + first[:, None, None]
