"""The fused FAN's operations (`operations.Operations`) by Triton kernels."""

from __future__ import annotations

import torch
import triton
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from ls3dw.models.kernels.convolution_kernels import (
    activate_and_average_kernel,
    activate_kernel,
    convolve_kernel,
    convolve_twice_kernel,
    epilogue_kernel,
    pool_kernel,
)
from ls3dw.models.kernels.hopper import fits, warp_specialization_available, warp_specialized_conv
from ls3dw.models.kernels.launch import launch
from ls3dw.models.kernels.operations import (
    ActivationTarget,
    ConvWeights,
    Epilogue,
    Plane,
    ScaleShift,
    convolve_by_torch,
    factors,
    in_two_steps,
)
from ls3dw.models.kernels.tiles import (
    ConvShape,
    Tile,
    WarpSpecializedTile,
    power_of_two,
    tile_for,
    warp_specialized_tile_for,
)
from ls3dw.models.networks.fan import Pooling

MOST_ELEMENTS = 2**31
"""Kernels count the elements of a plane in 32 bits."""

MOST_HIDDEN = 256
"""Channels between two 1x1 convolutions that fit a program's registers."""

_ELEMENTS = 4096
"""Elements of a plane for a program of the elementwise kernels."""

Tiling = Tile | WarpSpecializedTile | None
"""How a convolution is done; None: by torch, with a pass over its result."""


