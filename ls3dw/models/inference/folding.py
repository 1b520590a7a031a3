"""Folds networks for inference: batch norms into the convolutions before them, and only the final outputs computed.

Outputs equal the plain network's except for rounding. `pack` then prepares a folded network for oneDNN on a CPU.
"""

from __future__ import annotations

import copy
from contextlib import ExitStack
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ls3dw.models.inference.policy import Policy, has_bfloat16
from ls3dw.models.networks.depth import Bottleneck, DepthNet
from ls3dw.models.networks.fan import FAN, HPMBlock, pool2

EPS: Final = 1e-5
"""Torch's default addition to a variance; some versions refuse 0."""

MINUS_INFINITY: Final = -128
"""Bits of minus infinity in bfloat16 as an int16: negative integers above it are NaNs."""


def scale_and_shift(norm: nn.BatchNorm2d, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return factor and summand, float64, of a batch norm in eval mode that follows a convolution's `bias`."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    mean = norm.running_mean.double() - (0 if bias is None else bias.double())
    return scale, norm.bias.double() - mean * scale


def fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Return a float64 convolution that does the work of both."""
    scale, shift = scale_and_shift(norm)
    bias = shift if conv.bias is None else shift + conv.bias.double() * scale
    return _like(conv, conv.weight.double() * scale[:, None, None, None], bias)


def merge(heatmaps: nn.Conv2d, back: nn.Conv2d, direct: nn.Conv2d) -> nn.Conv2d:
    """Return the float64 1x1 convolution `direct(x) + back(heatmaps(x))`."""
    again = back.weight.double().flatten(1)
    weight = direct.weight.double() + (again @ heatmaps.weight.double().flatten(1))[..., None, None]
    biases = [conv.bias for conv in (direct, back, heatmaps)]
    assert biases[0] is not None
    assert biases[1] is not None
    assert biases[2] is not None
    return _like(direct, weight, biases[0].double() + biases[1].double() + again @ biases[2].double())


def _like(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    # Copying the weights, which are replaced, would take as long as all the folding.
    made = copy.deepcopy(conv, {id(conv.weight): None, id(conv.bias): None})
    made.weight, made.bias = nn.Parameter(weight), nn.Parameter(bias)
    return made


def between_stacks(fan: FAN, number: int) -> nn.Conv2d:
    """Merge the convolutions from a stack to the next one's input: all are linear."""
    heatmaps, back, direct = (fan.get_submodule(f"{name}{number}") for name in ("l", "al", "bl"))
    assert isinstance(heatmaps, nn.Conv2d)
    assert isinstance(back, nn.Conv2d)
    assert isinstance(direct, nn.Conv2d)
    return merge(heatmaps, back, direct)


def rectify_(x: Tensor) -> Tensor:
    """Apply ReLU in place.

    Torch's own goes through float32 for bfloat16 and takes four times as long. Compared as int16, negative numbers stay
    negative, and NaNs are kept.
    """
    if x.dtype != torch.bfloat16:
        return F.relu_(x)
    torch.threshold_(x.view(torch.int16), MINUS_INFINITY, 0)
    return x


class Activation(nn.Module):
    """A batch norm and ReLU before a convolution, computed in float32 for inputs of any type.

    It cannot be folded into the convolution, whose zero padding comes after the norm.
    """

    mean: Tensor
    variance: Tensor
    weight: Tensor
    bias: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        scale, shift = scale_and_shift(norm)
        self.register_buffer("scale", scale[:, None, None])
        self.register_buffer("shift", shift[:, None, None])
        # As vectors for `batch_norm`: reshaping at each call took a tenth of its time.
        self.register_buffer("weight", scale.clone())
        self.register_buffer("bias", shift.clone())
        self.register_buffer("mean", torch.zeros_like(scale))
        self.register_buffer("variance", torch.full_like(scale, 1 - EPS))

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == self.scale.dtype:
            # Twice as fast as a batch norm on a CPU.
            return torch.addcmul(self.shift, x, self.scale).relu_()
        # Computes in float32 without casts; addcmul in bfloat16 is no faster.
        return rectify_(F.batch_norm(x, self.mean, self.variance, self.weight, self.bias, eps=EPS))


class LeanBlock(nn.Module):
    """An `HPMBlock` that works in place where it can."""

    def __init__(self, block: HPMBlock) -> None:
        super().__init__()
        self.act1, self.act2, self.act3 = Activation(block.bn1), Activation(block.bn2), Activation(block.bn3)
        self.conv1, self.conv2, self.conv3 = block.conv1, block.conv2, block.conv3
        self.downsample = block.downsample
        if isinstance(block.downsample, nn.Sequential):
            norm, _, conv = block.downsample
            assert isinstance(norm, nn.BatchNorm2d)
            self.downsample = nn.Sequential(Activation(norm), conv)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv1(self.act1(x))
        second = self.conv2(self.act2(first))
        third = self.conv3(self.act3(second))
        return torch.cat((first, second, third), dim=1).add_(self.downsample(x))


def _lean(module: nn.Module) -> nn.Module:
    """Replace the blocks in a module."""
    for name, child in list(module.named_children()):
        module.add_module(name, LeanBlock(child) if isinstance(child, HPMBlock) else _lean(child))
    return module


class Stack(nn.Module):
    """An hourglass and the layers up to its heatmaps: (N, features, 64, 64) -> the same shape."""

    def __init__(self, fan: FAN, number: int) -> None:
        super().__init__()
        self.hourglass = _lean(fan.get_submodule(f"m{number}"))
        top, conv, norm = (fan.get_submodule(f"{name}{number}") for name in ("top_m_", "conv_last", "bn_end"))
        assert isinstance(top, HPMBlock)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        self.top = LeanBlock(top)
        self.conv_last = fold(conv, norm)

    def forward(self, x: Tensor) -> Tensor:
        return rectify_(self.conv_last(self.top(self.hourglass(x))))


class FoldedFAN(nn.Module):
    """A FAN that computes the last stack's heatmaps only. first: its first convolution, without ReLU."""

    def __init__(self, fan: FAN) -> None:
        super().__init__()
        fan = copy.deepcopy(fan).double()
        self.pooling = fan.pooling
        self.first = fold(fan.conv1, fan.bn1)
        self.conv2, self.conv3, self.conv4 = LeanBlock(fan.conv2), LeanBlock(fan.conv3), LeanBlock(fan.conv4)
        self.stacks = nn.ModuleList(Stack(fan, number) for number in range(fan.stacks))
        self.between = nn.ModuleList(between_stacks(fan, number) for number in range(fan.stacks - 1))
        self.heatmaps = fan.get_submodule(f"l{fan.stacks - 1}")

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, 256, 256) -> (N, 68, 64, 64)."""
        return self.body(self.first(x))

    def body(self, x: Tensor) -> Tensor:
        """Continue from the first convolution's result (N, C, 128, 128), which is overwritten."""
        x = self.conv4(self.conv3(pool2(self.conv2(F.relu_(x)), self.pooling)))
        for stack, between in zip(self.stacks, self.between, strict=False):
            x = x + between(stack(x))
        return self.heatmaps(self.stacks[-1](x).to(self.heatmaps.weight.dtype))  # type: ignore[no-any-return]


