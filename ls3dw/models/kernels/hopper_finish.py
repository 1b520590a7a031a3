"""What a group of `fused_gluon` does when it has multiplied: it writes what `Finish` asks for of its tile."""

from __future__ import annotations

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, tma


@gluon.jit
def inside_pictures(pixel, height, width):  # type: ignore[no-untyped-def]
    return (pixel % (width + 1) < width) & (pixel % ((height + 1) * (width + 1)) < height * (width + 1))


@gluon.jit  # type: ignore[untyped-decorator]
def _seen(buffer, turned: gl.constexpr):  # type: ignore[no-untyped-def]
    """Return a buffer (pixels, channels) as products are: with channels first where they are turned."""
    return buffer.permute((1, 0)) if turned else buffer


@gluon.jit  # type: ignore[untyped-decorator]
def _norm_relu(x, scale, shift, channel, turned: gl.constexpr):  # type: ignore[no-untyped-def]
    axis: gl.constexpr = 1 if turned else 0
    normed = x * gl.load(scale + channel).expand_dims(axis) + gl.load(shift + channel).expand_dims(axis)
    return gl.maximum(normed, 0.0, propagate_nan=tl.PropagateNan.ALL)


@gluon.jit  # type: ignore[untyped-decorator]
def _send(plane, buffer, value, first, column, pending: gl.constexpr, turned: gl.constexpr):  # type: ignore[no-untyped-def]
    """Write a tile by way of a buffer, free when all copies but the last `pending` have left theirs."""
    tma.store_wait(pending)
    _seen(buffer, turned).store(value.to(gl.float16))
    fence_async_shared()
    tma.async_copy_shared_to_global(plane, [first, column], buffer)


@gluon.jit  # type: ignore[untyped-decorator]
def _repeat_low(low, buffer, first, column, pixels, height, width, total: gl.constexpr):  # type: ignore[no-untyped-def]
    """Fill a buffer with the pixels of a plane of half the resolution that belong to a tile's."""
    columns: gl.constexpr = buffer.type.shape[1]
    # Wide accesses, which the layout of products has not; and no more rows at a time than there are registers for.
    wide: gl.constexpr = gl.BlockedLayout([1, 8], [256 // columns, columns // 8], [4, 1], [1, 0])
    rows: gl.constexpr = 64
    channel = column + gl.arange(0, columns, gl.SliceLayout(0, wide))
    pitch = width + 1
    for part in gl.static_range(buffer.type.shape[0] // rows):
        pixel = first + part * rows + gl.arange(0, rows, gl.SliceLayout(1, wide))
        there = inside_pictures(pixel, height, width) & (pixel < pixels)
        picture = pixel // ((height + 1) * pitch)
        row = pixel // pitch - picture * (height + 1)
        below = (picture * (height // 2 + 1) + row // 2) * (width // 2 + 1) + pixel % pitch // 2
        value = gl.load(low + below[:, None] * total + channel[None, :], mask=there[:, None], other=0.0)
        buffer.slice(part * rows, rows, dim=0).store(value)


@gluon.jit  # type: ignore[untyped-decorator]
def finish_part(  # type: ignore[no-untyped-def]
    part: gl.constexpr, y, inside, piece, first, buffers, residuals, pixels, height, width, writes,
    total: gl.constexpr, turned: gl.constexpr,
):  # fmt: skip
    """Write what `Finish` asks for of some channels of a tile; y is cut into as many parts as a residual is."""
    active, scale, shift, out, low, offset, following, following_scale, following_shift = writes
    residual_buffers, residual_read, residual_come = residuals
    slots: gl.constexpr = buffers.type.shape[0]
    columns: gl.constexpr = buffers.type.shape[2]
    held: gl.constexpr = residual_buffers.type.shape[0]
    layout: gl.constexpr = y.type.layout
    keep = gl.convert_layout(inside, gl.SliceLayout(0 if turned else 1, layout)).expand_dims(0 if turned else 1)
    channel = part * columns + gl.arange(0, columns, gl.SliceLayout(1 if turned else 0, layout))
    place = offset + part * columns
    # Copies take turns with the buffers, but a tile's first: the tile before may have left off at any.
    sent: gl.constexpr = part * (1 + (active is not None) + (following is not None))
    middle: gl.constexpr = sent + (active is not None)
    if active is not None:
        value = gl.where(keep, _norm_relu(y, scale, shift, channel, turned), 0.0)
        pending: gl.constexpr = 0 if sent == 0 else slots - 1
        _send(active, buffers.index(sent % slots), value, first, part * columns, pending, turned)
    slot = piece % held
    mbarrier.wait(residual_come.index(slot), piece // held & 1)
    y += _seen(residual_buffers.index(slot), turned).load(layout).to(gl.float32)
    fence_async_shared()
    mbarrier.arrive(residual_read.index(slot), count=1)
    buffer = buffers.index(middle % slots)
    free: gl.constexpr = 0 if middle == 0 else slots - 1
    if low is not None:
        tma.store_wait(free)
        _repeat_low(low, buffer, first, place, pixels, height, width, total)
        y += _seen(buffer, turned).load(layout).to(gl.float32)
    y = gl.where(keep, y, 0.0)
    _send(out, buffer, y, first, place, free, turned)
    if following is not None:
        value = gl.where(keep, _norm_relu(y, following_scale, following_shift, channel, turned), 0.0)
        _send(following, buffers.index((middle + 1) % slots), value, first, place, slots - 1, turned)
