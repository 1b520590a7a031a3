"""A 3x3 convolution for Hopper GPUs whose parts take turns: one writes its results while another multiplies.

A program keeps a multiprocessor and goes from tile to tile of the padded plane (see `fused_kernels`). One warp fetches
for all: weights tap by tap, and for 64 channels at a time the tile's pixels with all around them, once for nine taps. A
tap is another first row in what was fetched: swizzling goes by addresses, so a matrix may begin within a pattern. Two
groups of four warps take every second tile; the tensor cores are one group's while the other writes.

What is fetched waits in rings: entries, each with a barrier that tells that it has been read and one that it has come.
A barrier only tells its phase from the one before, so a group must not ask for entries ahead of those that the other
still waits for: the groups pass a turn to each other.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from ls3dw.models.kernels.hopper_finish import finish_part, inside_pictures


@gluon.jit  # type: ignore[untyped-decorator]
def _barriers(count: gl.constexpr):  # type: ignore[no-untyped-def]
    barriers = gl.allocate_shared_memory(gl.int64, [count, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(count):
        mbarrier.init(barriers.index(i), count=1)
    return barriers


@gluon.jit  # type: ignore[untyped-decorator]
def _ring(entries: gl.constexpr, shape: gl.constexpr, layout: gl.constexpr):  # type: ignore[no-untyped-def]
    """Return buffers, and barriers that each has been read and has come."""
    return gl.allocate_shared_memory(gl.float16, shape, layout), _barriers(entries), _barriers(entries)


@gluon.jit  # type: ignore[untyped-decorator]
def _rows(buffers, first, rows: gl.constexpr, layout: gl.constexpr):  # type: ignore[no-untyped-def]
    """Return a swizzled matrix that begins at any row of buffers (n, 8, depth)."""
    depth: gl.constexpr = buffers.type.shape[2]
    lines = buffers._reinterpret(gl.float16, [buffers.type.shape[0] * 8, depth], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    return lines.index(first)._reinterpret(gl.float16, [rows, depth], layout)


@gluon.jit  # type: ignore[untyped-decorator]
def _fetch_area(source, rest, ring, number, start, depth, area: gl.constexpr):  # type: ignore[no-untyped-def]
    """Fetch `area` rows from pixel `start` on as the ring's entry `number`: whole boxes, and a small one at the end."""
    buffers, read, come = ring
    entries: gl.constexpr = buffers.type.shape[0] * 8 // area
    box: gl.constexpr = source.block_type.shape[0]
    small: gl.constexpr = rest.block_type.shape[0]
    layout: gl.constexpr = source.layout
    entry = number % entries
    mbarrier.wait(read.index(entry), (number // entries & 1) ^ 1)
    mbarrier.expect(come.index(entry), area // box * source.block_type.nbytes + rest.block_type.nbytes)
    for i in gl.static_range(area // box):
        rows = _rows(buffers, entry * area + i * box, box, layout)
        tma.async_copy_global_to_shared(source, [start + i * box, depth], come.index(entry), rows)
    rows = _rows(buffers, (entry + 1) * area - small, small, layout)
    tma.async_copy_global_to_shared(rest, [start + area - small, depth], come.index(entry), rows)


@gluon.jit  # type: ignore[untyped-decorator]
def _produce(  # type: ignore[no-untyped-def]
    source, rest, weight, residual, offset, areas, weights, residuals, tiles, width,
    channels: gl.constexpr, area: gl.constexpr, turns: gl.constexpr,
):  # fmt: skip
    """Fetch for all tiles of this program, in the order in which the groups ask for it."""
    buffers, read, come = weights
    residual_buffers, residual_read, residual_come = residuals
    entries: gl.constexpr = buffers.type.shape[0]
    held: gl.constexpr = residual_buffers.type.shape[0]
    pixels: gl.constexpr = turns.pixels
    depth: gl.constexpr = source.block_type.shape[1]
    steps: gl.constexpr = channels // depth
    # By then what the next area takes the place of has been read, or soon will be: its last weights are.
    ahead: gl.constexpr = min(entries + 1, 8)
    step_number = 0
    piece = 0
    number = 1
    if gl.program_id(0) < tiles:
        _fetch_area(source, rest, areas, 0, gl.program_id(0) * pixels - width - 2, 0, area)
    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
        for step in range(9 * steps):
            entry = step_number % entries
            mbarrier.wait(read.index(entry), (step_number // entries & 1) ^ 1)
            mbarrier.expect(come.index(entry), weight.block_type.nbytes)
            column = step % 9 * channels + step // 9 * depth
            tma.async_copy_global_to_shared(weight, [0, column], come.index(entry), buffers.index(entry))
            step_number += 1
            if step % 9 == ahead:
                last = step // 9 == steps - 1
                next_tile = tile + gl.where(last, gl.num_programs(0), 0)
                if next_tile < tiles:
                    start = next_tile * pixels - width - 2
                    _fetch_area(source, rest, areas, number, start, gl.where(last, 0, (step // 9 + 1) * depth), area)
                number += 1
            if step == 9 * steps // 2:
                for part in gl.static_range(weight.block_type.shape[0] // residual.block_type.shape[1]):
                    slot = piece % held
                    mbarrier.wait(residual_read.index(slot), (piece // held & 1) ^ 1)
                    mbarrier.expect(residual_come.index(slot), residual.block_type.nbytes)
                    place = [tile * pixels, offset + part * residual.block_type.shape[1]]
                    tma.async_copy_global_to_shared(
                        residual, place, residual_come.index(slot), residual_buffers.index(slot)
                    )
                    piece += 1


@gluon.jit  # type: ignore[untyped-decorator]
def _consume(  # type: ignore[no-untyped-def]
    who: gl.constexpr, turn, areas, weights, buffers, residuals, tiles, pixels, height, width, writes,
    channels: gl.constexpr, area: gl.constexpr, total: gl.constexpr, turns: gl.constexpr,
):  # fmt: skip
    """Multiply and finish every second tile."""
    area_buffers, area_read, area_come = areas
    weight_buffers, read, come = weights
    entries: gl.constexpr = weight_buffers.type.shape[0]
    outputs: gl.constexpr = weight_buffers.type.shape[1]
    swizzled: gl.constexpr = weight_buffers.type.layout
    area_entries: gl.constexpr = area_buffers.type.shape[0] * 8 // area
    steps: gl.constexpr = channels // weight_buffers.type.shape[2]
    tile_pixels: gl.constexpr = turns.pixels
    turned: gl.constexpr = turns.turned
    parts: gl.constexpr = outputs // buffers.type.shape[2]
    rows: gl.constexpr = outputs if turned else tile_pixels
    columns: gl.constexpr = tile_pixels if turned else outputs
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
            mbarrier.wait(area_come.index(area_entry), area_number // area_entries & 1, pred=tap == 0)
            mbarrier.wait(come.index(entry), step_number // entries & 1)
            tap_row = area_entry * area + tap // 3 * (width + 1) + tap % 3
            seen = _rows(area_buffers, tap_row, tile_pixels, swizzled)
            if turned:
                y = warpgroup_mma(weight_buffers.index(entry), seen.permute((1, 0)), y, is_async=True)
            else:
                y = warpgroup_mma(seen, weight_buffers.index(entry).permute((1, 0)), y, is_async=True)
            # One product stays under way; the one before it has read its entries.
            y = warpgroup_mma_wait(1, deps=(y,))
            mbarrier.arrive(read.index((step_number + entries - 1) % entries), count=1, pred=step > 0)
            previous = area_read.index((area_number + area_entries - 1) % area_entries)
            mbarrier.arrive(previous, count=1, pred=(step > 0) & (tap == 0))
            mbarrier.arrive(turn.index(1 - who), count=1, pred=step == 9 * steps - 1)
            step_number += 1
            area_number += gl.where(tap == 8, 1, 0)
        y = warpgroup_mma_wait(0, deps=(y,))
        mbarrier.arrive(read.index((step_number + entries - 1) % entries), count=1)
        mbarrier.arrive(area_read.index((area_number + area_entries - 1) % area_entries), count=1)
        first = tile * tile_pixels
        # A thread has few rows but many columns, whose places it had better not compute by itself.
        line: gl.constexpr = gl.BlockedLayout([tile_pixels // 128], [32], [4], [0])
        shared: gl.constexpr = line if turned else gl.SliceLayout(1, layout)
        inside = inside_pictures(first + gl.arange(0, tile_pixels, shared), height, width)
        halves = y.reshape([rows, 2, columns // 2]).permute([0, 2, 1]).split() if parts == 2 else (y,)
        for part in gl.static_range(parts):
            finish_part(
                part, halves[part], inside, number * parts + part, first, buffers, residuals,
                pixels, height, width, writes, total, turned,
            )  # fmt: skip
        number += 2
    tma.store_wait(0)


@gluon.jit(do_not_specialize=["pixels", "height", "width"])  # type: ignore[untyped-decorator]
def convolve_in_turns_kernel(  # type: ignore[no-untyped-def]
    source, rest, weight, pixels, height, width,
    active, scale, shift, out, residual, low, offset, following, following_scale, following_shift,
    channels: gl.constexpr, total: gl.constexpr, area: gl.constexpr, turns: gl.constexpr,
):  # fmt: skip
    """Convolve with weight.shape[0] outputs; rest: boxes of 8 rows of the source; area: rows a tile depends on."""
    outputs: gl.constexpr = weight.block_type.shape[0]
    depth: gl.constexpr = source.block_type.shape[1]
    part: gl.constexpr = out.block_type.shape[1]
    tile_pixels: gl.constexpr = turns.pixels
    swizzled: gl.constexpr = source.layout
    entries: gl.constexpr = turns.weights
    held: gl.constexpr = turns.residuals
    slots: gl.constexpr = turns.results
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
                channels, area, total, turns,
            )),
            (_consume, (
                1, turn, areas, weights, more_buffers, residuals, tiles, pixels, height, width, writes,
                channels, area, total, turns,
            )),
            (_produce, (
                source, rest, weight, residual, offset, areas, weights, residuals, tiles, width,
                channels, area, turns,
            )),
        ],
        [4, 1],
        [232, 40],
    )  # fmt: skip
