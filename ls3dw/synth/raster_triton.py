"""The rasterizer's kernel for CUDA devices: a program a triangle and picture, with 64-bit atomic maxima."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ls3dw.synth.raster import EDGE, THINNEST

_TILE = 8
"""Pixels across and down that one warp looks at together: heads have triangles of about five by five pixels."""


def draw_keys(keys: Tensor, vertices: Tensor, triangles: Tensor) -> None:
    """Raise keys (B, H, W) to those of the triangles; see `raster.rasterize`."""
    batch, height, width = keys.shape
    grid = (len(triangles), batch)
    with torch.cuda.device(keys.device):
        _draw[grid](
            keys,
            vertices.contiguous(),
            triangles.to(torch.int32).contiguous(),
            vertices.shape[1],
            height,
            width,
            thinnest=THINNEST,
            edge=EDGE,
            tile=_TILE,
            num_warps=1,
        )


@triton.jit  # type: ignore[untyped-decorator]
def _draw(  # type: ignore[no-untyped-def]
    keys, vertices, triangles, count, height, width, thinnest: tl.constexpr, edge: tl.constexpr, tile: tl.constexpr
):
    number = tl.program_id(0)
    picture = tl.program_id(1).to(tl.int64)
    base = vertices + picture * count * 3
    a = base + tl.load(triangles + number * 3) * 3
    b = base + tl.load(triangles + number * 3 + 1) * 3
    c = base + tl.load(triangles + number * 3 + 2) * 3
    ax, ay, az = tl.load(a), tl.load(a + 1), tl.load(a + 2)
    bx, by, bz = tl.load(b), tl.load(b + 1), tl.load(b + 2)
    cx, cy, cz = tl.load(c), tl.load(c + 1), tl.load(c + 2)
    left = tl.maximum(tl.ceil(tl.minimum(ax, tl.minimum(bx, cx))), 0.0).to(tl.int32)
    right = tl.minimum(tl.floor(tl.maximum(ax, tl.maximum(bx, cx))), width - 1.0).to(tl.int32)
    top = tl.maximum(tl.ceil(tl.minimum(ay, tl.minimum(by, cy))), 0.0).to(tl.int32)
    bottom = tl.minimum(tl.floor(tl.maximum(ay, tl.maximum(by, cy))), height - 1.0).to(tl.int32)
    ax, ay, bx, by = ax - cx, ay - cy, bx - cx, by - cy
    area = ax * by - ay * bx
    if (tl.abs(area) >= thinnest) & (left <= right) & (top <= bottom):
        lane = tl.arange(0, tile * tile)
        for y0 in range(top, bottom + 1, tile):
            for x0 in range(left, right + 1, tile):
                x = x0 + lane % tile
                y = y0 + lane // tile
                px = x.to(tl.float32) - cx
                py = y.to(tl.float32) - cy
                first = (px * by - py * bx) / area
                second = (ax * py - ay * px) / area
                third = 1.0 - first - second
                inside = (first >= -edge) & (second >= -edge) & (third >= -edge) & (x <= right) & (y <= bottom)
                depth = first * az + second * bz + third * cz
                bits = depth.to(tl.int32, bitcast=True)
                ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
                key = (ordered.to(tl.int64) << 32) | number.to(tl.int64)
                tl.atomic_max(keys + (picture * height + y) * width + x, key, mask=inside, sem="relaxed")