class TritonOperations:
    """The operations as kernels; convolutions write their own epilogues. pad is 1.

    tilings: replace the choice of `tile_for` and `warp_specialized_tile_for` for some shapes; specialize: use the
    warp-specialized kernel where it fits. Channels must be powers of two of at least 16.
    """

    pad = 1

    def __init__(self, tilings: dict[ConvShape, Tiling] | None = None, specialize: bool = True) -> None:
        self.tilings = tilings or {}
        self.specialize = specialize

    def empty(self, batch: int, height: int, width: int, channels: int, like: Tensor) -> Plane:
        shape = (batch, height + self.pad, width + self.pad, channels)
        if (elements := batch * shape[1] * shape[2] * channels) >= MOST_ELEMENTS:
            raise ValueError(f"{batch} pictures make a plane of {elements} elements; expected fewer than 2^31")
        return Plane(torch.empty(shape, dtype=like.dtype, device=like.device), self.pad)

    def convolve(self, source: Plane, weights: ConvWeights, epilogue: Epilogue) -> None:
        shape = ConvShape(source.data.shape[:3].numel(), weights.inputs, weights.outputs, weights.taps)
        convolve(source, weights, epilogue, self._tiling(shape, source, weights, epilogue))

    def _tiling(self, shape: ConvShape, source: Plane, weights: ConvWeights, epilogue: Epilogue) -> Tiling:
        if shape in self.tilings:
            return self.tilings[shape]
        if self.specialize and warp_specialization_available(source.data.device):
            tile = warp_specialized_tile_for(shape)
            if tile is not None and fits(tile, source, weights, epilogue):
                return tile
        return tile_for(shape)

    def convolve_twice(
        self, source: Plane, first: ConvWeights, norm: ScaleShift, second: ConvWeights, epilogue: Epilogue
    ) -> None:
        if first.outputs <= MOST_HIDDEN:
            convolve_twice(source, first, norm, second, epilogue)
        else:
            in_two_steps(self, source, first, norm, second, epilogue)

    def activate(self, source: Plane, first: ScaleShift | None, results: list[ActivationTarget]) -> None:
        one, *more = results
        two = more[0] if more else None
        target = one.plane.data
        pixels, channels = target.shape[:3].numel(), target.shape[3]
        block = max(1, _ELEMENTS // channels)
        launch(
            activate_kernel, (triton.cdiv(pixels, block),),
            source.data, pixels, *one.plane.size, *factors(first),
            one.plane.data, *factors(one.norm),
            None if two is None else two.plane.data, *factors(None if two is None else two.norm),
            channels=channels, source_pad=source.pad, pad=one.plane.pad, block=block,
        )  # fmt: skip

    def activate_and_average(
        self, source: Plane, first: ScaleShift, full: ActivationTarget, half: ActivationTarget
    ) -> None:
        # Over the padded pixels at half the resolution; one more row and column of them covers the full one's padding.
        data = half.plane.data
        pixels, channels = data.shape[:3].numel(), data.shape[3]
        block = max(1, _ELEMENTS // 4 // channels)
        launch(
            activate_and_average_kernel, (triton.cdiv(pixels, block),),
            source.data, pixels, *half.plane.size, *factors(first),
            full.plane.data, *factors(full.norm), data, *factors(half.norm),
            channels=channels, pad=self.pad, block=block,
        )  # fmt: skip

    def pool(self, source: Plane, pooling: Pooling, raw: Plane, active: ActivationTarget | None) -> None:
        pixels, channels = raw.data.shape[:3].numel(), raw.data.shape[3]
        block = max(1, _ELEMENTS // channels)
        launch(
            pool_kernel, (triton.cdiv(pixels, block),),
            source.data, pixels, *raw.size, raw.data,
            None if active is None else active.plane.data, *factors(None if active is None else active.norm),
            channels=channels, pad=self.pad, average=pooling == "avg", block=block,
        )  # fmt: skip


def convolve(source: Plane, weights: ConvWeights, epilogue: Epilogue, tile: Tiling) -> None:
    """Convolve a padded plane by a kernel with this tile; without one, any plane by torch."""
    if isinstance(tile, WarpSpecializedTile):
        warp_specialized_conv(source, weights, epilogue, tile)
        return
    if tile is None:
        # With the padding, as pictures one pixel larger: its zeros are those of a padded convolution.
        y = convolve_by_torch(Plane(source.data, 0), weights).contiguous()
        write_epilogue_by_kernel(Plane(y, source.pad), weights, epilogue)
        return
    data = source.flat
    pixels, outputs = len(data), weights.outputs
    if tile.by_descriptor and outputs % tile.outputs:
        raise ValueError(f"{outputs} outputs in whole tiles of {tile.outputs}; expected a multiple")
    launch(
        convolve_kernel, (triton.cdiv(pixels, tile.pixels) * triton.cdiv(outputs, tile.outputs),),
        TensorDescriptor.from_tensor(data, [tile.pixels, tile.depth]),
        TensorDescriptor.from_tensor(weights.weight, [tile.outputs, tile.depth]),
        pixels, *source.size, *_epilogue_arguments(weights.bias, epilogue, tile if tile.by_descriptor else None),
        channels=weights.inputs, outputs=outputs, taps=weights.taps,
        block_pixels=tile.pixels, block_outputs=tile.outputs, block_depth=tile.depth,
        transposed=tile.transposed, by_descriptor=tile.by_descriptor,
        num_warps=tile.warps, num_stages=tile.stages, maxnreg=tile.registers,
    )  # fmt: skip


def convolve_twice(
    source: Plane, first: ConvWeights, norm: ScaleShift, second: ConvWeights, epilogue: Epilogue
) -> None:
    """Apply two 1x1 convolutions by a kernel that keeps the values between them on the chip."""
    data = source.flat
    pixels, depth, outputs = 128, min(64, first.inputs), 64
    launch(
        convolve_twice_kernel, (triton.cdiv(len(data), pixels),),
        TensorDescriptor.from_tensor(data, [pixels, depth]),
        TensorDescriptor.from_tensor(first.weight, [first.outputs, depth]),
        TensorDescriptor.from_tensor(second.weight, [outputs, second.inputs]),
        len(data), *source.size, *factors(norm), *_epilogue_arguments(second.bias, epilogue, None),
        channels=first.inputs, hidden=first.outputs, outputs=second.outputs,
        block_pixels=pixels, block_outputs=outputs, block_depth=depth, num_warps=8, num_stages=3,
    )  # fmt: skip


def write_epilogue_by_kernel(y: Plane, weights: ConvWeights, epilogue: Epilogue) -> None:
    """Write the epilogue of a convolution's result y into planes of the same padding."""
    data = y.flat
    pixels, outputs = data.shape
    width = power_of_two(outputs)
    block = max(1, _ELEMENTS // width)
    launch(
        epilogue_kernel, (triton.cdiv(pixels, block),),
        data, pixels, *y.size, *_epilogue_arguments(weights.bias, epilogue, None),
        outputs=outputs, pad=y.pad, block=block, block_outputs=width,
    )  # fmt: skip


def _epilogue_arguments(bias: Tensor | None, epilogue: Epilogue, tile: Tile | None) -> tuple[object, ...]:
    """Return the arguments of kernels from `bias` on; with a tile, planes as descriptors of such tiles."""

    def given(plane: Plane | None) -> Tensor | TensorDescriptor | None:
        if plane is None or tile is None:
            return None if plane is None else plane.data
        return TensorDescriptor.from_tensor(plane.flat, [tile.pixels, tile.outputs])

    active, plane, following = epilogue.active, epilogue.plane, epilogue.following
    return (
        bias,
        given(None if active is None else active.plane),
        *factors(None if active is None else active.norm),
        given(plane),
        given(epilogue.residual),
        None if epilogue.low is None else epilogue.low.data,
        epilogue.offset,
        0 if plane is None else plane.data.shape[3],
        given(None if following is None else following.plane),
        *factors(None if following is None else following.norm),
    )
