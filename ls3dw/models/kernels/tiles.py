"""Tile sizes of the fused FAN's convolutions, chosen by their times on H100 and H200."""

from __future__ import annotations

import math
from dataclasses import dataclass

BOX, REST = 64, 8
"""Rows of the boxes that the warp-specialized kernel loads for a tile, and of a last small one."""

CHANNELS = 64
"""Channels that it loads, multiplies and writes at a time: 128 bytes of float16."""

LARGEST_SHARED_MEMORY = 226 * 1024
"""Bytes of its buffers: a program has 227 kB of shared memory, barriers take less than 1 kB."""


@dataclass(frozen=True)
class ConvShape:
    """Key of the choice of a tile: all pixels with padding, channels, taps."""

    pixels: int
    inputs: int
    outputs: int
    taps: int


@dataclass(frozen=True)
class Tile:
    """Tile of a convolution: pixels x outputs a program, `depth` products a step, Triton's warps and stages.

    transposed: weights times pixels instead of pixels times weights. A matrix instruction takes 64 rows and up to 256
    columns, so with 128 outputs or fewer this reads less shared memory.
    registers: limit a thread, None for the compiler's choice; with 128 two programs of 8 warps share a multiprocessor,
    so that one multiplies while the other writes.
    by_descriptor: read the residual and write results as whole tiles, not element by element; the convolution's outputs
    must be a multiple of the tile's.
    """

    pixels: int
    outputs: int
    depth: int
    warps: int
    stages: int
    transposed: bool = False
    registers: int | None = None
    by_descriptor: bool = False


@dataclass(frozen=True)
class WarpSpecializedTile:
    """Tile of a warp-specialized 3x3 convolution (`hopper_convolution`): its pixels and its buffers.

    Planes are read and written 64 channels at a time. weights: entries of the ring of weights, one tap each; results:
    buffers that a consumer group writes from; residuals: entries of the ring of residuals, enough for a tile;
    transposed: as in `Tile`.
    """

    pixels: int
    weights: int
    results: int
    residuals: int
    transposed: bool = False

    def area(self, width: int) -> int:
        """Rows that a tile depends on in planes of pictures `width` wide, rounded up to whole boxes."""
        return BOX * math.ceil((self.pixels + 2 * (width + 1) + 2 - REST) / BOX) + REST

    def memory(self, width: int, outputs: int) -> int:
        """Bytes of shared memory of all buffers, in float16."""
        written = (2 * self.results + self.residuals) * self.pixels
        return 2 * CHANNELS * (2 * self.area(width) + self.weights * outputs + written)


def tile_for(shape: ConvShape) -> Tile | None:
    """Return the fastest tile on H100 and H200; None where torch's convolution is faster."""
    depth, width = min(64, shape.inputs), power_of_two(shape.outputs)
    if 2**15 <= shape.pixels < 2**17:
        # 16x16 at batch 128 and 256.
        return None if width > 64 else Tile(128, min(64, width), depth, 4, 3, by_descriptor=width == shape.outputs)
    if shape.pixels < 2**15:
        # Few pixels: smaller tiles keep every multiprocessor busy.
        return Tile(64, min(64, width), depth, 4, 4)
    by_descriptor = width == shape.outputs
    if width <= 32:
        return Tile(256, width, depth, 8, 3, by_descriptor=by_descriptor)
    return Tile(128, min(128, width), depth, 4, 3, by_descriptor=by_descriptor)


def warp_specialized_tile_for(shape: ConvShape) -> WarpSpecializedTile | None:
    """Return the fastest tile on an H200; None where few pixels or channels leave the groups idle."""
    if shape.taps != 9 or shape.pixels < 2**17 or shape.inputs % CHANNELS != 0:
        return None
    if shape.outputs == 128:
        return WarpSpecializedTile(128, weights=6, results=1, residuals=2)
    if shape.outputs == 64 and shape.inputs > 64:
        return WarpSpecializedTile(256, weights=4, results=1, residuals=1, transposed=True)
    if shape.outputs == 64:
        return WarpSpecializedTile(128, weights=8, results=2, residuals=2)
    return None


def power_of_two(number: int) -> int:
    return max(16, 1 << (number - 1).bit_length())
