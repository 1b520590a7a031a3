"""A FAN for inference whose convolutions do everything between them.

A pre-activation block reads each activation several times: for batch norm, ReLU, concatenation and addition. Here a
convolution reads an activated plane and writes all that others need of its result: the next convolution's activated
input, its channels of the block's sum, and the activation of those for the next block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ls3dw.models import kernels
from ls3dw.models.inference.folding import between_stacks, scale_and_shift
from ls3dw.models.kernels.operations import (
    ActivationTarget,
    ConvWeights,
    Epilogue,
    Operations,
    Plane,
    ScaleShift,
)
from ls3dw.models.networks.fan import FAN, HOURGLASS_DEPTH, HPMBlock


@dataclass(frozen=True)
class Features:
    """Input of a block: activations, and the same after its first batch norm and ReLU."""

    raw: Plane
    active: Plane


@dataclass(frozen=True)
class FusedBlock:
    """A folded HPM block. norms: before each convolution; shortcut: norm and 1x1 convolution of the skip, if any."""

    norms: tuple[ScaleShift, ScaleShift, ScaleShift]
    convolutions: tuple[ConvWeights, ConvWeights, ConvWeights]
    shortcut: tuple[ScaleShift, ConvWeights] | None

    @property
    def outputs(self) -> int:
        return sum(weights.outputs for weights in self.convolutions)


@dataclass(frozen=True)
class FusedStack:
    """A folded hourglass and the layers after it. merge: to the next stack's input, None for the last stack."""

    blocks: dict[str, FusedBlock]
    top: FusedBlock
    last: ConvWeights
    last_norm: ScaleShift
    heatmaps: ConvWeights
    merge: ConvWeights | None


class FusedFAN:
    """A FAN in eval mode, folded and fused: (N, in_channels or more, 256, 256) -> (N, 68, 64, 64) of the last stack.

    dtype: of activations and weights; sums and batch norms are float32. operations: None for Triton kernels. device: of
    the folded weights, None for the network's. Weights are copied: a network that changes later has to be fused again.

    Input may have more channels than the network, as padding; they must be finite.
    """

    def __init__(
        self,
        network: FAN,
        dtype: torch.dtype = torch.float16,
        operations: Operations | None = None,
        device: torch.device | None = None,
    ) -> None:
        if network.training:
            raise ValueError("network is in training mode; expected eval mode, whose batch norms can be folded")
        self._operations = operations or kernels.TritonOperations()
        self._pooling = network.pooling
        self._dtype = dtype
        target = Placement(device or network.conv1.weight.device, dtype)
        self._first_weight = network.conv1.weight.detach().to(dtype).to(target.device)
        self._first_norm = target.norm(network.bn1, network.conv1.bias)
        self._stem = tuple(_fold_block(block, target) for block in (network.conv2, network.conv3, network.conv4))
        self._stacks = tuple(_fold_stack(network, number, target) for number in range(network.stacks))

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
        """Continue from the result of `first`: heatmaps (N, 68, 64, 64) as a view, channels last, not contiguous."""
        features = self._enter(maps)
        *others, last = self._stacks
        for number, stack in enumerate(others):
            assert stack.merge is not None
            top = self._top(stack, features)
            raw, active = (self._plane(top, stack.merge.outputs) for _ in range(2))
            following = ActivationTarget(active, self._norm_of_stack(number + 1))
            self._last(stack, top, stack.merge, Epilogue(plane=raw, residual=features.raw, following=following))
            features = Features(raw, active)
        top = self._top(last, features)
        heatmaps = self._plane(top, last.heatmaps.outputs)
        self._last(last, top, last.heatmaps, Epilogue(plane=heatmaps))
        return heatmaps.inside.permute(0, 3, 1, 2)

    def _top(self, stack: FusedStack, x: Features) -> Plane:
        """Return the input of a stack's last convolutions."""
        x = self._hourglass(stack, x, HOURGLASS_DEPTH, stack.top.norms[0])
        top, _ = self._block(stack.top, x.active, x.raw, None)
        return top

    def _last(self, stack: FusedStack, top: Plane, weights: ConvWeights, epilogue: Epilogue) -> None:
        self._operations.convolve_twice(top, stack.last, stack.last_norm, weights, epilogue)

    def _norm_of_stack(self, number: int) -> ScaleShift:
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

    def _widen(self, block: FusedBlock, y: Plane, following: ScaleShift) -> Features:
        """Apply norm, ReLU, a block with a shortcut, and pooling to the first convolution's result y."""
        assert block.shortcut is not None
        norm, weights = block.shortcut
        active, beside = (self._plane(y, weights.inputs) for _ in range(2))
        results = [ActivationTarget(active, block.norms[0]), ActivationTarget(beside, norm)]
        self._operations.activate(y, self._first_norm, results)
        residual = self._plane(y, weights.outputs)
        self._operations.convolve(beside, weights, Epilogue(plane=residual))
        out, _ = self._block(block, active, residual, None)
        return self._pool(out, following)

    def _widen_averaged(self, block: FusedBlock, y: Plane, following: ScaleShift) -> Features:
        """Do the same for average pooling, which may come before the shortcut's 1x1 convolution: both are linear.

        The shortcut is then never computed at the full resolution, in the largest planes of all.
        """
        assert block.shortcut is not None
        norm, weights = block.shortcut
        active, beside = self._plane(y, weights.inputs), self._plane(y, weights.inputs, 0.5)
        results = (ActivationTarget(active, block.norms[0]), ActivationTarget(beside, norm))
        self._operations.activate_and_average(y, self._first_norm, *results)
        out, _ = self._block(block, active, None, None)
        pooled, raw, onward = (self._plane(y, weights.outputs, 0.5) for _ in range(3))
        self._operations.pool(out, "avg", pooled, None)
        epilogue = Epilogue(plane=raw, residual=pooled, following=ActivationTarget(onward, following))
        self._operations.convolve(beside, weights, epilogue)
        return Features(raw, onward)

    def _shortcut(self, block: FusedBlock, raw: Plane) -> Plane:
        assert block.shortcut is not None
        norm, weights = block.shortcut
        beside, residual = self._plane(raw, weights.inputs), self._plane(raw, weights.outputs)
        self._operations.activate(raw, None, [ActivationTarget(beside, norm)])
        self._operations.convolve(beside, weights, Epilogue(plane=residual))
        return residual

    def _block(
        self,
        block: FusedBlock,
        active: Plane,
        residual: Plane | None,
        following: ScaleShift | None,
        low: Plane | None = None,
    ) -> tuple[Plane, Plane | None]:
        """Return a block's result plus `low`, and its activation by the norm `following`, if given."""
        out = self._plane(active, block.outputs)
        onward = None if following is None else ActivationTarget(self._plane(active, block.outputs), following)
        offset = 0
        for weights, norm in zip(block.convolutions, (*block.norms[1:], None), strict=True):
            count = weights.outputs
            then = None if norm is None else ActivationTarget(self._plane(active, count), norm)
            part = None if onward is None else onward.part(offset, count)
            self._operations.convolve(active, weights, Epilogue(then, out, residual, low, offset, part))
            active = active if then is None else then.plane
            offset += count
        return out, None if onward is None else onward.plane

    def _identity_block(self, block: FusedBlock, x: Features, following: ScaleShift) -> Features:
        raw, active = self._block(block, x.active, x.raw, following)
        assert active is not None
        return Features(raw, active)

    def _pool(self, source: Plane, norm: ScaleShift) -> Features:
        channels = source.data.shape[3]
        raw, active = self._plane(source, channels, 0.5), self._plane(source, channels, 0.5)
        self._operations.pool(source, self._pooling, raw, ActivationTarget(active, norm))
        return Features(raw, active)

    def _hourglass(self, stack: FusedStack, x: Features, level: int, norm: ScaleShift) -> Features:
        """Return an hourglass's result; norm: of the block that reads it.

        The block at this resolution comes last, so that it can add the result of the lower ones.
        """
        low = self._low(stack, x.raw, level)
        raw, active = self._block(stack.blocks[f"b1_{level}"], x.active, x.raw, norm, low)
        assert active is not None
        return Features(raw, active)

    def _low(self, stack: FusedStack, x: Plane, level: int) -> Plane:
        """Return the part of an hourglass at half the resolution of `x`, before upsampling."""
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


