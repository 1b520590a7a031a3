"""Folded networks as a CPU likes them: weights in oneDNN's own order from the start, and quicker ReLUs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ls3dw.models.inference.folding import EPS, Activation, Folded, FoldedBottleneck, FoldedDepth, Stack
from ls3dw.models.inference.policy import Policy, has_bfloat16

M = TypeVar("M", bound=nn.Module)

LAST_NEGATIVE: Final = -128
"""The bits of minus infinity in bfloat16, as an integer: what is larger and negative is not a number."""


def packable(policy: Policy) -> bool:
    """Say whether networks run on oneDNN here.

    torch has oneDNN for bfloat16 only where the processor has instructions for it.
    """
    if policy.on_gpu or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return policy.dtype == torch.float32 or (policy.dtype == torch.bfloat16 and has_bfloat16())


class PackedConv(nn.Module):
    """A convolution for inputs (N, C, H, W) of a size, channels last; for others oneDNN may reorder at each call."""

    def __init__(self, conv: nn.Conv2d, size: tuple[int, ...]) -> None:
        super().__init__()
        self._how = (conv.padding, conv.stride, conv.dilation, conv.groups)
        # No parameter: only oneDNN can read it.
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(conv.weight, *self._how, size)
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        run = torch.ops.mkldnn._convolution_pointwise.default
        return run(x, self.weight, self.bias, *self._how, "none", [], "")  # type: ignore[no-any-return]

    def added(self, x: Tensor, other: Tensor) -> Tensor:
        """Return the sum of the result and another tensor, without a ReLU: oneDNN's makes 0 of what is no number."""
        run = torch.ops.mkldnn._convolution_pointwise.binary
        return run(x, other, self.weight, self.bias, *self._how, "add", 1.0, None, [], "")  # type: ignore[no-any-return]


def rectify_(x: Tensor) -> Tensor:
    """Overwrite `x` with what a ReLU makes of it.

    For bfloat16 torch's own goes through float32 and takes four times as long. As integers the numbers below 0 are
    below 0 too, and what is not a number stays what it is.
    """
    if x.dtype != torch.bfloat16:
        return F.relu_(x)
    torch.threshold_(x.view(torch.int16), LAST_NEGATIVE, 0)
    return x


class NarrowActivation(nn.Module):
    """An `Activation` for bfloat16."""

    def __init__(self, of: Activation) -> None:
        super().__init__()
        self.of = of

    def forward(self, x: Tensor) -> Tensor:
        of = self.of
        return rectify_(F.batch_norm(x, of.mean, of.variance, of.weight, of.bias, eps=EPS))


class NarrowStack(nn.Module):
    """A `Stack` for bfloat16."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.hourglass, self.top = stack.hourglass, stack.top
        self.conv_last = stack.conv_last

    def forward(self, x: Tensor) -> Tensor:
        return rectify_(self.conv_last(self.top(self.hourglass(x))))


class PackedBottleneck(nn.Module):
    """A `FoldedBottleneck` of packed convolutions, of which the last adds the skip."""

    def __init__(self, block: FoldedBottleneck) -> None:
        super().__init__()
        assert isinstance(block.conv3, PackedConv)
        self.conv1, self.conv2, self.conv3 = block.conv1, block.conv2, block.conv3
        self.downsample = block.downsample

    def forward(self, x: Tensor) -> Tensor:
        y = rectify_(self.conv2(rectify_(self.conv1(x))))
        return rectify_(self.conv3.added(y, self.downsample(x)))


class LinearByRow(nn.Module):
    """A linear layer that takes pictures one by one: a matrix product of several sums in another order."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs) -> (N, outputs)."""
        return torch.cat([self.linear(row) for row in x[:, None].unbind()])


def pack(network: Folded, maps: Tensor) -> None:
    """Pack a folded network for maps (N, C, 128, 128) of this shape and type, which its first convolution gives."""
    sizes = _sizes(network, maps)
    _replace(network, nn.Conv2d, lambda conv: PackedConv(conv, sizes[conv]) if conv in sizes else conv)
    _replace(network, FoldedBottleneck, PackedBottleneck)
    if maps.dtype == torch.bfloat16:
        _replace(network, Activation, NarrowActivation)
        _replace(network, Stack, NarrowStack)
    if isinstance(network, FoldedDepth):
        _replace(network, nn.Linear, LinearByRow)


def _replace(network: nn.Module, kind: type[M], make: Callable[[M], nn.Module]) -> None:
    for name, module in list(network.named_modules()):
        if isinstance(module, kind):
            network.set_submodule(name, make(module))


def _sizes(network: Folded, maps: Tensor) -> dict[nn.Module, tuple[int, ...]]:
    """Run a network once and return the shape of what each of its convolutions is given."""
    found: dict[nn.Module, tuple[int, ...]] = {}

    def note(conv: nn.Module, inputs: tuple[Any, ...]) -> None:
        found[conv] = tuple(inputs[0].shape)

    with ExitStack() as stack:
        for part in network.modules():
            if isinstance(part, nn.Conv2d):
                stack.callback(part.register_forward_pre_hook(note).remove)
        network.body(maps)
    return found
