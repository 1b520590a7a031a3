"""The depth network of "How far are we" (ICCV 2017), section 6.2: z of the 68 landmarks from a crop and its points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ls3dw.core.markup import POINTS

EXPANSION = 4


class Bottleneck(nn.Module):
    """Residual block 1x1, 3x3, 1x1 that widens `planes` four times. (N, C, H, W) -> (N, 4 planes, H/s, W/s)."""

    def __init__(self, in_channels: int, planes: int, stride: int) -> None:
        super().__init__()
        out_channels = planes * EXPANSION
        self.conv1 = nn.Conv2d(in_channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = (
            nn.Identity()
            if stride == 1 and in_channels == out_channels
            else nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + self.downsample(x))


def residual_stages(layers: Sequence[int], width: int) -> Iterator[nn.Sequential]:
    """Make the stages of a residual network: each but the first halves the size and doubles the channels."""
    channels = width
    for stage, blocks in enumerate(layers):
        planes = width * 2**stage
        first = Bottleneck(channels, planes, stride=1 if stage == 0 else 2)
        channels = planes * EXPANSION
        yield nn.Sequential(first, *(Bottleneck(channels, planes, stride=1) for _ in range(blocks - 1)))


class DepthNet(nn.Module):
    """Residual network from RGB and 68 Gaussians to 68 depths, with the keys of a torchvision ResNet.

    layers: bottlenecks in each of the four stages, (3, 8, 36, 3) as published; width: planes of the first stage, 64 as
    published. Input (N, 71, 256, 256) float; output (N, 68): depth in crop pixels, so that
    z in image pixels = output * 200 * scale / 256.
    """

    def __init__(self, layers: Sequence[int] = (3, 8, 36, 3), width: int = 64) -> None:
        super().__init__()
        if len(layers) != 4 or min(layers) < 1 or width < 1:
            raise ValueError(f"layers={layers}, width={width}; expected four stages of at least one block")
        self.conv1 = nn.Conv2d(3 + POINTS, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        for number, stage in enumerate(residual_stages(layers, width), 1):
            self.add_module(f"layer{number}", stage)
        self.fc = nn.Linear(8 * width * EXPANSION, POINTS)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        # The last maps are 8x8; the published network averages their first 7x7 cells.
        x = F.avg_pool2d(x, 7)
        return self.fc(torch.flatten(x, 1))  # type: ignore[no-any-return]
