"""The rasterizer's Triton kernels; see `rasterizer` for the algorithm.

Drawing runs one program for each triangle and picture, with 64-bit atomic maxima; the others one for a block of pixels.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ls3dw.synth.raster.coverage import EDGE, THINNEST

_TILE = 8
"""Side of the pixel tile of a warp; triangles of heads have about five by five pixels."""

_PIXELS = 256
"""Pixels in a block."""


def draw_keys(keys: Tensor, vertices: Tensor, triangles: Tensor) -> None:
    """Raise keys (B, H, W) to those of the triangles; see `rasterizer.rasterize`."""
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


def find_weights(shown: Tensor, vertices: Tensor, triangles: Tensor) -> Tensor:
    """Return the barycentric weights (B, H, W, 3) of pixels in the triangles they show (B, H, W)."""
    height, width = shown.shape[1:]
    weights = torch.empty(*shown.shape, 3, device=shown.device)
    grid = (triton.cdiv(height * width, _PIXELS), len(shown))
    with torch.cuda.device(shown.device):
        _weigh[grid](
            weights,
            shown.contiguous(),
            vertices.contiguous(),
            triangles.contiguous(),
            vertices.shape[1],
            height * width,
            width,
            block=_PIXELS,
        )
    return weights


def blend(shown: Tensor, weights: Tensor, values: Tensor, triangles: Tensor) -> Tensor:
    """Interpolate vertex values, (B, V, C) or (V, C), by weights (B, H, W, 3): (B, H, W, C)."""
    channels = values.shape[-1]
    blended = torch.empty(*shown.shape, channels, device=shown.device)
    pixels = shown[0].numel()
    grid = (triton.cdiv(pixels, _PIXELS), len(shown))
    with torch.cuda.device(shown.device):
        _blend[grid](
            blended,
            shown.contiguous(),
            weights.contiguous(),
            values.contiguous(),
            triangles.contiguous(),
            values.shape[1] * channels if values.dim() == 3 else 0,
            pixels,
            channels=channels,
            block=_PIXELS,
        )
    return blended


@triton.jit  # type: ignore[untyped-decorator]
def _weigh(weights, shown, vertices, triangles, count, pixels, width, block: tl.constexpr):  # type: ignore[no-untyped-def]
    pixel = tl.program_id(0) * block + tl.arange(0, block)
    picture = tl.program_id(1).to(tl.int64)
    there = pixel < pixels
    number = tl.load(shown + picture * pixels + pixel, mask=there, other=-1)
    hit = number >= 0
    base = vertices + picture * count * 3
    a = base + tl.load(triangles + number * 3, mask=hit, other=0) * 3
    b = base + tl.load(triangles + number * 3 + 1, mask=hit, other=0) * 3
    c = base + tl.load(triangles + number * 3 + 2, mask=hit, other=0) * 3
    cx, cy = tl.load(c, mask=hit, other=0.0), tl.load(c + 1, mask=hit, other=0.0)
    ax, ay = tl.load(a, mask=hit, other=1.0) - cx, tl.load(a + 1, mask=hit, other=0.0) - cy
    bx, by = tl.load(b, mask=hit, other=0.0) - cx, tl.load(b + 1, mask=hit, other=1.0) - cy
    px = (pixel % width).to(tl.float32) - cx
    py = (pixel // width).to(tl.float32) - cy
    area = ax * by - ay * bx
    first = (px * by - py * bx) / area
    second = (ax * py - ay * px) / area
    third = 1.0 - first - second
    out = weights + (picture * pixels + pixel) * 3
    tl.store(out, tl.where(hit, tl.minimum(tl.maximum(first, 0.0), 1.0), 0.0), mask=there)
    tl.store(out + 1, tl.where(hit, tl.minimum(tl.maximum(second, 0.0), 1.0), 0.0), mask=there)
    tl.store(out + 2, tl.where(hit, tl.minimum(tl.maximum(third, 0.0), 1.0), 0.0), mask=there)


@triton.jit  # type: ignore[untyped-decorator]
def _blend(  # type: ignore[no-untyped-def]
    blended, shown, weights, values, triangles, stride, pixels, channels: tl.constexpr, block: tl.constexpr
):
    pixel = tl.program_id(0) * block + tl.arange(0, block)
    picture = tl.program_id(1).to(tl.int64)
    there = pixel < pixels
    place = picture * pixels + pixel
    number = tl.load(shown + place, mask=there, other=-1)
    hit = number >= 0
    base = values + picture * stride
    a = base + tl.load(triangles + number * 3, mask=hit, other=0) * channels
    b = base + tl.load(triangles + number * 3 + 1, mask=hit, other=0) * channels
    c = base + tl.load(triangles + number * 3 + 2, mask=hit, other=0) * channels
    first = tl.load(weights + place * 3, mask=there, other=0.0)
    second = tl.load(weights + place * 3 + 1, mask=there, other=0.0)
    third = tl.load(weights + place * 3 + 2, mask=there, other=0.0)
    for channel in tl.static_range(channels):
        value = first * tl.load(a + channel, mask=hit, other=0.0)
        value += second * tl.load(b + channel, mask=hit, other=0.0)
        value += third * tl.load(c + channel, mask=hit, other=0.0)
        tl.store(blended + place * channels + channel, value, mask=there)


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