class FoldedBottleneck(nn.Module):
    """A `Bottleneck` without batch norms."""

    conv3: nn.Conv2d | PackedConv

    def __init__(self, block: Bottleneck) -> None:
        super().__init__()
        self.conv1, self.conv2 = fold(block.conv1, block.bn1), fold(block.conv2, block.bn2)
        self.conv3 = fold(block.conv3, block.bn3)
        skip = block.downsample
        self.downsample = fold(skip[0], skip[1]) if isinstance(skip, nn.Sequential) else skip  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        y, skip = rectify_(self.conv2(rectify_(self.conv1(x)))), self.downsample(x)
        return rectify_(self.conv3.added(y, skip) if isinstance(self.conv3, PackedConv) else self.conv3(y).add_(skip))


class FoldedDepth(nn.Module):
    """A depth network for inference. first: its first convolution, without ReLU."""

    def __init__(self, network: DepthNet) -> None:
        super().__init__()
        self.first = fold(network.conv1, network.bn1)
        blocks = [block for stage in range(1, 5) for block in network.get_submodule(f"layer{stage}").children()]
        self.blocks = nn.ModuleList(FoldedBottleneck(block) for block in blocks if isinstance(block, Bottleneck))
        self.fc = copy.deepcopy(network.fc)
        self.one_by_one = False
        """Whether `fc` takes pictures one by one: matrix products of several sum in another order."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, 71, 256, 256) -> (N, 68)."""
        return self.body(self.first(x))

    def body(self, x: Tensor) -> Tensor:
        """Continue from the first convolution's result (N, C, 128, 128)."""
        x = F.relu_(F.max_pool2d(x, 3, stride=2, padding=1))
        for block in self.blocks:
            x = block(x)
        return self.leave(x)

    def leave(self, x: Tensor) -> Tensor:
        """Continue from the last block's result (N, C, 8, 8)."""
        # Always float32: depths reach 60 px, where float16 has steps of 0.03 px.
        mean = x[..., :7, :7].float().mean(dim=(2, 3))
        if self.one_by_one:
            return torch.cat([self.fc(row) for row in mean[:, None].unbind()])
        return self.fc(mean)  # type: ignore[no-any-return]


