"""Launches the warp-specialized convolution on the GPUs and with the Triton version that it is written for."""

from __future__ import annotations

from functools import cache

import torch
import triton
from torch import Tensor

from ls3dw.models.kernels.launch import launch
from ls3dw.models.kernels.operations import ConvWeights, Epilogue, Plane, factors
from ls3dw.models.kernels.tiles import BOX, CHANNELS, LARGEST_SHARED_MEMORY, REST, WarpSpecializedTile

TRITON = "3.6."
"""Gluon is experimental and changes with each version."""


@cache
def warp_specialization_available(device: torch.device) -> bool:
    """Return whether the device is a Hopper GPU and Triton has the kernel's version."""
    if device.type != "cuda" or not triton.__version__.startswith(TRITON):
        return False
    return torch.cuda.get_device_capability(device)[0] == 9


def fits(tile: WarpSpecializedTile, source: Plane, weights: ConvWeights, epilogue: Epilogue) -> bool:
    """Return whether the kernel can do a convolution: float16, no bias, added to a residual, buffers small enough."""
    given = weights.bias is None and epilogue.plane is not None and epilogue.residual is not None
    halves = source.data.dtype == torch.float16
    return given and halves and tile.memory(source.size[1], weights.outputs) <= LARGEST_SHARED_MEMORY


def warp_specialized_conv(source: Plane, weights: ConvWeights, epilogue: Epilogue, tile: WarpSpecializedTile) -> None:
    """Convolve a padded plane with one program on each multiprocessor."""
    if weights.taps != 9 or not fits(tile, source, weights, epilogue):
        raise ValueError(f"a convolution of {tuple(source.data.shape)} that the kernel cannot do with {tile}")
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    from ls3dw.models.kernels.hopper_convolution import warp_specialized_conv_kernel

    layout = gl.NVMMASharedLayout.get_default_for([tile.pixels, CHANNELS], gl.float16)

    def boxes(data: Tensor, rows: int) -> TensorDescriptor:
        return TensorDescriptor.from_tensor(data, [rows, CHANNELS], layout)

    def written(plane: Plane | None) -> TensorDescriptor | None:
        return None if plane is None else boxes(plane.flat, tile.pixels)

    active, following, plane = epilogue.active, epilogue.following, epilogue.plane
    assert plane is not None
    height, width = source.size
    pixels, inputs = source.flat.shape
    launch(
        warp_specialized_conv_kernel, (_multiprocessors(source.data.device),),
        boxes(source.flat, BOX), boxes(source.flat, REST), boxes(weights.weight, weights.outputs),
        pixels, height, width,
        written(None if active is None else active.plane), *factors(None if active is None else active.norm),
        written(plane), written(epilogue.residual), None if epilogue.low is None else epilogue.low.data,
        epilogue.offset,
        written(None if following is None else following.plane),
        *factors(None if following is None else following.norm),
        channels=inputs, total=plane.data.shape[3], area=tile.area(width), tile_options=tile, num_warps=4,
        # For the 12 warps at the start; the kernel then moves registers from the producer to the consumers.
        maxnreg=168,
    )  # fmt: skip


@cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count
