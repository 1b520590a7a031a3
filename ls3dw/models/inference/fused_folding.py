"""Folds a FAN for the fused one: batch norms to scales and shifts, what is linear to one convolution."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ls3dw.models.kernels.operations import Affine, Target, Weights, fold_norm, pack
from ls3dw.models.networks.fan import FAN, HPMBlock


@dataclass(frozen=True)
class Block:
    """A folded HPM block. norms: before each convolution; shortcut: norm and 1x1 convolution of the skip, if any."""

    norms: tuple[Affine, Affine, Affine]
    convolutions: tuple[Weights, Weights, Weights]
    shortcut: tuple[Affine, Weights] | None

    @property
    def outputs(self) -> int:
        return sum(weights.outputs for weights in self.convolutions)


@dataclass(frozen=True)
class Stack:
    """A folded hourglass with what follows it. merge: to the next stack's input, None for the last stack's."""

    blocks: dict[str, Block]
    top: Block
    last: Weights
    last_norm: Affine
    heatmaps: Weights
    merge: Weights | None


def fold_block(block: nn.Module, target: Target) -> Block:
    assert isinstance(block, HPMBlock)
    shortcut = None
    if isinstance(block.downsample, nn.Sequential):
        norm, _, convolution = block.downsample
        assert isinstance(norm, nn.BatchNorm2d)
        assert isinstance(convolution, nn.Conv2d)
        shortcut = (fold_norm(norm, target), pack(convolution.weight, target))
    return Block(
        norms=(fold_norm(block.bn1, target), fold_norm(block.bn2, target), fold_norm(block.bn3, target)),
        convolutions=(
            pack(block.conv1.weight, target),
            pack(block.conv2.weight, target),
            pack(block.conv3.weight, target),
        ),
        shortcut=shortcut,
    )


def fold_stack(network: FAN, number: int, target: Target) -> Stack:
    """Fold one stack. Both convolutions to the next stack's input are linear in `hidden`, so they become one."""
    last = network.get_submodule(f"conv_last{number}")
    norm = network.get_submodule(f"bn_end{number}")
    heatmaps = network.get_submodule(f"l{number}")
    assert isinstance(last, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(heatmaps, nn.Conv2d)
    hourglass = network.get_submodule(f"m{number}")
    merge = None
    if number < network.stacks - 1:
        hidden = network.get_submodule(f"bl{number}")
        back = network.get_submodule(f"al{number}")
        assert isinstance(hidden, nn.Conv2d)
        assert isinstance(back, nn.Conv2d)
        merge = merge_convolutions(hidden, heatmaps, back, target)
    return Stack(
        blocks={name: fold_block(block, target) for name, block in hourglass.named_children()},
        top=fold_block(network.get_submodule(f"top_m_{number}"), target),
        last=pack(last.weight, target),
        last_norm=fold_norm(norm, target, last.bias),
        heatmaps=pack(heatmaps.weight, target, heatmaps.bias),
        merge=merge,
    )


def merge_convolutions(hidden: nn.Conv2d, heatmaps: nn.Conv2d, back: nn.Conv2d, target: Target) -> Weights:
    """Return hidden(x) + back(heatmaps(x)) as one 1x1 convolution, composed in float64."""
    assert hidden.bias is not None
    assert heatmaps.bias is not None
    assert back.bias is not None
    through = back.weight.double().flatten(1)
    weight = hidden.weight.double().flatten(1) + through @ heatmaps.weight.double().flatten(1)
    bias = hidden.bias.double() + back.bias.double() + through @ heatmaps.bias.double()
    return pack(weight[..., None, None], target, bias)
