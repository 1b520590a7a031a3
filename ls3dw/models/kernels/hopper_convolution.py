"""A warp-specialized 3x3 convolution for Hopper GPUs: one consumer group writes results while the other multiplies.

One program runs on each multiprocessor and loops over tiles of the padded plane (see `convolution_kernels`). A producer
warp loads for all: weights tap by tap, and for 64 channels at a time the tile's pixels with their surroundings, once
for nine taps. A tap is another first row of the loaded pixels: swizzling depends on addresses, so a matrix may begin
within a pattern. Two consumer groups of four warps take every second tile; the tensor cores work for one group while
the other writes.

Loaded data lies in rings: entries with an `empty` and a `full` barrier each. A barrier only tells its phase from the
one before, so a group must not wait for entries ahead of those that the other still waits for: the groups pass a turn.
"""

from __future__ import annotations

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)


@gluon.jit
def inside_pictures(pixel, height, width):  # type: ignore[no-untyped-def]
    return (pixel % (width + 1) < width) & (pixel % ((height + 1) * (width + 1)) < height * (width + 1))


@gluon.jit  # type: ignore[untyped-decorator]
def _seen(buffer, transposed: gl.constexpr):  # type: ignore[no-untyped-def]
    """Return a buffer (pixels, channels) in the layout of the products: channels first if `transposed`."""
    return buffer.permute((1, 0)) if transposed else buffer


@gluon.jit  # type: ignore[untyped-decorator]
def _norm_relu(x, scale, shift, channel, transposed: gl.constexpr):  # type: ignore[no-untyped-def]
    axis: gl.constexpr = 1 if transposed else 0
    normed = x * gl.load(scale + channel).expand_dims(axis) + gl.load(shift + channel).expand_dims(axis)
    return gl.maximum(normed, 0.0, propagate_nan=tl.PropagateNan.ALL)


@gluon.jit  # type: ignore[untyped-decorator]
def _send(plane, buffer, value, first, column, pending: gl.constexpr, transposed: gl.constexpr):  # type: ignore[no-untyped-def]
    """Write a tile through a buffer, which is free once all but the last `pending` copies have ended."""
    tma.store_wait(pending)
    _seen(buffer, transposed).store(value.to(gl.float16))
    fence_async_shared()
    tma.async_copy_shared_to_global(plane, [first, column], buffer)


