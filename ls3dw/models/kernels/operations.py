"""Operations of the fused FAN: padded planes, folded layers, and each operation in plain torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from ls3dw.models.networks.fan import Pooling


@dataclass(frozen=True)
class Plane:
    """Activations of a batch, channels last: data (N, H + pad, W + pad, C), contiguous.

    pad: 0 or 1 rows and columns of zeros after each picture. One is enough for 3x3 convolutions over the flattened
    pixels: the column after a row is also the one before the next row; likewise for rows and pictures.
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
class ScaleShift:
    """A batch norm as scale and shift of channels, each (C,) float32."""

    scale: Tensor
    shift: Tensor

    def part(self, start: int, count: int) -> ScaleShift:
        return ScaleShift(self.scale[start : start + count], self.shift[start : start + count])


def factors(norm: ScaleShift | None) -> tuple[Tensor | None, Tensor | None]:
    """Return scale and shift for a kernel; None without a norm."""
    return (None, None) if norm is None else (norm.scale, norm.shift)


@dataclass(frozen=True)
class ConvWeights:
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
        """Weights for torch's convolutions: (outputs, inputs, k, k), channels last in memory."""
        side = 3 if self.taps == 9 else 1
        return self.weight.view(self.outputs, side, side, self.inputs).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class ActivationTarget:
    """A plane to write relu(norm(x)) into."""

    plane: Plane
    norm: ScaleShift

    def part(self, start: int, count: int) -> ActivationTarget:
        return ActivationTarget(self.plane, self.norm.part(start, count))


@dataclass(frozen=True)
class Epilogue:
    """Where the result y of a convolution, bias added, is written.

    active: gets relu(norm(y)). plane: gets, from channel `offset` on, y plus the same channels of `residual` and of
    `low`, a plane of half the resolution whose pixels are repeated; following: gets the activation of that sum, also
    from channel `offset` on (its norm has only y's channels).
    """

    active: ActivationTarget | None = None
    plane: Plane | None = None
    residual: Plane | None = None
    low: Plane | None = None
    offset: int = 0
    following: ActivationTarget | None = None


class Operations(Protocol):
    """The operations of the fused FAN. pad: of all planes that are made, read and written."""

    pad: int

    def empty(self, batch: int, height: int, width: int, channels: int, like: Tensor) -> Plane:
        """Make a plane with the dtype and device of `like`; operations write its padding too."""

    def convolve(self, source: Plane, weights: ConvWeights, epilogue: Epilogue) -> None:
        """Convolve with zero padding and stride 1."""

    def convolve_twice(
        self, source: Plane, first: ConvWeights, norm: ScaleShift, second: ConvWeights, epilogue: Epilogue
    ) -> None:
        """Apply two 1x1 convolutions with norm and ReLU between them; `first` has no bias."""

    def activate(self, source: Plane, first: ScaleShift | None, results: list[ActivationTarget]) -> None:
        """Write one or two activations of a plane of any padding, after the activation `first` if given."""

    def activate_and_average(
        self, source: Plane, first: ScaleShift, full: ActivationTarget, half: ActivationTarget
    ) -> None:
        """Write two activations of a plane without padding, after `first`; the second is averaged over 2x2."""

    def pool(self, source: Plane, pooling: Pooling, raw: Plane, active: ActivationTarget | None) -> None:
        """Halve the resolution; write the result and, if given, its activation."""


def in_two_steps(
    operations: Operations, source: Plane, first: ConvWeights, norm: ScaleShift, second: ConvWeights, epilogue: Epilogue
) -> None:
    """Do `convolve_twice` with a plane for the values between the convolutions."""
    batch, height, width, _ = source.inside.shape
    hidden = operations.empty(batch, height, width, first.outputs, source.data)
    operations.convolve(source, first, Epilogue(active=ActivationTarget(hidden, norm)))
    operations.convolve(hidden, second, epilogue)


def convolve_by_torch(source: Plane, weights: ConvWeights) -> Tensor:
    """Convolve by torch: (N, H, W, outputs), without the bias."""
    x = source.inside.permute(0, 3, 1, 2)
    y = F.conv2d(x, weights.kernel, padding=1 if weights.taps == 9 else 0)
    return y.permute(0, 2, 3, 1)