Folded = FoldedFAN | FoldedDepth


def fold_network(network: FAN | DepthNet, dtype: torch.dtype) -> Folded:
    """Fold a network in eval mode: convolutions in `dtype`, channels last; the remaining batch norms in float32.

    The first convolution is float32 too, cast where it is used. In bfloat16 the last one is as well: both together
    remove a third of the landmarks' error at no cost.
    """
    made = FoldedFAN(network) if isinstance(network, FAN) else FoldedDepth(network)
    made.float().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    kept: list[nn.Module] = [made.first]
    if dtype == torch.bfloat16 and isinstance(made, FoldedFAN):
        kept.append(made.heatmaps)
    for module in made.modules():
        if isinstance(module, nn.Conv2d) and module not in kept:
            module.to(dtype)
    return made.eval().requires_grad_(False)


def packable(policy: Policy) -> bool:
    """Return whether oneDNN runs networks here; for bfloat16 it needs a processor with such instructions."""
    if policy.on_gpu or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return policy.dtype == torch.float32 or (policy.dtype == torch.bfloat16 and has_bfloat16())


class PackedConv(nn.Module):
    """A convolution with weights in oneDNN's order for inputs of one size (N, C, H, W), channels last.

    For other sizes oneDNN may reorder them at each call.
    """

    def __init__(self, conv: nn.Conv2d, size: tuple[int, ...]) -> None:
        super().__init__()
        self._settings = (conv.padding, conv.stride, conv.dilation, conv.groups)
        # Not a parameter: only oneDNN can read it.
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(conv.weight, *self._settings, size)
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        run = torch.ops.mkldnn._convolution_pointwise.default
        return run(x, self.weight, self.bias, *self._settings, "none", [], "")  # type: ignore[no-any-return]

    def added(self, x: Tensor, other: Tensor) -> Tensor:
        """Return the result plus `other`. Without oneDNN's ReLU, which turns NaN into 0."""
        run = torch.ops.mkldnn._convolution_pointwise.binary
        return run(x, other, self.weight, self.bias, *self._settings, "add", 1.0, None, [], "")  # type: ignore[no-any-return]


def pack(network: Folded, maps: Tensor) -> None:
    """Pack a folded network in place for first-convolution results `maps` (N, C, 128, 128) of this shape and type."""
    sizes = _input_sizes(network, maps)
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d) and module in sizes:
            network.set_submodule(name, PackedConv(module, sizes[module]))
    if isinstance(network, FoldedDepth):
        network.one_by_one = True


def _input_sizes(network: Folded, maps: Tensor) -> dict[nn.Module, tuple[int, ...]]:
    """Run a network once and return the input shape of each of its convolutions."""
    found: dict[nn.Module, tuple[int, ...]] = {}

    def note(conv: nn.Module, inputs: tuple[Any, ...]) -> None:
        found[conv] = tuple(inputs[0].shape)

    with ExitStack() as stack:
        for part in network.modules():
            if isinstance(part, nn.Conv2d):
                stack.callback(part.register_forward_pre_hook(note).remove)
        network.body(maps)
    return found
