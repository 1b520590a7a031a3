"""Launches the convolution whose parts take turns, `fused_gluon`, on the cards and with the Triton it is made for."""

from __future__ import annotations

from functools import cache

import torch
import triton
from torch import Tensor

from ls3dw.models.kernels.launch import launch
from ls3dw.models.kernels.operations import Finish, Plane, Weights, factors
from ls3dw.models.kernels.tiles import BOX, CHANNELS, MOST_MEMORY, REST, Turns

TRITON = "3.6."
"""Gluon is experimental and changes from version to version."""


@cache
def can_take_turns(device: torch.device) -> bool:
    """Return whether a device is a Hopper GPU, and Triton's version the kernel's."""
    if device.type != "cuda" or not triton.__version__.startswith(TRITON):
        return False
    return torch.cuda.get_device_capability(device)[0] == 9


def fits(turns: Turns, source: Plane, weights: Weights, finish: Finish) -> bool:
    """Return whether the kernel does such a convolution: of float16, without a bias, added to a residual."""
    given = weights.bias is None and finish.plane is not None and finish.residual is not None
    halves = source.data.dtype == torch.float16
    return given and halves and turns.memory(source.size[1], weights.outputs) <= MOST_MEMORY


def convolve_in_turns(source: Plane, weights: Weights, finish: Finish, turns: Turns) -> None:
    """Convolve a padded plane by one program a multiprocessor."""
    if weights.taps != 9 or not fits(turns, source, weights, finish):
        raise ValueError(f"a convolution of {tuple(source.data.shape)} that the kernel does not do as {turns}")
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    from ls3dw.models.kernels.hopper_convolution import convolve_in_turns_kernel

    layout = gl.NVMMASharedLayout.get_default_for([turns.pixels, CHANNELS], gl.float16)

    def boxes(data: Tensor, rows: int) -> TensorDescriptor:
        return TensorDescriptor.from_tensor(data, [rows, CHANNELS], layout)

    def written(plane: Plane | None) -> TensorDescriptor | None:
        return None if plane is None else boxes(plane.flat, turns.pixels)

    active, following, plane = finish.active, finish.following, finish.plane
    assert plane is not None
    height, width = source.size
    pixels, inputs = source.flat.shape
    launch(
        convolve_in_turns_kernel,
        (_multiprocessors(source.data.device),),
        boxes(source.flat, BOX),
        boxes(source.flat, REST),
        boxes(weights.weight, weights.outputs),
        pixels,
        height,
        width,
        written(None if active is None else active.plane),
        *factors(None if active is None else active.norm),
        written(plane),
        written(finish.residual),
        None if finish.low is None else finish.low.data,
        finish.offset,
        written(None if following is None else following.plane),
        *factors(None if following is None else following.norm),
        channels=inputs,
        total=plane.data.shape[3],
        area=turns.area(width),
        turns=turns,
        num_warps=4,
        # For 12 warps when they start; the kernel then gives what the fetching one can spare to those that multiply.
        maxnreg=168,
    )


@cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count