@dataclass(frozen=True)
class Placement:
    """Device of folded weights, and type of those of convolutions."""

    device: torch.device
    dtype: torch.dtype

    def norm(self, norm: nn.BatchNorm2d, bias: Tensor | None = None) -> ScaleShift:
        """Place a batch norm in eval mode that follows a convolution's `bias`."""
        scale, shift = scale_and_shift(norm, bias)
        return ScaleShift(scale.detach().float().to(self.device), shift.detach().float().to(self.device))

    def conv(self, weight: Tensor, bias: Tensor | None = None) -> ConvWeights:
        """Place a convolution's weight (outputs, inputs, k, k) and bias."""
        flat = weight.detach().permute(0, 2, 3, 1).reshape(weight.shape[0], -1).to(self.dtype).contiguous()
        shift = None if bias is None else bias.detach().float().to(self.device)
        return ConvWeights(flat.to(self.device), weight.shape[2] * weight.shape[3], shift)


def _fold_block(block: nn.Module, target: Placement) -> FusedBlock:
    assert isinstance(block, HPMBlock)
    shortcut = None
    if isinstance(block.downsample, nn.Sequential):
        norm, _, convolution = block.downsample
        assert isinstance(norm, nn.BatchNorm2d)
        assert isinstance(convolution, nn.Conv2d)
        shortcut = (target.norm(norm), target.conv(convolution.weight))
    return FusedBlock(
        norms=(target.norm(block.bn1), target.norm(block.bn2), target.norm(block.bn3)),
        convolutions=(
            target.conv(block.conv1.weight),
            target.conv(block.conv2.weight),
            target.conv(block.conv3.weight),
        ),
        shortcut=shortcut,
    )


def _fold_stack(network: FAN, number: int, target: Placement) -> FusedStack:
    last, norm, heatmaps = (network.get_submodule(f"{name}{number}") for name in ("conv_last", "bn_end", "l"))
    assert isinstance(last, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(heatmaps, nn.Conv2d)
    merged = between_stacks(network, number) if number < network.stacks - 1 else None
    return FusedStack(
        blocks={
            name: _fold_block(block, target) for name, block in network.get_submodule(f"m{number}").named_children()
        },
        top=_fold_block(network.get_submodule(f"top_m_{number}"), target),
        last=target.conv(last.weight),
        last_norm=target.norm(norm, last.bias),
        heatmaps=target.conv(heatmaps.weight, heatmaps.bias),
        merge=None if merged is None else target.conv(merged.weight, merged.bias),
    )
