"""The fused FAN's operations by Triton: which kernel, cut into which tiles; see `fused_ops` for what each does."""

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
    finish_dense_kernel,
    pool_kernel,
)
from ls3dw.models.kernels.hopper import can_take_turns, convolve_in_turns, fits
from ls3dw.models.kernels.launch import launch
from ls3dw.models.kernels.operations import (
    Activation,
    Affine,
    Finish,
    Plane,
    Weights,
    convolve_densely,
    factors,
    in_two_steps,
)
from ls3dw.models.kernels.tiles import Shape, Tile, Turns, power_of_two, tile_for, turns_for
from ls3dw.models.networks.fan import Pooling

MOST_ELEMENTS = 2**31
"""Kernels count elements of a plane in 32 bits."""

MOST_HIDDEN = 256
"""Channels between two 1x1 convolutions that a program can keep in registers for its pixels."""

_ELEMENTS = 4096
"""Elements of a plane that a program of the elementwise kernels handles."""


Cut = Tile | Turns | None
"""How a convolution is done; None: by torch, and a pass over its result."""


class TritonOperations:
    """The operations as kernels, with convolutions that finish their own results. pad is 1.

    tiles: how shapes are cut that should not be cut as `tile_for` and `turns_for` say; None for torch's convolution and
    a pass after it. turns: use the kernel whose parts take turns, where it fits.
    Channels must be powers of two of at least 16.
    """

    pad = 1

    def __init__(self, tiles: dict[Shape, Cut] | None = None, turns: bool = True) -> None:
        self.tiles = tiles or {}
        self.turns = turns

    def empty(self, batch: int, height: int, width: int, channels: int, like: Tensor) -> Plane:
        shape = (batch, height + self.pad, width + self.pad, channels)
        if (elements := batch * shape[1] * shape[2] * channels) >= MOST_ELEMENTS:
            raise ValueError(f"{batch} pictures make a plane of {elements} elements; expected fewer than 2^31")
        return Plane(torch.empty(shape, dtype=like.dtype, device=like.device), self.pad)

    def convolve(self, source: Plane, weights: Weights, finish: Finish) -> None:
        shape = Shape(source.data.shape[:3].numel(), weights.inputs, weights.outputs, weights.taps)
        convolve(source, weights, finish, self._cut(shape, source, weights, finish))

    def _cut(self, shape: Shape, source: Plane, weights: Weights, finish: Finish) -> Cut:
        if shape in self.tiles:
            return self.tiles[shape]
        turns = turns_for(shape) if self.turns and can_take_turns(source.data.device) else None
        return turns if turns is not None and fits(turns, source, weights, finish) else tile_for(shape)

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
        launch(
            activate_kernel,
            (triton.cdiv(pixels, block),),
            source.data,
            pixels,
            *one.plane.size,
            *factors(first),
            one.plane.data,
            *factors(one.norm),
            None if two is None else two.plane.data,
            *factors(None if two is None else two.norm),
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
        launch(
            activate_and_average_kernel,
            (triton.cdiv(pixels, block),),
            source.data,
            pixels,
            *half.plane.size,
            *factors(first),
            full.plane.data,
            *factors(full.norm),
            data,
            *factors(half.norm),
            channels=channels,
            pad=self.pad,
            block=block,
        )

    def pool(self, source: Plane, pooling: Pooling, raw: Plane, active: Activation | None) -> None:
        pixels, channels = raw.data.shape[:3].numel(), raw.data.shape[3]
        block = max(1, _ELEMENTS // channels)
        launch(
            pool_kernel,
            (triton.cdiv(pixels, block),),
            source.data,
            pixels,
            *raw.size,
            raw.data,
            None if active is None else active.plane.data,
            *factors(None if active is None else active.norm),
            channels=channels,
            pad=self.pad,
            average=pooling == "avg",
            block=block,
        )


class CudnnOperations(TritonOperations):
    """The operations as kernels but for the convolutions, which are torch's with one pass over each result."""

    pad = 0

    def convolve(self, source: Plane, weights: Weights, finish: Finish) -> None:
        convolve(source, weights, finish, None)

    def convolve_twice(self, source: Plane, first: Weights, norm: Affine, second: Weights, finish: Finish) -> None:
        in_two_steps(self, source, first, norm, second, finish)


def convolve(source: Plane, weights: Weights, finish: Finish, cut: Cut) -> None:
    """Convolve a padded plane by a kernel, cut as it says; without one, any plane by torch."""
    if isinstance(cut, Turns):
        convolve_in_turns(source, weights, finish, cut)
    else:
        _convolve_at_once(source, weights, finish, cut)


def _convolve_at_once(source: Plane, weights: Weights, finish: Finish, tile: Tile | None) -> None:
    if tile is None:
        # With its padding, as pictures that are one pixel larger: the zeros are where a convolution needs them.
        y = convolve_densely(Plane(source.data, 0), weights).contiguous()
        finish_densely(Plane(y, source.pad), weights, finish)
        return
    data = source.flat
    pixels, outputs = len(data), weights.outputs
    if tile.whole and outputs % tile.outputs:
        raise ValueError(f"{outputs} outputs in whole tiles of {tile.outputs}; expected a multiple")
    grid = (triton.cdiv(pixels, tile.pixels) * triton.cdiv(outputs, tile.outputs),)
    launch(
        convolve_kernel,
        grid,
        TensorDescriptor.from_tensor(data, [tile.pixels, tile.depth]),
        TensorDescriptor.from_tensor(weights.weight, [tile.outputs, tile.depth]),
        pixels,
        *source.size,
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
    data = source.flat
    pixels, depth, outputs = 128, min(64, first.inputs), 64
    launch(
        convolve_twice_kernel,
        (triton.cdiv(len(data), pixels),),
        TensorDescriptor.from_tensor(data, [pixels, depth]),
        TensorDescriptor.from_tensor(first.weight, [first.outputs, depth]),
        TensorDescriptor.from_tensor(second.weight, [outputs, second.inputs]),
        len(data),
        *source.size,
        *factors(norm),
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


def finish_densely(y: Plane, weights: Weights, finish: Finish) -> None:
    """Finish a convolution's result y into planes of the same padding."""
    data = y.flat
    pixels, outputs = data.shape
    width = power_of_two(outputs)
    block = max(1, _ELEMENTS // width)
    arguments = _finish(weights.bias, finish, None)
    launch(
        finish_dense_kernel,
        (triton.cdiv(pixels, block),),
        data,
        pixels,
        *y.size,
        *arguments,
        outputs=outputs,
        pad=y.pad,
        block=block,
        block_outputs=width,
    )


def _finish(bias: Tensor | None, finish: Finish, tile: Tile | None) -> tuple[object, ...]:
    """Return the arguments that kernels share from `bias` on; with a tile, planes as descriptors of such tiles."""

    def given(plane: Plane | None) -> Tensor | TensorDescriptor | None:
        if plane is None or tile is None:
            return None if plane is None else plane.data
        return TensorDescriptor.from_tensor(plane.flat, [tile.pixels, tile.outputs])

    active, plane, following = finish.active, finish.plane, finish.following
    return (
        bias,
        given(None if active is None else active.plane),
        *factors(None if active is None else active.norm),
        given(plane),
        given(finish.residual),
        None if finish.low is None else finish.low.data,
        finish.offset,
        0 if plane is None else plane.data.shape[3],
        given(None if following is None else following.plane),
        *factors(None if following is None else following.norm),
    )
