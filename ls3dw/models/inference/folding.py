"""Networks for inference alone: what a batch norm does after a convolution is folded into it, and nothing is computed
that only training needs. Outputs are the plain network's but for rounding."""

from __future__ import annotations

import copy
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ls3dw.models.networks.depth import Bottleneck, DepthNet
from ls3dw.models.networks.fan import FAN, HPMBlock, pool2

EPS: Final = 1e-5
"""What torch adds to a variance: some of its versions refuse to add nothing."""


def affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return what a batch norm in eval mode multiplies by and adds, in float64."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - norm.running_mean.double() * scale


def fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Return the convolution that does both, in float64."""
    scale, shift = affine(norm)
    bias = shift if conv.bias is None else shift + conv.bias.double() * scale
    return _like(conv, conv.weight.double() * scale[:, None, None, None], bias)


def merge(heatmaps: nn.Conv2d, back: nn.Conv2d, direct: nn.Conv2d) -> nn.Conv2d:
    """Return the 1x1 convolution that is `direct(x) + back(heatmaps(x))`, in float64."""
    again = back.weight.double().flatten(1)
    weight = direct.weight.double() + (again @ heatmaps.weight.double().flatten(1))[..., None, None]
    biases = [conv.bias for conv in (direct, back, heatmaps)]
    assert biases[0] is not None
    assert biases[1] is not None
    assert biases[2] is not None
    return _like(direct, weight, biases[0].double() + biases[1].double() + again @ biases[2].double())


def _like(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    # All but the weights, which these replace: their copies took as long as all the folding.
    made = copy.deepcopy(conv, {id(conv.weight): None, id(conv.bias): None})
    made.weight, made.bias = nn.Parameter(weight), nn.Parameter(bias)
    return made


class Activation(nn.Module):
    """A batch norm that comes before a convolution, and its ReLU. It cannot be folded into that convolution, whose
    padding is not normalised. Computes in float32 whatever its input is in."""

    mean: Tensor
    variance: Tensor
    weight: Tensor
    bias: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        scale, shift = affine(norm)
        self.register_buffer("scale", scale[:, None, None])
        self.register_buffer("shift", shift[:, None, None])
        # The same for a batch norm, which wants vectors: reshaping them at each call took a tenth of its time.
        self.register_buffer("weight", scale.clone())
        self.register_buffer("bias", shift.clone())
        self.register_buffer("mean", torch.zeros_like(scale))
        self.register_buffer("variance", torch.full_like(scale, 1 - EPS))

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == self.scale.dtype:
            # In half the time of a batch norm on a CPU.
            return torch.addcmul(self.shift, x, self.scale).relu_()
        # Reads and writes the type of x and computes in float32, without casts; addcmul in bfloat16 is no faster.
        return F.relu_(F.batch_norm(x, self.mean, self.variance, self.weight, self.bias, eps=EPS))


class LeanBlock(nn.Module):
    """An `HPMBlock` that overwrites what nothing else reads."""

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


class Stem(nn.Module):
    """From a FAN's first convolution to its first hourglass: (N, C, 128, 128) -> (N, features, 64, 64)."""

    def __init__(self, fan: FAN) -> None:
        super().__init__()
        self.pooling = fan.pooling
        self.conv2, self.conv3, self.conv4 = LeanBlock(fan.conv2), LeanBlock(fan.conv3), LeanBlock(fan.conv4)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv4(self.conv3(pool2(self.conv2(x), self.pooling)))  # type: ignore[no-any-return]


class Stack(nn.Module):
    """An hourglass with what follows it: (N, features, 64, 64) -> the same, what heatmaps are made from."""

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
        return F.relu_(self.conv_last(self.top(self.hourglass(x))))


class FoldedFAN(nn.Module):
    """A FAN for inference: the last stack's heatmaps alone. `first` is its first convolution, without its ReLU."""

    def __init__(self, fan: FAN) -> None:
        super().__init__()
        fan = copy.deepcopy(fan).double()
        self.first = fold(fan.conv1, fan.bn1)
        self.stem = Stem(fan)
        self.stacks = nn.ModuleList(Stack(fan, number) for number in range(fan.stacks))
        self.between = nn.ModuleList(_between(fan, number) for number in range(fan.stacks - 1))
        self.heatmaps = fan.get_submodule(f"l{fan.stacks - 1}")

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, 256, 256) -> (N, 68, 64, 64)."""
        return self.body(self.first(x))

    def body(self, x: Tensor) -> Tensor:
        """Go on from the result of the first convolution (N, C, 128, 128), which is overwritten."""
        x = self.stem(F.relu_(x))
        for stack, between in zip(self.stacks, self.between, strict=False):
            x = x + between(stack(x))
        return self.heatmaps(self.stacks[-1](x).to(self.heatmaps.weight.dtype))  # type: ignore[no-any-return]


def _between(fan: FAN, number: int) -> nn.Conv2d:
    heatmaps, back, direct = (fan.get_submodule(f"{name}{number}") for name in ("l", "al", "bl"))
    assert isinstance(heatmaps, nn.Conv2d)
    assert isinstance(back, nn.Conv2d)
    assert isinstance(direct, nn.Conv2d)
    return merge(heatmaps, back, direct)


class FoldedBottleneck(nn.Module):
    """A `Bottleneck` without batch norms."""

    def __init__(self, block: Bottleneck) -> None:
        super().__init__()
        self.conv1, self.conv2 = fold(block.conv1, block.bn1), fold(block.conv2, block.bn2)
        self.conv3 = fold(block.conv3, block.bn3)
        skip = block.downsample
        self.downsample = fold(skip[0], skip[1]) if isinstance(skip, nn.Sequential) else skip  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu_(self.conv2(F.relu_(self.conv1(x))))
        return F.relu_(self.conv3(y).add_(self.downsample(x)))


class FoldedDepth(nn.Module):
    """A depth network for inference. `first` is its first convolution, without its ReLU."""

    def __init__(self, network: DepthNet) -> None:
        super().__init__()
        self.first = fold(network.conv1, network.bn1)
        blocks = [block for stage in range(1, 5) for block in network.get_submodule(f"layer{stage}").children()]
        self.blocks = nn.ModuleList(FoldedBottleneck(block) for block in blocks if isinstance(block, Bottleneck))
        self.fc = copy.deepcopy(network.fc)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 71, 256, 256) -> (N, 68)."""
        return self.body(self.first(x))

    def body(self, x: Tensor) -> Tensor:
        """Go on from the result of the first convolution (N, C, 128, 128)."""
        x = self.enter(x)
        for block in self.blocks:
            x = block(x)
        return self.leave(x)

    @staticmethod
    def enter(x: Tensor) -> Tensor:
        """(N, C, 128, 128) -> (N, C, 64, 64), what the first block sees."""
        return F.relu_(F.max_pool2d(x, 3, stride=2, padding=1))

    def leave(self, x: Tensor) -> Tensor:
        """Go on from the result of the last block (N, C, 8, 8)."""
        # In float32 whatever the convolutions are in: depths reach 60 px, where float16 knows steps of 0.03 px.
        mean = x[..., :7, :7].float().mean(dim=(2, 3))
        return self.fc(mean)  # type: ignore[no-any-return]


Folded = FoldedFAN | FoldedDepth


def folded(network: FAN | DepthNet, dtype: torch.dtype) -> Folded:
    """Fold a network in eval mode; its convolutions in `dtype`, channels last.

    The batch norms that stay are in float32, and so is the first convolution, to be cast as it is used. In bfloat16 the
    last one is too: both together take a third off the error of the landmarks, for nothing.
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
