"""FAN for inference with everything between its convolutions fused into them.

A pre-activation block reads each activation several times: for batch norm, for ReLU, for concatenation, for addition.
Here a convolution reads what is activated already and itself writes all that others need of its result: the next
convolution's activated input, its channels of the block's sum, and the activation of those for the block after.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ls3dw.models.inference.fused_folding import Block, Stack, fold_block, fold_stack
from ls3dw.models.kernels.operations import (
    Activation,
    Affine,
    Finish,
    Operations,
    PlainOperations,
    Plane,
    Target,
    Weights,
    fold_norm,
)
from ls3dw.models.networks.fan import FAN, HOURGLASS_DEPTH

Convolutions = Literal["plain", "cudnn", "triton"]


@dataclass(frozen=True)
class Features:
    """What a block reads: the activations themselves and after its first batch norm and ReLU."""

    raw: Plane
    active: Plane


class FusedFAN:
    """A FAN in eval mode, folded and fused: (N, in_channels or more, 256, 256) -> (N, 68, 64, 64) of the last stack.

    convolutions: "triton" for convolutions that write their own epilogues, "cudnn" for cuDNN's with one pass after
    each (both need a CUDA device), "plain" for the same steps in torch. dtype: of activations and weights; sums and
    batch norms are float32. The weights are taken as they are now: a network that changes later has to be fused again.
    device: where they go, None: where the network is, which stays there.

    Input may have more channels than the network, as padding: they must be finite, and meet zero weights.
    """

    def __init__(
        self,
        network: FAN,
        convolutions: Convolutions = "triton",
        dtype: torch.dtype = torch.float16,
        operations: Operations | None = None,
        device: torch.device | None = None,
    ) -> None:
        if network.training:
            raise ValueError("network is in training mode; expected eval mode, whose batch norms can be folded")
        self._operations = operations or operations_of(convolutions)
        self._pooling = network.pooling
        self._dtype = dtype
        target = Target(device or network.conv1.weight.device, dtype)
        self._first_weight = network.conv1.weight.detach().to(dtype).to(target.device)
        self._first_norm = fold_norm(network.bn1, target, network.conv1.bias)
        self._stem = tuple(fold_block(block, target) for block in (network.conv2, network.conv3, network.conv4))
        self._stacks = tuple(fold_stack(network, number, target) for number in range(network.stacks))

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        return self.body(self.first(x))

    @torch.no_grad()
    def first(self, x: Tensor) -> Tensor:
        """Apply the first convolution, without its bias: (N, C, 128, 128), channels last."""
        weight = F.pad(self._first_weight, (0, 0, 0, 0, 0, x.shape[1] - self._first_weight.shape[1]))
        x = x.to(self._dtype).contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, weight.contiguous(memory_format=torch.channels_last), stride=2, padding=3)

    @torch.no_grad()
    def body(self, maps: Tensor) -> Tensor:
        """Go on from what `first` gives: heatmaps (N, 68, 64, 64) as a view, channels last, not contiguous."""
        features = self._enter(maps)
        *others, last = self._stacks
        for number, stack in enumerate(others):
            assert stack.merge is not None
            top = self._top(stack, features)
            raw, active = (self._plane(top, stack.merge.outputs) for _ in range(2))
            following = Activation(active, self._norm_of_stack(number + 1))
            self._last(stack, top, stack.merge, Finish(plane=raw, residual=features.raw, following=following))
            features = Features(raw, active)
        top = self._top(last, features)
        heatmaps = self._plane(top, last.heatmaps.outputs)
        self._last(last, top, last.heatmaps, Finish(plane=heatmaps))
        return heatmaps.inside.permute(0, 3, 1, 2)

    def _top(self, stack: Stack, x: Features) -> Plane:
        """Return what the last convolutions of a stack read."""
        x = self._hourglass(stack, x, HOURGLASS_DEPTH, stack.top.norms[0])
        top, _ = self._block(stack.top, x.active, x.raw, None)
        return top

    def _last(self, stack: Stack, top: Plane, weights: Weights, finish: Finish) -> None:
        self._operations.convolve_twice(top, stack.last, stack.last_norm, weights, finish)

    def _norm_of_stack(self, number: int) -> Affine:
        return self._stacks[number].blocks[f"b1_{HOURGLASS_DEPTH}"].norms[0]

    def _plane(self, like: Plane, channels: int, zoom: float = 1.0) -> Plane:
        batch, height, width, _ = like.inside.shape
        return self._operations.empty(batch, int(height * zoom), int(width * zoom), channels, like.data)

    def _enter(self, maps: Tensor) -> Features:
        second, third, fourth = self._stem
        y = Plane(maps.permute(0, 2, 3, 1).contiguous(), 0)
        pooled = (self._widen if self._pooling == "max" else self._widen_averaged)(second, y, third.norms[0])
        raw, active = self._block(third, pooled.active, pooled.raw, fourth.norms[0])
        assert active is not None
        residual = raw if fourth.shortcut is None else self._shortcut(fourth, raw)
        raw, active = self._block(fourth, active, residual, self._norm_of_stack(0))
        assert active is not None
        return Features(raw, active)

    def _widen(self, block: Block, y: Plane, following: Affine) -> Features:
        """Apply a block with a shortcut to the first convolution's y, after norm and ReLU, and pool."""
        assert block.shortcut is not None
        norm, weights = block.shortcut
        active, beside = (self._plane(y, weights.inputs) for _ in range(2))
        results = [Activation(active, block.norms[0]), Activation(beside, norm)]
        self._operations.activate(y, self._first_norm, results)
        residual = self._plane(y, weights.outputs)
        self._operations.convolve(beside, weights, Finish(plane=residual))
        out, _ = self._block(block, active, residual, None)
        return self._pool(out, following)

    def _widen_averaged(self, block: Block, y: Plane, following: Affine) -> Features:
        """Do the same where pooling is a mean, which may come before the shortcut's 1x1 convolution: both are linear.

        The shortcut then never exists at the full resolution, the largest planes of all.
        """
        assert block.shortcut is not None
        norm, weights = block.shortcut
        active, beside = self._plane(y, weights.inputs), self._plane(y, weights.inputs, 0.5)
        results = (Activation(active, block.norms[0]), Activation(beside, norm))
        self._operations.activate_and_average(y, self._first_norm, *results)
        out, _ = self._block(block, active, None, None)
        pooled, raw, onward = (self._plane(y, weights.outputs, 0.5) for _ in range(3))
        self._operations.pool(out, "avg", pooled, None)
        finish = Finish(plane=raw, residual=pooled, following=Activation(onward, following))
        self._operations.convolve(beside, weights, finish)
        return Features(raw, onward)

    def _shortcut(self, block: Block, raw: Plane) -> Plane:
        assert block.shortcut is not None
        norm, weights = block.shortcut
        beside, residual = self._plane(raw, weights.inputs), self._plane(raw, weights.outputs)
        self._operations.activate(raw, None, [Activation(beside, norm)])
        self._operations.convolve(beside, weights, Finish(plane=residual))
        return residual

    def _block(
        self,
        block: Block,
        active: Plane,
        residual: Plane | None,
        following: Affine | None,
        low: Plane | None = None,
    ) -> tuple[Plane, Plane | None]:
        """Return a block's result, `low` added, and, where `following` is a norm, its activation."""
        out = self._plane(active, block.outputs)
        onward = None if following is None else Activation(self._plane(active, block.outputs), following)
        offset = 0
        for weights, norm in zip(block.convolutions, (*block.norms[1:], None), strict=True):
            count = weights.outputs
            then = None if norm is None else Activation(self._plane(active, count), norm)
            part = None if onward is None else onward.part(offset, count)
            self._operations.convolve(active, weights, Finish(then, out, residual, low, offset, part))
            active = active if then is None else then.plane
            offset += count
        return out, None if onward is None else onward.plane

    def _identity_block(self, block: Block, x: Features, following: Affine) -> Features:
        raw, active = self._block(block, x.active, x.raw, following)
        assert active is not None
        return Features(raw, active)

    def _pool(self, source: Plane, norm: Affine) -> Features:
        channels = source.data.shape[3]
        raw, active = self._plane(source, channels, 0.5), self._plane(source, channels, 0.5)
        self._operations.pool(source, self._pooling, raw, Activation(active, norm))
        return Features(raw, active)

    def _hourglass(self, stack: Stack, x: Features, level: int, norm: Affine) -> Features:
        """Return an hourglass's result; `norm` belongs to the block that reads it.

        The block at this resolution comes last: what is added to its result is then there for it to add.
        """
        low = self._low(stack, x.raw, level)
        raw, active = self._block(stack.blocks[f"b1_{level}"], x.active, x.raw, norm, low)
        assert active is not None
        return Features(raw, active)

    def _low(self, stack: Stack, x: Plane, level: int) -> Plane:
        """Return what an hourglass adds at half the resolution of `x`, before upsampling."""
        blocks = stack.blocks
        inner = blocks[f"b1_{level - 1}" if level > 1 else "b2_plus_1"]
        outer = blocks[f"b3_{level}"]
        pooled = self._pool(x, blocks[f"b2_{level}"].norms[0])
        low = self._identity_block(blocks[f"b2_{level}"], pooled, inner.norms[0])
        if level > 1:
            low = self._hourglass(stack, low, level - 1, outer.norms[0])
        else:
            low = self._identity_block(inner, low, outer.norms[0])
        raised, _ = self._block(outer, low.active, low.raw, None)
        return raised


def operations_of(convolutions: Convolutions) -> Operations:
    """Return the operations of that name; Triton is loaded only for those that need it."""
    if convolutions not in ("plain", "cudnn", "triton"):
        raise ValueError(f"convolutions is {convolutions!r}; expected 'plain', 'cudnn' or 'triton'")
    if convolutions == "plain":
        return PlainOperations()
    from ls3dw.models.kernels.convolutions import CudnnOperations, TritonOperations

    return CudnnOperations() if convolutions == "cudnn" else TritonOperations()