@gluon.jit  # type: ignore[untyped-decorator]
def _repeat_low(low, buffer, first, column, pixels, height, width, total: gl.constexpr):  # type: ignore[no-untyped-def]
    """Fill a buffer with the pixels of a plane of half the resolution, repeated for a tile."""
    columns: gl.constexpr = buffer.type.shape[1]
    # Wide accesses, unlike the layout of products; as many rows at a time as fit the registers.
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
def write_epilogue_part(  # type: ignore[no-untyped-def]
    part: gl.constexpr, y, inside, piece, first, buffers, residuals, pixels, height, width, writes,
    total: gl.constexpr, transposed: gl.constexpr,
):  # fmt: skip
    """Write the epilogue of some channels of a tile; y has as many parts as a residual."""
    active, scale, shift, out, low, offset, following, following_scale, following_shift = writes
    residual_buffers, residual_empty, residual_full = residuals
    slots: gl.constexpr = buffers.type.shape[0]
    columns: gl.constexpr = buffers.type.shape[2]
    held: gl.constexpr = residual_buffers.type.shape[0]
    layout: gl.constexpr = y.type.layout
    keep = gl.convert_layout(inside, gl.SliceLayout(0 if transposed else 1, layout)).expand_dims(0 if transposed else 1)
    channel = part * columns + gl.arange(0, columns, gl.SliceLayout(1 if transposed else 0, layout))
    place = offset + part * columns
    # Copies alternate between the buffers, except a tile's first: the last tile may have ended with any.
    sent: gl.constexpr = part * (1 + (active is not None) + (following is not None))
    middle: gl.constexpr = sent + (active is not None)
    if active is not None:
        value = gl.where(keep, _norm_relu(y, scale, shift, channel, transposed), 0.0)
        pending: gl.constexpr = 0 if sent == 0 else slots - 1
        _send(active, buffers.index(sent % slots), value, first, part * columns, pending, transposed)
    slot = piece % held
    mbarrier.wait(residual_full.index(slot), piece // held & 1)
    y += _seen(residual_buffers.index(slot), transposed).load(layout).to(gl.float32)
    fence_async_shared()
    mbarrier.arrive(residual_empty.index(slot), count=1)
    buffer = buffers.index(middle % slots)
    free: gl.constexpr = 0 if middle == 0 else slots - 1
    if low is not None:
        tma.store_wait(free)
        _repeat_low(low, buffer, first, place, pixels, height, width, total)
        y += _seen(buffer, transposed).load(layout).to(gl.float32)
    y = gl.where(keep, y, 0.0)
    _send(out, buffer, y, first, place, free, transposed)
    if following is not None:
        value = gl.where(keep, _norm_relu(y, following_scale, following_shift, channel, transposed), 0.0)
        _send(following, buffers.index((middle + 1) % slots), value, first, place, slots - 1, transposed)


@gluon.jit  # type: ignore[untyped-decorator]
def _barriers(count: gl.constexpr):  # type: ignore[no-untyped-def]
    barriers = gl.allocate_shared_memory(gl.int64, [count, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(count):
        mbarrier.init(barriers.index(i), count=1)
    return barriers


@gluon.jit  # type: ignore[untyped-decorator]
def _ring(entries: gl.constexpr, shape: gl.constexpr, layout: gl.constexpr):  # type: ignore[no-untyped-def]
    """Return buffers, and the `empty` and `full` barriers of each."""
    return gl.allocate_shared_memory(gl.float16, shape, layout), _barriers(entries), _barriers(entries)


@gluon.jit  # type: ignore[untyped-decorator]
def _rows(buffers, first, rows: gl.constexpr, layout: gl.constexpr):  # type: ignore[no-untyped-def]
    """Return a swizzled matrix that begins at any row of buffers (n, 8, depth)."""
    depth: gl.constexpr = buffers.type.shape[2]
    lines = buffers._reinterpret(gl.float16, [buffers.type.shape[0] * 8, depth], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    return lines.index(first)._reinterpret(gl.float16, [rows, depth], layout)


@gluon.jit  # type: ignore[untyped-decorator]
def _load_area(source, rest, ring, number, start, depth, area: gl.constexpr):  # type: ignore[no-untyped-def]
    """Load `area` rows from pixel `start` on into entry `number` of the ring: whole boxes, then a small one."""
    buffers, empty, full = ring
    entries: gl.constexpr = buffers.type.shape[0] * 8 // area
    box: gl.constexpr = source.block_type.shape[0]
    small: gl.constexpr = rest.block_type.shape[0]
    layout: gl.constexpr = source.layout
    entry = number % entries
    mbarrier.wait(empty.index(entry), (number // entries & 1) ^ 1)
    mbarrier.expect(full.index(entry), area // box * source.block_type.nbytes + rest.block_type.nbytes)
    for i in gl.static_range(area // box):
        rows = _rows(buffers, entry * area + i * box, box, layout)
        tma.async_copy_global_to_shared(source, [start + i * box, depth], full.index(entry), rows)
    rows = _rows(buffers, (entry + 1) * area - small, small, layout)
    tma.async_copy_global_to_shared(rest, [start + area - small, depth], full.index(entry), rows)


@gluon.jit  # type: ignore[untyped-decorator]
def _produce(  # type: ignore[no-untyped-def]
    source, rest, weight, residual, offset, areas, weights, residuals, tiles, width,
    channels: gl.constexpr, area: gl.constexpr, tile_options: gl.constexpr,
):  # fmt: skip
    """Load for all tiles of this program, in the order in which the groups need it."""
    buffers, empty, full = weights
    residual_buffers, residual_empty, residual_full = residuals
    entries: gl.constexpr = buffers.type.shape[0]
    held: gl.constexpr = residual_buffers.type.shape[0]
    pixels: gl.constexpr = tile_options.pixels
    depth: gl.constexpr = source.block_type.shape[1]
    steps: gl.constexpr = channels // depth
    # By then the entry of the next area is empty or soon will be: its last weights have been read.
    ahead: gl.constexpr = min(entries + 1, 8)
    step_number = 0
    piece = 0
    number = 1
    if gl.program_id(0) < tiles:
        _load_area(source, rest, areas, 0, gl.program_id(0) * pixels - width - 2, 0, area)
    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
        for step in range(9 * steps):
            entry = step_number % entries
            mbarrier.wait(empty.index(entry), (step_number // entries & 1) ^ 1)
            mbarrier.expect(full.index(entry), weight.block_type.nbytes)
            column = step % 9 * channels + step // 9 * depth
            tma.async_copy_global_to_shared(weight, [0, column], full.index(entry), buffers.index(entry))
            step_number += 1
            if step % 9 == ahead:
                last = step // 9 == steps - 1
                next_tile = tile + gl.where(last, gl.num_programs(0), 0)
                if next_tile < tiles:
                    start = next_tile * pixels - width - 2
                    _load_area(source, rest, areas, number, start, gl.where(last, 0, (step // 9 + 1) * depth), area)
                number += 1
            if step == 9 * steps // 2:
                for part in gl.static_range(weight.block_type.shape[0] // residual.block_type.shape[1]):
                    slot = piece % held
                    mbarrier.wait(residual_empty.index(slot), (piece // held & 1) ^ 1)
                    mbarrier.expect(residual_full.index(slot), residual.block_type.nbytes)
                    place = [tile * pixels, offset + part * residual.block_type.shape[1]]
                    tma.async_copy_global_to_shared(
                        residual, place, residual_full.index(slot), residual_buffers.index(slot)
                    )
                    piece += 1


@gluon.jit  # type: ignore[untyped-decorator]
def _consume(  # type: ignore[no-untyped-def]
    who: gl.constexpr, turn, areas, weights, buffers, residuals, tiles, pixels, height, width, writes,
    channels: gl.constexpr, area: gl.constexpr, total: gl.constexpr, tile_options: gl.constexpr,
):  # fmt: skip
    """Multiply every second tile and write its epilogue."""
    area_buffers, area_empty, area_full = areas
    weight_buffers, empty, full = weights
    entries: gl.constexpr = weight_buffers.type.shape[0]
    outputs: gl.constexpr = weight_buffers.type.shape[1]
    swizzled: gl.constexpr = weight_buffers.type.layout
    area_entries: gl.constexpr = area_buffers.type.shape[0] * 8 // area
    steps: gl.constexpr = channels // weight_buffers.type.shape[2]
    tile_pixels: gl.constexpr = tile_options.pixels
    transposed: gl.constexpr = tile_options.transposed
    parts: gl.constexpr = outputs // buffers.type.shape[2]
    rows: gl.constexpr = outputs if transposed else tile_pixels
    columns: gl.constexpr = tile_pixels if transposed else outputs
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, columns, 16])
    number = who
    for tile in range(gl.program_id(0) + who * gl.num_programs(0), tiles, 2 * gl.num_programs(0)):
        step_number = number * 9 * steps
        area_number = number * steps
        y = gl.zeros([rows, columns], gl.float32, layout)
        mbarrier.wait(turn.index(who), (number // 2 & 1) ^ (who == 0))
        for step in range(9 * steps):
            entry = step_number % entries
            tap = step % 9
            area_entry = area_number % area_entries
            mbarrier.wait(area_full.index(area_entry), area_number // area_entries & 1, pred=tap == 0)
            mbarrier.wait(full.index(entry), step_number // entries & 1)
            tap_row = area_entry * area + tap // 3 * (width + 1) + tap % 3
            seen = _rows(area_buffers, tap_row, tile_pixels, swizzled)
            if transposed:
                y = warpgroup_mma(weight_buffers.index(entry), seen.permute((1, 0)), y, is_async=True)
            else:
                y = warpgroup_mma(seen, weight_buffers.index(entry).permute((1, 0)), y, is_async=True)
            # One product stays in flight; the one before it has read its entries.
            y = warpgroup_mma_wait(1, deps=(y,))
            mbarrier.arrive(empty.index((step_number + entries - 1) % entries), count=1, pred=step > 0)
            previous = area_empty.index((area_number + area_entries - 1) % area_entries)
            mbarrier.arrive(previous, count=1, pred=(step > 0) & (tap == 0))
            mbarrier.arrive(turn.index(1 - who), count=1, pred=step == 9 * steps - 1)
            step_number += 1
            area_number += gl.where(tap == 8, 1, 0)
        y = warpgroup_mma_wait(0, deps=(y,))
        mbarrier.arrive(empty.index((step_number + entries - 1) % entries), count=1)
        mbarrier.arrive(area_empty.index((area_number + area_entries - 1) % area_entries), count=1)
        first = tile * tile_pixels
        # A thread has few rows but many columns: shared, the positions of columns are computed once.
        line: gl.constexpr = gl.BlockedLayout([tile_pixels // 128], [32], [4], [0])
        shared: gl.constexpr = line if transposed else gl.SliceLayout(1, layout)
        inside = inside_pictures(first + gl.arange(0, tile_pixels, shared), height, width)
        halves = y.reshape([rows, 2, columns // 2]).permute([0, 2, 1]).split() if parts == 2 else (y,)
        for part in gl.static_range(parts):
            write_epilogue_part(
                part, halves[part], inside, number * parts + part, first, buffers, residuals,
                pixels, height, width, writes, total, transposed,
            )  # fmt: skip
        number += 2
    tma.store_wait(0)


@gluon.jit(do_not_specialize=["pixels", "height", "width"])  # type: ignore[untyped-decorator]
def warp_specialized_conv_kernel(  # type: ignore[no-untyped-def]
    source, rest, weight, pixels, height, width,
    active, scale, shift, out, residual, low, offset, following, following_scale, following_shift,
    channels: gl.constexpr, total: gl.constexpr, area: gl.constexpr, tile_options: gl.constexpr,
):  # fmt: skip
    """Convolve with weight.shape[0] outputs; rest: boxes of 8 rows of the source; area: rows a tile depends on."""
    outputs: gl.constexpr = weight.block_type.shape[0]
    depth: gl.constexpr = source.block_type.shape[1]
    part: gl.constexpr = out.block_type.shape[1]
    tile_pixels: gl.constexpr = tile_options.pixels
    swizzled: gl.constexpr = source.layout
    entries: gl.constexpr = tile_options.weights
    held: gl.constexpr = tile_options.residuals
    slots: gl.constexpr = tile_options.results
    tiles = gl.cdiv(pixels, tile_pixels)
    areas = _ring(2, [2 * area // 8, 8, depth], swizzled)
    weights = _ring(entries, [entries, outputs, depth], swizzled)
    residuals = _ring(held, [held, tile_pixels, part], swizzled)
    buffers = gl.allocate_shared_memory(gl.float16, [slots, tile_pixels, part], swizzled)
    more_buffers = gl.allocate_shared_memory(gl.float16, [slots, tile_pixels, part], swizzled)
    turn = _barriers(2)
    fence_async_shared()
    writes = (active, scale, shift, out, low, offset, following, following_scale, following_shift)
    gl.warp_specialize(
        [
            (_consume, (
                0, turn, areas, weights, buffers, residuals, tiles, pixels, height, width, writes,
                channels, area, total, tile_options,
            )),
            (_consume, (
                1, turn, areas, weights, more_buffers, residuals, tiles, pixels, height, width, writes,
                channels, area, total, tile_options,
            )),
            (_produce, (
                source, rest, weight, residual, offset, areas, weights, residuals, tiles, width,
                channels, area, tile_options,
            )),
        ],
        [4, 1],
        [232, 40],
    )  # fmt: skip
