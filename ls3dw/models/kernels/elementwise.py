"""Triton kernels around the convolutions, one pass each: guide, pooling, heatmaps for decoding."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ls3dw.models.kernels.launch import launch
from ls3dw.models.networks.guidance import Guide
from ls3dw.models.networks.heatmaps import mirror_on

SIDE = 8
"""Rows and columns of the 7x7 first convolution, padded for matrix products."""

TALL, WIDE = 8, 8
"""Cells of the first convolution's result for one program."""

FEWEST_CHANNELS = 16
"""Fewest channels of a matrix product."""

ELEMENTS = 2048
"""Elements of the pooled result for one program."""


def pack_guide_weight(weight: Tensor) -> Tensor:
    """Lay out a first convolution's weights of its guide (C, P, 7, 7) for `add_guide`: (P, 8, 8, C)."""
    outputs, points, rows, columns = weight.shape
    packed = weight.new_zeros(points, SIDE, SIDE, outputs)
    packed[:, :rows, :columns] = weight.permute(1, 2, 3, 0)
    return packed


def add_guide(maps: Tensor, weight: Tensor, guide: Guide) -> None:
    """Add a guide as `guidance.respond` does to maps (N, C, S / 2, S / 2), channels last, of any type.

    weight: from `pack_guide_weight`, in the type of the products; sums are float32. The guide's channels are products
    of a horizontal and a vertical profile, so a tile computes its windows in registers, for the points near it.
    """
    count, outputs, height, width = maps.shape
    points = guide.points.shape[1]
    launch(
        add_guide_kernel, (count * (height // TALL) * (width // WIDE),),
        maps, weight, guide.points.contiguous(), guide.profiles.contiguous(), guide.reach, points,
        height=height, width=width, outputs=outputs, tall=TALL, wide=WIDE,
        block_points=triton.next_power_of_2(points), block=max(FEWEST_CHANNELS, triton.next_power_of_2(outputs)),
    )  # fmt: skip


def max_pool_relu(maps: Tensor) -> Tensor:
    """Max pooling 3x3 with stride 2, and ReLU: (N, C, H, W) -> (N, C, H / 2, W / 2), channels last."""
    count, channels, height, width = maps.shape
    half = (count, channels, height // 2, width // 2)
    pooled = torch.empty(half, dtype=maps.dtype, device=maps.device, memory_format=torch.channels_last)
    pixels, block_channels = count * half[2] * half[3], triton.next_power_of_2(channels)
    block = max(1, ELEMENTS // block_channels)
    launch(
        max_pool_relu_kernel, (triton.cdiv(pixels, block),),
        maps, pooled, pixels,
        height=height, width=width, channels=channels, block=block, block_channels=block_channels,
    )  # fmt: skip
    return pooled


def write_heatmaps(maps: Tensor, heatmaps: Tensor, mirrored: bool) -> None:
    """Write a network's result (N, P, H, W), channels last with any pitch, to heatmaps (N, P, H, W) float32.

    mirrored: the result is of the mirrored picture, and is averaged with the heatmaps' values.
    """
    count, points, height, width = maps.shape
    launch(
        write_heatmaps_kernel, (count * height,),
        maps, heatmaps, mirror_on(maps.device), maps.stride(0), maps.stride(2), maps.stride(3), points,
        height=height, width=width, block=triton.next_power_of_2(points), mirrored=mirrored, num_warps=8,
    )  # fmt: skip


@triton.jit(do_not_specialize=["reach", "points_count"])  # type: ignore[untyped-decorator]
def add_guide_kernel(  # type: ignore[no-untyped-def]
    maps, weight, points, profiles, reach, points_count,
    height: tl.constexpr, width: tl.constexpr, outputs: tl.constexpr,
    tall: tl.constexpr, wide: tl.constexpr, block_points: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    across: tl.constexpr = width // wide
    tiles: tl.constexpr = across * (height // tall)
    picture = tl.program_id(0) // tiles
    row = tl.program_id(0) % tiles // across * tall
    column = tl.program_id(0) % across * wide
    # Points near this tile; NaN is near none.
    point = tl.arange(0, block_points)
    there = point < points_count
    place = points + 2 * (picture * points_count + point)
    px, py = tl.load(place, mask=there, other=0.0), tl.load(place + 1, mask=there, other=0.0)
    beside = (px + reach >= 2 * column - 3) & (px - reach <= 2 * (column + wide) + 1)
    above = (py + reach >= 2 * row - 3) & (py - reach <= 2 * (row + tall) + 1)
    near = tl.where(there & beside & above, point, block_points)
    following = tl.min(near)
    if following < block_points:
        cell, tap, channel = tl.arange(0, tall * wide), tl.arange(0, 64), tl.arange(0, block)
        real = (channel < outputs)[None, :]
        y = 2 * (row + tl.arange(0, tall))[:, None] + tl.arange(0, 8)[None, :] - 3
        x = 2 * (column + tl.arange(0, wide))[:, None] + tl.arange(0, 8)[None, :] - 3
        sums = tl.zeros((tall * wide, block), dtype=tl.float32)
        while following < block_points:
            profile = profiles + (picture * points_count + following) * 4 * width
            over = tl.load(profile + x, mask=(x >= 0) & (x < 2 * width), other=0.0)
            down = tl.load(profile + 2 * width + y, mask=(y >= 0) & (y < 2 * height), other=0.0)
            a = tl.reshape(down[:, None, :, None] * over[None, :, None, :], (tall * wide, 64))
            b = tl.load(weight + (following * 64 + tap[:, None]) * outputs + channel[None, :], mask=real, other=0.0)
            sums = tl.dot(a.to(b.dtype), b, sums)
            following = tl.min(tl.where(near > following, near, block_points))
        pixel = (picture * height + row + cell // wide) * width + column + cell % wide
        target = maps + pixel[:, None] * outputs + channel[None, :]
        sums += tl.load(target, mask=real, other=0.0).to(tl.float32)
        tl.store(target, sums.to(maps.dtype.element_ty), mask=real)


@triton.jit(do_not_specialize=["pixels"])  # type: ignore[untyped-decorator]
def max_pool_relu_kernel(  # type: ignore[no-untyped-def]
    maps, pooled, pixels,
    height: tl.constexpr, width: tl.constexpr, channels: tl.constexpr,
    block: tl.constexpr, block_channels: tl.constexpr,
):  # fmt: skip
    pixel, channel = tl.program_id(0) * block + tl.arange(0, block), tl.arange(0, block_channels)
    real = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    x, line = pixel % (width // 2) * 2, pixel // (width // 2)
    y, picture = line % (height // 2) * 2, line // (height // 2)
    largest = tl.zeros((block, block_channels), dtype=maps.dtype.element_ty)
    for tap in tl.static_range(9):
        row, column = y + tap // 3 - 1, x + tap % 3 - 1
        # Height and width are even, so no tap lies beyond their ends.
        there = real & ((row >= 0) & (column >= 0))[:, None]
        start = ((picture * height + row) * width + column)[:, None] * channels + channel[None, :]
        value = tl.load(maps + start, mask=there, other=0.0)
        # A NaN turned into zero would hide a float16 overflow.
        largest = tl.maximum(largest, value, propagate_nan=tl.PropagateNan.ALL)
    tl.store(pooled + pixel[:, None] * channels + channel[None, :], largest, mask=real)


@triton.jit  # type: ignore[untyped-decorator]
def write_heatmaps_kernel(  # type: ignore[no-untyped-def]
    maps, heatmaps, partner, picture_pitch, row_pitch, pixel_pitch, points,
    height: tl.constexpr, width: tl.constexpr, block: tl.constexpr, mirrored: tl.constexpr,
):  # fmt: skip
    picture, row = tl.program_id(0) // height, tl.program_id(0) % height
    x, point = tl.arange(0, width), tl.arange(0, block)
    there = (point < points)[:, None] & (x >= 0)[None, :]
    place = heatmaps + ((picture * points + point)[:, None] * height + row) * width + x[None, :]
    start = maps + picture * picture_pitch + row * row_pitch
    if mirrored:
        other = tl.load(partner + point, mask=point < points, other=0)
        value = tl.load(start + (width - 1 - x)[None, :] * pixel_pitch + other[:, None], mask=there, other=0.0)
        value = (tl.load(place, mask=there, other=0.0) + value.to(tl.float32)) * 0.5
    else:
        value = tl.load(start + x[None, :] * pixel_pitch + point[:, None], mask=there, other=0.0).to(tl.float32)
    tl.store(place, value, mask=there)
