"""Folds a FAN for the fused one: batch norms to scales and shifts, what is linear to one convolution."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ls3dw.models.fan import FAN, HPMBlock
from ls3dw.models.fused_ops import Affine, Weights, fold_norm, pack


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


def fold_block(block: nn.Module, dtype: torch.dtype) -> Block:
    assert isinstance(block, HPMBlock)
    shortcut = None
    if isinstance(block.downsample, nn.Sequential):
        norm, _, convolution = block.downsample
        assert isinstance(norm, nn.BatchNorm2d)
        assert isinstance(convolution, nn.Conv2d)
        shortcut = (fold_norm(norm), pack(convolution.weight, dtype))
    return Block(
        norms=(fold_norm(block.bn1), fold_norm(block.bn2), fold_norm(block.bn3)),
        convolutions=(
            pack(block.conv1.weight, dtype),
            pack(block.conv2.weight, dtype),
            pack(block.conv3.weight, dtype),
        ),
        shortcut=shortcut,
    )


def fold_stack(network: FAN, number: int, dtype: torch.dtype) -> Stack:
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
        merge = merge_convolutions(hidden, heatmaps, back, dtype)
    return Stack(
        blocks={name: fold_block(block, dtype) for name, block in hourglass.named_children()},
        top=fold_block(network.get_submodule(f"top_m_{number}"), dtype),
        last=pack(last.weight, dtype),
        last_norm=fold_norm(norm, last.bias),
        heatmaps=pack(heatmaps.weight, dtype, heatmaps.bias),
        merge=merge,
    )


def merge_convolutions(hidden: nn.Conv2d, heatmaps: nn.Conv2d, back: nn.Conv2d, dtype: torch.dtype) -> Weights:
    """Return hidden(x) + back(heatmaps(x)) as one 1x1 convolution, composed in float64."""
    assert hidden.bias is not None
    assert heatmaps.bias is not None
    assert back.bias is not None
    through = back.weight.double().flatten(1)
    weight = hidden.weight.double().flatten(1) + through @ heatmaps.weight.double().flatten(1)
    bias = hidden.bias.double() + back.bias.double() + through @ heatmaps.bias.double()
    return pack(weight[..., None, None], dtype, bias)
