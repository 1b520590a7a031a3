"""What the fused FAN is made of: activations with room for padding, folded layers, each operation in plain torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ls3dw.models.networks.fan import Pooling, pool2


@dataclass(frozen=True)
class Plane:
    """Activations of a batch, channels last: data (N, H + pad, W + pad, C), contiguous.

    pad: 0 or 1 rows and columns of zeros after each picture's own. One is enough for 3x3 convolutions over the
    flattened pixels: the column after a row is the one before the next row, and so it is with rows and pictures.
    """

    data: Tensor
    pad: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a picture without the padding."""
        return self.data.shape[1] - self.pad, self.data.shape[2] - self.pad

    @property
    def inside(self) -> Tensor:
        """The activations without the padding: (N, H, W, C)."""
        height, width = self.size
        return self.data[:, :height, :width]

    @property
    def flat(self) -> Tensor:
        """All pixels with the padding: (N (H + pad) (W + pad), C)."""
        return self.data.view(-1, self.data.shape[3])


@dataclass(frozen=True)
class Affine:
    """A batch norm as scale and shift of channels, each (C,) float32."""

    scale: Tensor
    shift: Tensor

    def part(self, start: int, count: int) -> Affine:
        return Affine(self.scale[start : start + count], self.shift[start : start + count])


def factors(norm: Affine | None) -> tuple[Tensor | None, Tensor | None]:
    """Return scale and shift as kernels take them, which tell by None that there is no norm."""
    return (None, None) if norm is None else (norm.scale, norm.shift)


@dataclass(frozen=True)
class Weights:
    """A 1x1 or 3x3 convolution: weight (outputs, taps * inputs), taps row by row; bias (outputs,) float32 or None."""

    weight: Tensor
    taps: int
    bias: Tensor | None = None

    @property
    def outputs(self) -> int:
        return self.weight.shape[0]

    @property
    def inputs(self) -> int:
        return self.weight.shape[1] // self.taps

    @property
    def kernel(self) -> Tensor:
        """The weights as torch's convolutions take them: (outputs, inputs, k, k), channels last in memory."""
        side = 3 if self.taps == 9 else 1
        return self.weight.view(self.outputs, side, side, self.inputs).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Activation:
    """relu(norm(x)) is to be written into `plane`."""

    plane: Plane
    norm: Affine

    def part(self, start: int, count: int) -> Activation:
        return Activation(self.plane, self.norm.part(start, count))


@dataclass(frozen=True)
class Finish:
    """What becomes of the result y of a convolution, bias added.

    active: its activation. plane: gets y from channel `offset` on, with the same channels added of `residual` and of
    `low`, a plane of half the resolution whose pixels are repeated; following: the activation of that sum, also from
    channel `offset` on (its norm has only y's channels).
    """

    active: Activation | None = None
    plane: Plane | None = None
    residual: Plane | None = None
    low: Plane | None = None
    offset: int = 0
    following: Activation | None = None


class Operations(Protocol):
    """The operations of the fused FAN. `pad`: of the planes that `empty` makes, and that are read and written."""

    pad: int

    def empty(self, batch: int, height: int, width: int, channels: int, like: Tensor) -> Plane:
        """Make a plane for results, with the dtype and device of `like`; operations write its padding too."""

    def convolve(self, source: Plane, weights: Weights, finish: Finish) -> None:
        """Convolve with zero padding and stride 1."""

    def convolve_twice(self, source: Plane, first: Weights, norm: Affine, second: Weights, finish: Finish) -> None:
        """Apply two 1x1 convolutions with norm and ReLU between them; `first` has no bias."""

    def activate(self, source: Plane, first: Affine | None, results: list[Activation]) -> None:
        """Write one or two activations of a plane of any padding, itself activated by `first` where there is one."""

    def activate_and_average(self, source: Plane, first: Affine, full: Activation, half: Activation) -> None:
        """Write one activation of a plane without padding, activated by `first`, and another averaged over 2x2."""

    def pool(self, source: Plane, pooling: Pooling, raw: Plane, active: Activation | None) -> None:
        """Halve the resolution; write the result and, where it is asked for, its activation."""


