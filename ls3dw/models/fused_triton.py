"""The fused FAN's operations as Triton kernels; see `fused_ops` for what each does.

A 3x3 convolution runs over the flattened pixels of a padded plane: with the pitch p of a row, tap (dy, dx) of pixel i
is pixel i + dy p + dx, so that the convolution is a plain matrix product whose tiles of A are moved by the tap. What is
computed for the pixels of the padding is thrown away, and zero written instead: 3 % of the work at 64x64, 6 % at 32x32.
Tiles come through tensor descriptors, which give zero beyond the ends of the plane.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from ls3dw.models.fan import Pooling
from ls3dw.models.fused_ops import Activation, Affine, Finish, Plane, Weights, convolve_densely, in_two_steps

MOST_ELEMENTS = 2**31
"""Kernels count elements of a plane in 32 bits."""

MOST_HIDDEN = 256
"""Channels between two 1x1 convolutions that a program can keep in registers for its pixels."""

_ELEMENTS = 4096
"""Elements of a plane that a program of the elementwise kernels handles."""


@dataclass(frozen=True)
class Tile:
    """How a convolution is cut: pixels x outputs a program, `depth` products a step, with Triton's warps and stages.

    registers: the most a thread may have, None for the compiler's choice; 128 let two programs of 8 warps share a
    multiprocessor, so that one multiplies while the other writes.
    turned: multiply weights by pixels instead of pixels by weights. A matrix instruction takes 64 rows and up to 256
    columns; with 64 outputs or fewer, weights as rows and pixels as columns read less shared memory.
    whole: results leave, and the residual comes, as whole tiles by descriptors instead of element by element; the
    convolution's outputs must then be a multiple of the tile's.
    """

    pixels: int
    outputs: int
    depth: int
    warps: int
    stages: int
    turned: bool = False
    registers: int | None = None
    whole: bool = False


@dataclass(frozen=True)
class Shape:
    """What decides about a convolution's tile: all pixels with padding, channels, taps."""

    pixels: int
    inputs: int
    outputs: int
    taps: int


def tile_for(shape: Shape) -> Tile:
    """Choose a tile by the measurements of benchmarks/fused.py on an H100."""
    depth, width = min(64, shape.inputs), _power_of_two(shape.outputs)
    if shape.pixels < 2**17:
        # Few pixels: smaller tiles, so that every multiprocessor has some.
        return Tile(128 if width > 64 and shape.pixels >= 2**15 else 64, min(64, width), depth, 4, 4)
    whole = width == shape.outputs
    if width <= 32:
        return Tile(256, width, depth, 8, 3, whole=whole)
    return Tile(128, min(128, width), depth, 4, 3, whole=whole)


def _power_of_two(number: int) -> int:
    return max(16, 1 << (number - 1).bit_length())


