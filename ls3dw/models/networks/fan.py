"""The face alignment network (FAN) of "How far are we" (ICCV 2017), section 3, with the published state-dict keys."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ls3dw.core.markup import POINTS

Pooling = Literal["avg", "max"]

HOURGLASS_DEPTH = 4


def pool2(x: Tensor, pooling: Pooling) -> Tensor:
    """Halve the resolution of `x` (N, C, H, W) over 2x2 windows."""
    return F.avg_pool2d(x, 2) if pooling == "avg" else F.max_pool2d(x, 2)


class HPMBlock(nn.Module):
    """Hierarchical, parallel and multi-scale block: three 3x3 convolutions, each fed by the one before, concatenated.

    (N, in_channels, H, W) -> (N, out_channels, H, W). Pre-activation; the skip is the identity when widths agree.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half, quarter = out_channels // 2, out_channels // 4
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, half, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, quarter, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(quarter)
        self.conv3 = nn.Conv2d(quarter, quarter, 3, padding=1, bias=False)
        self.downsample = (
            nn.Identity()
            if in_channels == out_channels
            else nn.Sequential(
                nn.BatchNorm2d(in_channels),
                nn.ReLU(),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv1(F.relu(self.bn1(x)))
        second = self.conv2(F.relu(self.bn2(first)))
        third = self.conv3(F.relu(self.bn3(second)))
        skip: Tensor = self.downsample(x)
        return torch.cat((first, second, third), dim=1) + skip


class Hourglass(nn.Module):
    """One hourglass: `HOURGLASS_DEPTH` halvings, a block on every level and on every skip, nearest upsampling.

    The blocks carry the published flat names `b1_4` ... `b3_1`, level 4 being the full resolution.
    """

    def __init__(self, features: int, pooling: Pooling) -> None:
        super().__init__()
        self.pooling: Pooling = pooling
        for level in range(HOURGLASS_DEPTH, 0, -1):
            self.add_module(f"b1_{level}", HPMBlock(features, features))
            self.add_module(f"b2_{level}", HPMBlock(features, features))
        self.b2_plus_1 = HPMBlock(features, features)
        for level in range(1, HOURGLASS_DEPTH + 1):
            self.add_module(f"b3_{level}", HPMBlock(features, features))

    def forward(self, x: Tensor) -> Tensor:
        return self._descend(x, HOURGLASS_DEPTH)

    def _descend(self, x: Tensor, level: int) -> Tensor:
        skip: Tensor = self.get_submodule(f"b1_{level}")(x)
        low = self.get_submodule(f"b2_{level}")(pool2(x, self.pooling))
        low = self._descend(low, level - 1) if level > 1 else self.b2_plus_1(low)
        low = self.get_submodule(f"b3_{level}")(low)
        return skip + F.interpolate(low, scale_factor=2.0, mode="nearest")


class FAN(nn.Module):
    """Stacked hourglasses that turn a 256x256 crop into one 64x64 heatmap a landmark.

    stacks: hourglasses in a row; features: channels at 64x64 (256 as published); in_channels: 3 for RGB, 3 + 68 with
    guidance; pooling: "avg" for the published Python weights, "max" for the Torch7 ones; stem: channels of the first
    convolution, doubled by the next block; None: a quarter of the features (networks from Torch7 may always have 64).

    Input (N, in_channels, 256, 256) float in [0, 1]; output: a list of (N, 68, 64, 64), one a stack, the last the best.
    """

    def __init__(
        self,
        stacks: int = 4,
        features: int = 256,
        in_channels: int = 3,
        pooling: Pooling = "avg",
        stem: int | None = None,
    ) -> None:
        super().__init__()
        if pooling not in ("avg", "max"):
            raise ValueError(f"pooling is {pooling!r}; expected 'avg' or 'max'")
        if stacks < 1 or features < 16 or features % 16:
            raise ValueError(
                f"stacks={stacks}, features={features}; expected stacks >= 1 and features a multiple of 16"
            )
        self.stacks = stacks
        self.pooling: Pooling = pooling
        stem = features // 4 if stem is None else stem
        if stem < 2 or stem % 2:
            raise ValueError(f"stem={stem}; expected an even number of channels")
        self.conv1 = nn.Conv2d(in_channels, stem, 7, stride=2, padding=3)
        self.bn1 = nn.BatchNorm2d(stem)
        self.conv2 = HPMBlock(stem, 2 * stem)
        self.conv3 = HPMBlock(2 * stem, 2 * stem)
        self.conv4 = HPMBlock(2 * stem, features)
        for stack in range(stacks):
            self.add_module(f"m{stack}", Hourglass(features, pooling))
            self.add_module(f"top_m_{stack}", HPMBlock(features, features))
            self.add_module(f"conv_last{stack}", nn.Conv2d(features, features, 1))
            self.add_module(f"bn_end{stack}", nn.BatchNorm2d(features))
            self.add_module(f"l{stack}", nn.Conv2d(features, POINTS, 1))
            if stack < stacks - 1:
                self.add_module(f"bl{stack}", nn.Conv2d(features, features, 1))
                self.add_module(f"al{stack}", nn.Conv2d(POINTS, features, 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        heatmaps: list[Tensor] = []
        for stack in range(self.stacks):
            hidden = self.get_submodule(f"m{stack}")(x)
            hidden = self.get_submodule(f"top_m_{stack}")(hidden)
            hidden = self.get_submodule(f"conv_last{stack}")(hidden)
            hidden = F.relu(self.get_submodule(f"bn_end{stack}")(hidden))
            heatmap = self.get_submodule(f"l{stack}")(hidden)
            heatmaps.append(heatmap)
            if stack < self.stacks - 1:
                back = self.get_submodule(f"bl{stack}")(hidden)
                x = x + back + self.get_submodule(f"al{stack}")(heatmap)
        return heatmaps

    def stem(self, x: Tensor) -> Tensor:
        """(N, in_channels, 256, 256) -> (N, features, 64, 64), input of the first hourglass."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = pool2(self.conv2(x), self.pooling)
        return self.conv4(self.conv3(x))  # type: ignore[no-any-return]
