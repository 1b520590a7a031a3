"""Triton kernels of the fused FAN; `convolutions` launches them.

A 3x3 convolution runs over the flattened pixels of a padded plane: with the pitch p of a row, tap (dy, dx) of pixel i
is pixel i + dy p + dx, so the convolution is a matrix product whose tiles of A are moved by the tap. Results for the
padding are replaced by zero: 3 % of the work at 64x64, 6 % at 32x32. Tiles are read through tensor descriptors, which
give zero beyond the ends of the plane.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def _inside(pixel, height, width, pad: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return whether pixels of a padded plane are in a picture."""
    if pad == 0:
        return pixel >= 0
    pitch = width + pad
    return (pixel % pitch < width) & (pixel % ((height + pad) * pitch) < height * pitch)


@triton.jit  # type: ignore[untyped-decorator]
def _place(pixel, height, width, pad: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return picture, row and column of pixels in a padded plane."""
    pitch = width + pad
    picture = pixel // ((height + pad) * pitch)
    return picture, pixel // pitch - picture * (height + pad), pixel % pitch


@triton.jit
def _norm_relu(x, scale, shift, channel, there):  # type: ignore[no-untyped-def]
    factor = tl.load(scale + channel, mask=there, other=0.0)[None, :]
    normed = x * factor + tl.load(shift + channel, mask=there, other=0.0)[None, :]
    # Like torch's ReLU: a NaN turned into zero would hide a float16 overflow.
    return tl.maximum(normed, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit  # type: ignore[untyped-decorator]
def _store(plane, value, first, column, place, mask, by_descriptor: tl.constexpr):  # type: ignore[no-untyped-def]
    """Write a tile by its plane's descriptor or element by element."""
    if by_descriptor:
        plane.store([first, column], value.to(plane.dtype))
    else:
        tl.store(plane + place, value.to(plane.dtype.element_ty), mask=mask)


@triton.jit  # type: ignore[untyped-decorator]
def _write(  # type: ignore[no-untyped-def]
    y, first, column, pixels, height, width, outputs,
    bias, active, scale, shift, out, residual, low, offset, out_channels, following, following_scale, following_shift,
    block_pixels: tl.constexpr, block_outputs: tl.constexpr, pad: tl.constexpr, by_descriptor: tl.constexpr,
):  # fmt: skip
    """Write the epilogue of a tile y (pixels, channels) float32; zero for pixels outside pictures."""
    pixel, channel = first + tl.arange(0, block_pixels), column + tl.arange(0, block_outputs)
    inside = _inside(pixel, height, width, pad)
    there = channel < outputs
    mask = (pixel < pixels)[:, None] & there[None, :]
    place = pixel[:, None] * out_channels + (offset + channel)[None, :]
    if bias is not None:
        y += tl.load(bias + channel, mask=there, other=0.0)[None, :]
    if active is not None:
        value = tl.where(inside[:, None], _norm_relu(y, scale, shift, channel, there), 0.0)
        _store(active, value, first, column, pixel[:, None] * outputs + channel[None, :], mask, by_descriptor)
    if out is not None:
        if residual is not None:
            if by_descriptor:
                y += residual.load([first, offset + column]).to(tl.float32)
            else:
                y += tl.load(residual + place, mask=mask, other=0.0).to(tl.float32)
        if low is not None:
            picture, row, x = _place(pixel, height, width, pad)
            below = (picture * (height // 2 + pad) + row // 2) * (width // 2 + pad) + x // 2
            repeated = low + below[:, None] * out_channels + (offset + channel)[None, :]
            y += tl.load(repeated, mask=mask & inside[:, None], other=0.0).to(tl.float32)
        y = tl.where(inside[:, None], y, 0.0)
        _store(out, y, first, offset + column, place, mask, by_descriptor)
        if following is not None:
            value = tl.where(inside[:, None], _norm_relu(y, following_scale, following_shift, channel, there), 0.0)
            _store(following, value, first, offset + column, place, mask, by_descriptor)


@triton.jit(do_not_specialize=["pixels", "height", "width"])  # type: ignore[untyped-decorator]
def convolve_kernel(  # type: ignore[no-untyped-def]
    source, weight, pixels, height, width,
    bias, active, scale, shift, out, residual, low, offset, out_channels, following, following_scale, following_shift,
    channels: tl.constexpr, outputs: tl.constexpr, taps: tl.constexpr,
    block_pixels: tl.constexpr, block_outputs: tl.constexpr, block_depth: tl.constexpr, transposed: tl.constexpr,
    by_descriptor: tl.constexpr,
):  # fmt: skip
    # Neighbouring programs share pixels, the larger operand.
    across: tl.constexpr = (outputs + block_outputs - 1) // block_outputs
    steps: tl.constexpr = channels // block_depth
    first = tl.program_id(0) // across * block_pixels
    column = tl.program_id(0) % across * block_outputs
    if transposed:
        sums = tl.zeros((block_outputs, block_pixels), dtype=tl.float32)
    else:
        sums = tl.zeros((block_pixels, block_outputs), dtype=tl.float32)
    for step in range(taps * steps):
        start = first
        if taps == 9:
            tap = step // steps
            start += (tap // 3 - 1) * (width + 1) + tap % 3 - 1
        a = source.load([start, step % steps * block_depth])
        b = weight.load([column, step * block_depth])
        sums = tl.dot(b, a.T, sums) if transposed else tl.dot(a, b.T, sums)
    y = sums.T if transposed else sums
    _write(
        y, first, column, pixels, height, width, outputs,
        bias, active, scale, shift,
        out, residual, low, offset, out_channels, following, following_scale, following_shift,
        block_pixels, block_outputs, 1, by_descriptor,
    )  # fmt: skip


@triton.jit(do_not_specialize=["pixels", "height", "width"])  # type: ignore[untyped-decorator]
def convolve_twice_kernel(  # type: ignore[no-untyped-def]
    source, first_weight, second_weight, pixels, height, width, hidden_scale, hidden_shift,
    bias, active, scale, shift, out, residual, low, offset, out_channels, following, following_scale, following_shift,
    channels: tl.constexpr, hidden: tl.constexpr, outputs: tl.constexpr,
    block_pixels: tl.constexpr, block_outputs: tl.constexpr, block_depth: tl.constexpr,
):  # fmt: skip
    first = tl.program_id(0) * block_pixels
    sums = tl.zeros((block_pixels, hidden), dtype=tl.float32)
    for step in range(channels // block_depth):
        a = source.load([first, step * block_depth])
        sums = tl.dot(a, first_weight.load([0, step * block_depth]).T, sums)
    channel = tl.arange(0, hidden)
    between = _norm_relu(sums, hidden_scale, hidden_shift, channel, channel >= 0).to(source.dtype)
    for column in range(0, outputs, block_outputs):
        y = tl.dot(between, second_weight.load([column, 0]).T)
        _write(
            y, first, column, pixels, height, width, outputs,
            bias, active, scale, shift,
            out, residual, low, offset, out_channels, following, following_scale, following_shift,
            block_pixels, block_outputs, 1, False,
        )  # fmt: skip


@triton.jit(do_not_specialize=["pixels", "height", "width"])  # type: ignore[untyped-decorator]
def epilogue_kernel(  # type: ignore[no-untyped-def]
    result, pixels, height, width,
    bias, active, scale, shift, out, residual, low, offset, out_channels, following, following_scale, following_shift,
    outputs: tl.constexpr, pad: tl.constexpr, block: tl.constexpr, block_outputs: tl.constexpr,
):  # fmt: skip
    first = tl.program_id(0) * block
    pixel, channel = first + tl.arange(0, block), tl.arange(0, block_outputs)
    mask = (pixel < pixels)[:, None] & (channel < outputs)[None, :]
    y = tl.load(result + pixel[:, None] * outputs + channel[None, :], mask=mask, other=0.0).to(tl.float32)
    _write(
        y, first, 0, pixels, height, width, outputs,
        bias, active, scale, shift,
        out, residual, low, offset, out_channels, following, following_scale, following_shift,
        block, block_outputs, pad, False,
    )  # fmt: skip


@triton.jit(do_not_specialize=["pixels", "height", "width"])  # type: ignore[untyped-decorator]
def activate_kernel(  # type: ignore[no-untyped-def]
    source, pixels, height, width, first_scale, first_shift, one, one_scale, one_shift, two, two_scale, two_shift,
    channels: tl.constexpr, source_pad: tl.constexpr, pad: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0) * block + tl.arange(0, block)
    channel = tl.arange(0, channels)
    mask = (pixel < pixels)[:, None] & (channel >= 0)[None, :]
    inside = _inside(pixel, height, width, pad)
    picture, y, x = _place(pixel, height, width, pad)
    start = (picture * (height + source_pad) + y) * (width + source_pad) + x
    there = mask & inside[:, None]
    value = tl.load(source + start[:, None] * channels + channel[None, :], mask=there, other=0.0).to(tl.float32)
    all_there = channel >= 0
    if first_scale is not None:
        value = _norm_relu(value, first_scale, first_shift, channel, all_there)
    place = pixel[:, None] * channels + channel[None, :]
    result = tl.where(there, _norm_relu(value, one_scale, one_shift, channel, all_there), 0.0)
    tl.store(one + place, result.to(one.dtype.element_ty), mask=mask)
    if two is not None:
        result = tl.where(there, _norm_relu(value, two_scale, two_shift, channel, all_there), 0.0)
        tl.store(two + place, result.to(two.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["pixels", "height", "width"])  # type: ignore[untyped-decorator]
def activate_and_average_kernel(  # type: ignore[no-untyped-def]
    source, pixels, height, width, first_scale, first_shift, full, full_scale, full_shift, half, half_scale, half_shift,
    channels: tl.constexpr, pad: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0) * block + tl.arange(0, block)
    channel = tl.arange(0, channels)
    all_there = channel >= 0
    mask = (pixel < pixels)[:, None] & all_there[None, :]
    there = mask & _inside(pixel, height, width, pad)[:, None]
    picture, y, x = _place(pixel, height, width, pad)
    pitch = 2 * width + pad
    total = tl.zeros((block, channels), dtype=tl.float32)
    for corner in tl.static_range(4):
        row, column = 2 * y + corner // 2, 2 * x + corner % 2
        start = ((picture * 2 * height + row) * 2 * width + column)[:, None] * channels + channel[None, :]
        value = tl.load(source + start, mask=there, other=0.0).to(tl.float32)
        value = _norm_relu(value, first_scale, first_shift, channel, all_there)
        total += _norm_relu(value, half_scale, half_shift, channel, all_there)
        # A padding pixel at half the resolution has at most one row and column of padding at the full one.
        held = mask & ((row < 2 * height + pad) & (column < pitch))[:, None]
        place = ((picture * (2 * height + pad) + row) * pitch + column)[:, None] * channels + channel[None, :]
        result = tl.where(there, _norm_relu(value, full_scale, full_shift, channel, all_there), 0.0)
        tl.store(full + place, result.to(full.dtype.element_ty), mask=held)
    result = tl.where(there, total * 0.25, 0.0)
    tl.store(half + pixel[:, None] * channels + channel[None, :], result.to(half.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["pixels", "height", "width"])  # type: ignore[untyped-decorator]
def pool_kernel(  # type: ignore[no-untyped-def]
    source, pixels, height, width, raw, active, scale, shift,
    channels: tl.constexpr, pad: tl.constexpr, average: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0) * block + tl.arange(0, block)
    channel = tl.arange(0, channels)
    mask = (pixel < pixels)[:, None] & (channel >= 0)[None, :]
    there = mask & _inside(pixel, height, width, pad)[:, None]
    picture, y, x = _place(pixel, height, width, pad)
    pitch = 2 * width + pad
    start = (picture * (2 * height + pad) + 2 * y) * pitch + 2 * x
    corner = source + start[:, None] * channels + channel[None, :]
    first = tl.load(corner, mask=there, other=0.0).to(tl.float32)
    second = tl.load(corner + channels, mask=there, other=0.0).to(tl.float32)
    third = tl.load(corner + pitch * channels, mask=there, other=0.0).to(tl.float32)
    fourth = tl.load(corner + (pitch + 1) * channels, mask=there, other=0.0).to(tl.float32)
    if average:
        value = (first + second + third + fourth) * 0.25
    else:
        value = tl.maximum(tl.maximum(first, second), tl.maximum(third, fourth))
    place = pixel[:, None] * channels + channel[None, :]
    tl.store(raw + place, value.to(raw.dtype.element_ty), mask=mask)
    if active is not None:
        value = tl.where(there, _norm_relu(value, scale, shift, channel, channel >= 0), 0.0)
        tl.store(active + place, value.to(active.dtype.element_ty), mask=mask)
