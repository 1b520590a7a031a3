"""The operations of the fused FAN in plain torch: the reference for the kernels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ls3dw.models.kernels.operations import (
    ActivationTarget,
    ConvWeights,
    Epilogue,
    Plane,
    ScaleShift,
    convolve_by_torch,
    in_two_steps,
)
from ls3dw.models.networks.fan import Pooling, pool2


class PlainOperations:
    """The operations in plain torch."""

    def __init__(self, pad: int = 0) -> None:
        self.pad = pad

    def empty(self, batch: int, height: int, width: int, channels: int, like: Tensor) -> Plane:
        shape = (batch, height + self.pad, width + self.pad, channels)
        return Plane(torch.zeros(shape, dtype=like.dtype, device=like.device), self.pad)

    def convolve(self, source: Plane, weights: ConvWeights, epilogue: Epilogue) -> None:
        write_epilogue(convolve_by_torch(source, weights), weights.bias, epilogue)

    def convolve_twice(
        self, source: Plane, first: ConvWeights, norm: ScaleShift, second: ConvWeights, epilogue: Epilogue
    ) -> None:
        in_two_steps(self, source, first, norm, second, epilogue)

    def activate(self, source: Plane, first: ScaleShift | None, results: list[ActivationTarget]) -> None:
        x = source.inside if first is None else activated(source.inside, first)
        for result in results:
            result.plane.inside.copy_(activated(x, result.norm))

    def activate_and_average(
        self, source: Plane, first: ScaleShift, full: ActivationTarget, half: ActivationTarget
    ) -> None:
        x = activated(source.inside, first)
        full.plane.inside.copy_(activated(x, full.norm))
        half.plane.inside.copy_(pool2(activated(x, half.norm).permute(0, 3, 1, 2), "avg").permute(0, 2, 3, 1))

    def pool(self, source: Plane, pooling: Pooling, raw: Plane, active: ActivationTarget | None) -> None:
        x = pool2(source.inside.permute(0, 3, 1, 2), pooling).permute(0, 2, 3, 1)
        raw.inside.copy_(x)
        if active is not None:
            active.plane.inside.copy_(activated(x, active.norm))


def activated(x: Tensor, norm: ScaleShift) -> Tensor:
    """Return relu(norm(x)) of x (..., C), computed in at least float32."""
    return F.relu(x * norm.scale + norm.shift).to(x.dtype)


def write_epilogue(y: Tensor, bias: Tensor | None, epilogue: Epilogue) -> None:
    """Write the epilogue of y (N, H, W, outputs)."""
    part = slice(epilogue.offset, epilogue.offset + y.shape[3])
    if bias is not None:
        y = y + bias.to(y.dtype)
    if epilogue.active is not None:
        epilogue.active.plane.inside.copy_(activated(y, epilogue.active.norm))
    if epilogue.plane is None:
        return
    if epilogue.residual is not None:
        y = y + epilogue.residual.inside[..., part]
    if epilogue.low is not None:
        y = y + epilogue.low.inside[..., part].repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    epilogue.plane.inside[..., part].copy_(y)
    if epilogue.following is not None:
        epilogue.following.plane.inside[..., part].copy_(activated(y, epilogue.following.norm))