class TritonOperations:
    """The operations as kernels, with convolutions that finish their own results. pad is 1.

    tiles: for shapes that should not have the tile of `tile_for`. Channels must be powers of two of at least 16.
    """

    pad = 1

    def __init__(self, tiles: dict[Shape, Tile] | None = None) -> None:
        self.tiles = tiles or {}

    def empty(self, batch: int, height: int, width: int, channels: int, like: Tensor) -> Plane:
        shape = (batch, height + self.pad, width + self.pad, channels)
        if (elements := batch * shape[1] * shape[2] * channels) >= MOST_ELEMENTS:
            raise ValueError(f"{batch} pictures make a plane of {elements} elements; expected fewer than 2^31")
        return Plane(torch.empty(shape, dtype=like.dtype, device=like.device), self.pad)

    def convolve(self, source: Plane, weights: Weights, finish: Finish) -> None:
        shape = Shape(source.data.shape[:3].numel(), weights.inputs, weights.outputs, weights.taps)
        convolve(source, weights, finish, self.tiles.get(shape) or tile_for(shape))

    def convolve_twice(self, source: Plane, first: Weights, norm: Affine, second: Weights, finish: Finish) -> None:
        if first.outputs <= MOST_HIDDEN:
            convolve_twice(source, first, norm, second, finish)
        else:
            in_two_steps(self, source, first, norm, second, finish)

    def activate(self, source: Plane, first: Affine | None, results: list[Activation]) -> None:
        one, *more = results
        two = more[0] if more else None
        target = one.plane.data
        pixels, channels = target.shape[:3].numel(), target.shape[3]
        block = max(1, _ELEMENTS // channels)
        _activate[(triton.cdiv(pixels, block),)](
            source.data,
            pixels,
            *_size(one.plane),
            *(_norm(first)),
            one.plane.data,
            *_norm(one.norm),
            None if two is None else two.plane.data,
            *_norm(None if two is None else two.norm),
            channels=channels,
            source_pad=source.pad,
            pad=one.plane.pad,
            block=block,
        )

    def activate_and_average(self, source: Plane, first: Affine, full: Activation, half: Activation) -> None:
        # Over the padded pixels at half the resolution; one more row and column of them covers the full one's padding.
        data = half.plane.data
        pixels, channels = data.shape[:3].numel(), data.shape[3]
        block = max(1, _ELEMENTS // 4 // channels)
        _activate_and_average[(triton.cdiv(pixels, block),)](
            source.data,
            pixels,
            *_size(half.plane),
            *_norm(first),
            full.plane.data,
            *_norm(full.norm),
            data,
            *_norm(half.norm),
            channels=channels,
            pad=self.pad,
            block=block,
        )

    def pool(self, source: Plane, pooling: Pooling, raw: Plane, active: Activation | None) -> None:
        pixels, channels = raw.data.shape[:3].numel(), raw.data.shape[3]
        block = max(1, _ELEMENTS // channels)
        _pool[(triton.cdiv(pixels, block),)](
            source.data,
            pixels,
            *_size(raw),
            raw.data,
            None if active is None else active.plane.data,
            *_norm(None if active is None else active.norm),
            channels=channels,
            pad=self.pad,
            average=pooling == "avg",
            block=block,
        )


class CudnnOperations(TritonOperations):
    """The operations as kernels but for the convolutions, which are torch's with one pass over each result."""

    pad = 0

    def convolve(self, source: Plane, weights: Weights, finish: Finish) -> None:
        finish_densely(convolve_densely(source, weights).contiguous(), weights, finish)

    def convolve_twice(self, source: Plane, first: Weights, norm: Affine, second: Weights, finish: Finish) -> None:
        in_two_steps(self, source, first, norm, second, finish)


def convolve(source: Plane, weights: Weights, finish: Finish, tile: Tile) -> None:
    """Convolve a padded plane by the matrix kernel, cut as `tile` says."""
    data = _flat(source)
    pixels, outputs = len(data), weights.outputs
    if tile.whole and outputs % tile.outputs:
        raise ValueError(f"{outputs} outputs in whole tiles of {tile.outputs}; expected a multiple")
    grid = (triton.cdiv(pixels, tile.pixels) * triton.cdiv(outputs, tile.outputs),)
    _convolve[grid](
        TensorDescriptor.from_tensor(data, [tile.pixels, tile.depth]),
        TensorDescriptor.from_tensor(weights.weight, [tile.outputs, tile.depth]),
        pixels,
        *_size(source),
        *_finish(weights.bias, finish, tile if tile.whole else None),
        channels=weights.inputs,
        outputs=outputs,
        taps=weights.taps,
        block_pixels=tile.pixels,
        block_outputs=tile.outputs,
        block_depth=tile.depth,
        turned=tile.turned,
        whole=tile.whole,
        num_warps=tile.warps,
        num_stages=tile.stages,
        maxnreg=tile.registers,
    )


def convolve_twice(source: Plane, first: Weights, norm: Affine, second: Weights, finish: Finish) -> None:
    """Apply two 1x1 convolutions by a kernel that keeps what lies between them on the chip."""
    data = _flat(source)
    pixels, depth, outputs = 128, min(64, first.inputs), 64
    _convolve_twice[(triton.cdiv(len(data), pixels),)](
        TensorDescriptor.from_tensor(data, [pixels, depth]),
        TensorDescriptor.from_tensor(first.weight, [first.outputs, depth]),
        TensorDescriptor.from_tensor(second.weight, [outputs, second.inputs]),
        len(data),
        *_size(source),
        *_norm(norm),
        *_finish(second.bias, finish, None),
        channels=first.inputs,
        hidden=first.outputs,
        outputs=second.outputs,
        block_pixels=pixels,
        block_outputs=outputs,
        block_depth=depth,
        num_warps=8,
        num_stages=3,
    )


def finish_densely(y: Tensor, weights: Weights, finish: Finish) -> None:
    """Finish a convolution's result y (N, H, W, outputs) into planes without padding."""
    pixels, outputs = y.shape[:3].numel(), y.shape[3]
    width = _power_of_two(outputs)
    block = max(1, _ELEMENTS // width)
    grid = (triton.cdiv(pixels, block),)
    arguments = _finish(weights.bias, finish, None)
    _finish_dense[grid](y, pixels, *_size(Plane(y, 0)), *arguments, outputs=outputs, block=block, block_outputs=width)


def _size(plane: Plane) -> tuple[int, int]:
    height, width = plane.data.shape[1:3]
    return height - plane.pad, width - plane.pad


def _norm(norm: Affine | None) -> tuple[Tensor | None, Tensor | None]:
    return (None, None) if norm is None else (norm.scale, norm.shift)


def _finish(bias: Tensor | None, finish: Finish, tile: Tile | None) -> tuple[object, ...]:
    """Return the arguments that kernels share from `bias` on; with a tile, planes as descriptors of such tiles."""

    def given(plane: Plane | None) -> Tensor | TensorDescriptor | None:
        if plane is None or tile is None:
            return None if plane is None else plane.data
        return TensorDescriptor.from_tensor(_flat(plane), [tile.pixels, tile.outputs])

    active, plane, following = finish.active, finish.plane, finish.following
    return (
        bias,
        given(None if active is None else active.plane),
        *_norm(None if active is None else active.norm),
        given(plane),
        given(finish.residual),
        None if finish.low is None else finish.low.data,
        finish.offset,
        0 if plane is None else plane.data.shape[3],
        given(None if following is None else following.plane),
        *_norm(None if following is None else following.norm),
    )


def _flat(plane: Plane) -> Tensor:
    return plane.data.view(-1, plane.data.shape[3])


@triton.jit  # type: ignore[untyped-decorator]
def _inside(pixel, height, width, pad: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return whether pixels of a padded plane belong to pictures."""
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
    return tl.maximum(x * factor + tl.load(shift + channel, mask=there, other=0.0)[None, :], 0.0)


@triton.jit  # type: ignore[untyped-decorator]
def _store(plane, value, first, column, place, mask, whole: tl.constexpr):  # type: ignore[no-untyped-def]
    """Write a tile by its plane's descriptor, or from the pointers that its elements have."""
    if whole:
        plane.store([first, column], value.to(plane.dtype))
    else:
        tl.store(plane + place, value.to(plane.dtype.element_ty), mask=mask)


@triton.jit  # type: ignore[untyped-decorator]
def _write(  # type: ignore[no-untyped-def]
    y, first, column, pixels, height, width, outputs,
    bias, active, scale, shift, out, residual, low, offset, out_channels, following, following_scale, following_shift,
    block_pixels: tl.constexpr, block_outputs: tl.constexpr, pad: tl.constexpr, whole: tl.constexpr,
):  # fmt: skip
    """Write what `Finish` asks for of a tile y (pixels, channels) float32; zero where pixels are not inside."""
    pixel, channel = first + tl.arange(0, block_pixels), column + tl.arange(0, block_outputs)
    inside = _inside(pixel, height, width, pad)
    there = channel < outputs
    mask = (pixel < pixels)[:, None] & there[None, :]
    place = pixel[:, None] * out_channels + (offset + channel)[None, :]
    if bias is not None:
        y += tl.load(bias + channel, mask=there, other=0.0)[None, :]
    if active is not None:
        value = tl.where(inside[:, None], _norm_relu(y, scale, shift, channel, there), 0.0)
        _store(active, value, first, column, pixel[:, None] * outputs + channel[None, :], mask, whole)
    if out is not None:
        if residual is not None:
            if whole:
                y += residual.load([first, offset + column]).to(tl.float32)
            else:
                y += tl.load(residual + place, mask=mask, other=0.0).to(tl.float32)
        if low is not None:
            picture, row, x = _place(pixel, height, width, pad)
            below = (picture * (height // 2 + pad) + row // 2) * (width // 2 + pad) + x // 2
            repeated = low + below[:, None] * out_channels + (offset + channel)[None, :]
            y += tl.load(repeated, mask=mask & inside[:, None], other=0.0).to(tl.float32)
        y = tl.where(inside[:, None], y, 0.0)
        _store(out, y, first, offset + column, place, mask, whole)
        if following is not None:
            value = tl.where(inside[:, None], _norm_relu(y, following_scale, following_shift, channel, there), 0.0)
            _store(following, value, first, offset + column, place, mask, whole)


@triton.jit(do_not_specialize=["pixels", "height", "width"])  # type: ignore[untyped-decorator]
def _convolve(  # type: ignore[no-untyped-def]
    source, weight, pixels, height, width,
    bias, active, scale, shift, out, residual, low, offset, out_channels, following, following_scale, following_shift,
    channels: tl.constexpr, outputs: tl.constexpr, taps: tl.constexpr,
    block_pixels: tl.constexpr, block_outputs: tl.constexpr, block_depth: tl.constexpr, turned: tl.constexpr,
    whole: tl.constexpr,
):  # fmt: skip
    # Neighbours in number share pixels, not outputs: pixels are the larger operand.
    across: tl.constexpr = (outputs + block_outputs - 1) // block_outputs
    steps: tl.constexpr = channels // block_depth
    first = tl.program_id(0) // across * block_pixels
    column = tl.program_id(0) % across * block_outputs
    if turned:
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
        sums = tl.dot(b, a.T, sums) if turned else tl.dot(a, b.T, sums)
    y = sums.T if turned else sums
    _write(
        y, first, column, pixels, height, width, outputs,
        bias, active, scale, shift,
        out, residual, low, offset, out_channels, following, following_scale, following_shift,
        block_pixels, block_outputs, 1, whole,
    )  # fmt: skip


@triton.jit(do_not_specialize=["pixels", "height", "width"])  # type: ignore[untyped-decorator]
def _convolve_twice(  # type: ignore[no-untyped-def]
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
def _finish_dense(  # type: ignore[no-untyped-def]
    result, pixels, height, width,
    bias, active, scale, shift, out, residual, low, offset, out_channels, following, following_scale, following_shift,
    outputs: tl.constexpr, block: tl.constexpr, block_outputs: tl.constexpr,
):  # fmt: skip
    first = tl.program_id(0) * block
    pixel, channel = first + tl.arange(0, block), tl.arange(0, block_outputs)
    mask = (pixel < pixels)[:, None] & (channel < outputs)[None, :]
    y = tl.load(result + pixel[:, None] * outputs + channel[None, :], mask=mask, other=0.0).to(tl.float32)
    _write(
        y, first, 0, pixels, height, width, outputs,
        bias, active, scale, shift,
        out, residual, low, offset, out_channels, following, following_scale, following_shift,
        block, block_outputs, 0, False,
    )  # fmt: skip


@triton.jit(do_not_specialize=["pixels", "height", "width"])  # type: ignore[untyped-decorator]
def _activate(  # type: ignore[no-untyped-def]
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
def _activate_and_average(  # type: ignore[no-untyped-def]
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
        # A pixel of the padding at half the resolution has at most one row and column of padding at the full one.
        held = mask & ((row < 2 * height + pad) & (column < pitch))[:, None]
        place = ((picture * (2 * height + pad) + row) * pitch + column)[:, None] * channels + channel[None, :]
        result = tl.where(there, _norm_relu(value, full_scale, full_shift, channel, all_there), 0.0)
        tl.store(full + place, result.to(full.dtype.element_ty), mask=held)
    result = tl.where(there, total * 0.25, 0.0)
    tl.store(half + pixel[:, None] * channels + channel[None, :], result.to(half.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["pixels", "height", "width"])  # type: ignore[untyped-decorator]
def _pool(  # type: ignore[no-untyped-def]
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