class PlainOperations:
    """The operations in plain torch, for tests and for devices without Triton."""

    def __init__(self, pad: int = 0) -> None:
        self.pad = pad

    def empty(self, batch: int, height: int, width: int, channels: int, like: Tensor) -> Plane:
        shape = (batch, height + self.pad, width + self.pad, channels)
        return Plane(torch.zeros(shape, dtype=like.dtype, device=like.device), self.pad)

    def convolve(self, source: Plane, weights: Weights, finish: Finish) -> None:
        finish_plainly(convolve_densely(source, weights), weights.bias, finish)

    def convolve_twice(self, source: Plane, first: Weights, norm: Affine, second: Weights, finish: Finish) -> None:
        in_two_steps(self, source, first, norm, second, finish)

    def activate(self, source: Plane, first: Affine | None, results: list[Activation]) -> None:
        x = source.inside if first is None else activated(source.inside, first)
        for result in results:
            result.plane.inside.copy_(activated(x, result.norm))

    def activate_and_average(self, source: Plane, first: Affine, full: Activation, half: Activation) -> None:
        x = activated(source.inside, first)
        full.plane.inside.copy_(activated(x, full.norm))
        half.plane.inside.copy_(pool2(activated(x, half.norm).permute(0, 3, 1, 2), "avg").permute(0, 2, 3, 1))

    def pool(self, source: Plane, pooling: Pooling, raw: Plane, active: Activation | None) -> None:
        x = pool2(source.inside.permute(0, 3, 1, 2), pooling).permute(0, 2, 3, 1)
        raw.inside.copy_(x)
        if active is not None:
            active.plane.inside.copy_(activated(x, active.norm))


def in_two_steps(
    operations: Operations, source: Plane, first: Weights, norm: Affine, second: Weights, finish: Finish
) -> None:
    """Do what `convolve_twice` is to do, with a plane for what lies between."""
    batch, height, width, _ = source.inside.shape
    hidden = operations.empty(batch, height, width, first.outputs, source.data)
    operations.convolve(source, first, Finish(active=Activation(hidden, norm)))
    operations.convolve(hidden, second, finish)


def activated(x: Tensor, norm: Affine) -> Tensor:
    """Return relu(norm(x)) of x (..., C), computed in at least float32."""
    return F.relu(x * norm.scale + norm.shift).to(x.dtype)


def convolve_densely(source: Plane, weights: Weights) -> Tensor:
    """Convolve by torch: (N, H, W, outputs), without the bias."""
    x = source.inside.permute(0, 3, 1, 2)
    y = F.conv2d(x, weights.kernel, padding=1 if weights.taps == 9 else 0)
    return y.permute(0, 2, 3, 1)


def finish_plainly(y: Tensor, bias: Tensor | None, finish: Finish) -> None:
    """Write what `finish` asks for of y (N, H, W, outputs)."""
    part = slice(finish.offset, finish.offset + y.shape[3])
    if bias is not None:
        y = y + bias.to(y.dtype)
    if finish.active is not None:
        finish.active.plane.inside.copy_(activated(y, finish.active.norm))
    if finish.plane is None:
        return
    if finish.residual is not None:
        y = y + finish.residual.inside[..., part]
    if finish.low is not None:
        y = y + finish.low.inside[..., part].repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    finish.plane.inside[..., part].copy_(y)
    if finish.following is not None:
        finish.following.plane.inside[..., part].copy_(activated(y, finish.following.norm))


@dataclass(frozen=True)
class Target:
    """Where folded weights go, and the type of those of convolutions."""

    device: torch.device
    dtype: torch.dtype


def fold_norm(norm: nn.BatchNorm2d, target: Target, bias: Tensor | None = None) -> Affine:
    """Turn a batch norm in eval mode, after a convolution's `bias`, into scale and shift."""
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    mean = norm.running_mean.double() - (0 if bias is None else bias.double())
    shift = norm.bias.double() - mean * scale
    return Affine(scale.detach().float().to(target.device), shift.detach().float().to(target.device))


def pack(weight: Tensor, target: Target, bias: Tensor | None = None) -> Weights:
    """Pack a convolution's weight (outputs, inputs, k, k) and bias."""
    flat = weight.detach().permute(0, 2, 3, 1).reshape(weight.shape[0], -1).to(target.dtype).contiguous()
    shift = None if bias is None else bias.detach().float().to(target.device)
    return Weights(flat.to(target.device), weight.shape[2] * weight.shape[3], shift)
