"""How the fused FAN's convolutions are cut for their kernels: the fastest of all cuts, timed on an H100."""

from __future__ import annotations

import math
from dataclasses import dataclass

BOX, REST = 64, 8
"""Rows of the boxes in which the kernel that takes turns fetches what a tile depends on, and of a last small one."""

CHANNELS = 64
"""Channels that this kernel fetches, multiplies and writes at a time: a row of 128 bytes of float16."""

MOST_MEMORY = 226 * 1024
"""Bytes for all that waits of the 227 kB of shared memory that a program can have; barriers take less than 1 kB."""


@dataclass(frozen=True)
class Shape:
    """What decides about a convolution's tile: all pixels with padding, channels, taps."""

    pixels: int
    inputs: int
    outputs: int
    taps: int


@dataclass(frozen=True)
class Tile:
    """How a convolution is cut: pixels x outputs a program, `depth` products a step, with Triton's warps and stages.

    registers: the most a thread may have, None for the compiler's choice; 128 let two programs of 8 warps share a
    multiprocessor, so that one multiplies while the other writes.
    turned: multiply weights by pixels instead of pixels by weights. A matrix instruction takes 64 rows and up to 256
    columns; with 128 outputs or fewer, weights as rows and pixels as columns read less shared memory.
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
class Turns:
    """How a 3x3 convolution is cut whose parts take turns (`fused_gluon`): a tile's pixels, what waits for it.

    Planes come and leave 64 channels at a time. weights: entries of the ring for weights, a tap each; results: buffers
    that a group writes from; residuals: entries of the ring for residuals, enough for a tile. turned: as in `Tile`.
    """

    pixels: int
    weights: int
    results: int
    residuals: int
    turned: bool = False

    def area(self, width: int) -> int:
        """Rows that a tile depends on in planes of pictures `width` wide, rounded up to what is fetched at once."""
        return BOX * math.ceil((self.pixels + 2 * (width + 1) + 2 - REST) / BOX) + REST

    def memory(self, width: int, outputs: int) -> int:
        """Bytes of shared memory for all that waits, in float16."""
        written = (2 * self.results + self.residuals) * self.pixels
        return 2 * CHANNELS * (2 * self.area(width) + self.weights * outputs + written)


def tile_for(shape: Shape) -> Tile | None:
    """Choose a tile by the times on H100 and H200; None: torch's convolution is faster."""
    depth, width = min(64, shape.inputs), power_of_two(shape.outputs)
    if 2**15 <= shape.pixels < 2**17:
        # 16x16 at batch 128 and 256.
        return None if width > 64 else Tile(128, min(64, width), depth, 4, 3, whole=width == shape.outputs)
    if shape.pixels < 2**15:
        # Few pixels: smaller tiles, so that every multiprocessor has some.
        return Tile(64, min(64, width), depth, 4, 4)
    whole = width == shape.outputs
    if width <= 32:
        return Tile(256, width, depth, 8, 3, whole=whole)
    return Tile(128, min(128, width), depth, 4, 3, whole=whole)


def turns_for(shape: Shape) -> Turns | None:
    """Choose, by the times on an H200, how parts take turns; None where few pixels or channels leave them idle."""
    if shape.taps != 9 or shape.pixels < 2**17 or shape.inputs % CHANNELS != 0:
        return None
    if shape.outputs == 128:
        return Turns(128, weights=6, results=1, residuals=2)
    if shape.outputs == 64 and shape.inputs > 64:
        return Turns(256, weights=4, results=1, residuals=1, turned=True)
    if shape.outputs == 64:
        return Turns(128, weights=8, results=2, residuals=2)
    return None


def power_of_two(number: int) -> int:
    return max(16, 1 << (number - 1).bit_length())
