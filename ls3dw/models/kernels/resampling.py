"""Resamples a batch of pictures in one pass by Triton, as `inference.resampling.resample` does."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

TALL, WIDE = 8, 64
"""Rows and columns of a crop for one program."""


def resample(pixels: Tensor, affines: Tensor, size: int, span: int) -> Tensor:
    """Cut crops (N, 3, size, size) from pictures (N, H, W, 3). affines: (N, 2, 3) float64 on the same device; span:
    reach of the widest triangle."""
    count, height, width, _ = pixels.shape
    crops = torch.empty(count, 3, size, size, device=pixels.device)
    grid = (triton.cdiv(size, TALL) * triton.cdiv(size, WIDE), count)
    resample_kernel[grid](
        pixels.contiguous(), affines.contiguous(), crops, height, width, 2 * span + 2, span, size,
        tall=TALL, wide=WIDE,
    )  # fmt: skip
    return crops


@triton.jit
def _triangle(distance, reach):  # type: ignore[no-untyped-def]
    return tl.maximum(1.0 - tl.abs(distance) / reach, 0.0)


@triton.jit  # type: ignore[untyped-decorator]
def _axis(output, affine, row: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the positions of outputs in the picture (whole pixel, fraction) and the reach of their triangle."""
    zoom = tl.load(affine + 4 * row)
    centre = (output - tl.load(affine + 3 * row + 2)) / zoom
    whole = tl.floor(centre)
    return whole.to(tl.int32), (centre - whole).to(tl.float32), tl.maximum(1.0 / zoom, 1.0).to(tl.float32)


@triton.jit(do_not_specialize=["height", "width", "taps", "span"])  # type: ignore[untyped-decorator]
def resample_kernel(  # type: ignore[no-untyped-def]
    pixels, affines, crops, height, width, taps, span, size, tall: tl.constexpr, wide: tl.constexpr
):  # fmt: skip
    across = (size + wide - 1) // wide
    y = tl.program_id(0) // across * tall + tl.arange(0, tall)
    x = tl.program_id(0) % across * wide + tl.arange(0, wide)
    # A batch may have more than 2^32 pixels.
    picture = tl.program_id(1).to(tl.int64)
    source = pixels + picture * height * width * 3
    row, part_y, reach_y = _axis(y, affines + 6 * picture, 1)
    column, part_x, reach_x = _axis(x, affines + 6 * picture, 0)
    # Pixels outside count in the sum, as black.
    sum_y, sum_x = tl.zeros((tall,), dtype=tl.float32), tl.zeros((wide,), dtype=tl.float32)
    for tap in range(taps):
        sum_y += _triangle(tap - span - part_y, reach_y)
        sum_x += _triangle(tap - span - part_x, reach_x)
    red = tl.zeros((tall, wide), dtype=tl.float32)
    green, blue = red, red
    for down in range(taps):
        line = row + down - span
        weight_y = _triangle(down - span - part_y, reach_y) / sum_y
        for along in range(taps):
            place = column + along - span
            weight = weight_y[:, None] * (_triangle(along - span - part_x, reach_x) / sum_x)[None, :]
            there = ((line >= 0) & (line < height))[:, None] & ((place >= 0) & (place < width))[None, :]
            start = source + (line[:, None] * width + place[None, :]) * 3
            red += weight * tl.load(start, mask=there, other=0).to(tl.float32)
            green += weight * tl.load(start + 1, mask=there, other=0).to(tl.float32)
            blue += weight * tl.load(start + 2, mask=there, other=0).to(tl.float32)
    plane = crops + picture * 3 * size * size + y[:, None] * size + x[None, :]
    inside = (y < size)[:, None] & (x < size)[None, :]
    tl.store(plane, tl.minimum(red / 255.0, 1.0), mask=inside)
    tl.store(plane + size * size, tl.minimum(green / 255.0, 1.0), mask=inside)
    tl.store(plane + 2 * size * size, tl.minimum(blue / 255.0, 1.0), mask=inside)
