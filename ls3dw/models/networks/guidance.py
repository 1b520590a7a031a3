"""Guides a network by points: one Gaussian a point, drawn as channels after RGB, or added to the result of the first
convolution, where each touches only a few cells."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ls3dw.models.networks.heatmaps import STAMP_REACH, gaussian_profiles, stamp_profiles

REACH = 5.5
"""Standard deviations beyond which a Gaussian of height 1 is below 3e-7, 0 in float32 sums."""

STAMP_SHIFT = 2
"""Largest distance in pixels of a stamp from its point, besides rounding."""

EVEN = 8
"""GPUs are fastest with a multiple of so many channels."""


@dataclass(frozen=True)
class Guide:
    """Guidance for N faces.

    points: (N, P, 2) crop pixels; profiles: (N, P, 2, 256), horizontal and vertical, whose product is a channel; reach:
    distance in pixels from the points beyond which the profiles are negligible.
    """

    points: Tensor
    profiles: Tensor
    reach: float

    def __getitem__(self, part: slice) -> Guide:
        return Guide(self.points[part], self.profiles[part], self.reach)


def gaussian_guide(points: Tensor, std: float) -> Guide:
    """Guide by Gaussians at sub-pixel positions; NaN gives an empty channel."""
    return Guide(points, gaussian_profiles(points, std), REACH * std)


def stamp_guide(points: Tensor, std: float) -> Guide:
    """Guide as the published code guides its depth network."""
    return Guide(points, stamp_profiles(points, std), STAMP_REACH + STAMP_SHIFT)


def even(channels: int) -> int:
    """Round a network's input channels up to a number that GPUs are fast with."""
    return 4 if channels < EVEN else -(-channels // EVEN) * EVEN


def draw(images: Tensor, guide: Guide | None, dtype: torch.dtype, channels: int) -> Tensor:
    """Make a network's input: RGB (N, 3, 256, 256), the guide's channels, and zeros up to `channels`.

    Each is written once, in the layout of convolutions: 72 channels of 256x256 are a guided network's largest tensor.
    """
    shape = (len(images), channels, *images.shape[2:])
    whole = torch.empty(shape, dtype=dtype, device=images.device, memory_format=torch.channels_last)
    rgb = images.shape[1]
    whole[:, :rgb] = images
    if guide is not None:
        used = rgb + guide.profiles.shape[1]
        across, down = guide.profiles.to(dtype).unbind(dim=2)
        torch.mul(down[..., :, None], across[..., None, :], out=whole[:, rgb:used])
        rgb = used
    whole[:, rgb:] = 0
    return whole


def respond(maps: Tensor, weight: Tensor, guide: Guide, stride: int, padding: int) -> None:
    """Add a convolution of a guide's channels to `maps` (N, C, H, W), channels last, float32; exact within the reach.

    weight: (C, P, k, k), of the guide's channels. A channel is separable, so a cell's response is a sum over the
    kernel's rows and columns of products of both profiles, computed only for cells near the point.
    """
    count, out, height, width = maps.shape
    points, kernel = weight.shape[1], weight.shape[3]
    cells = math.floor((2 * guide.reach + kernel - 1) / stride) + 1
    first = ((guide.points - guide.reach + padding - kernel + 1) / stride).ceil().nan_to_num(nan=0.0)
    first = first.clamp(0, min(height, width) - cells).long()
    place = first[..., None] + torch.arange(cells, device=first.device)
    # (N, P, 2, cells, k): profile values under the kernel's columns, or rows, at each cell.
    seen = F.pad(guide.profiles, (padding, padding)).unfold(3, kernel, stride)
    seen = seen.gather(3, place[..., None].expand(*place.shape, kernel))
    across, down = seen.unbind(dim=2)
    columns = across.transpose(0, 1).reshape(points, count * cells, kernel)
    half = torch.bmm(columns, weight.permute(1, 3, 2, 0).reshape(points, kernel, kernel * out))
    half = half.view(points, count, cells, kernel, out).permute(0, 1, 3, 2, 4)
    rows = down.transpose(0, 1).reshape(points * count, cells, kernel)
    patches = torch.bmm(rows, half.reshape(points * count, kernel, cells * out))
    index = (place[:, :, 1, :, None] * width + place[:, :, 0, None, :]).transpose(0, 1)
    index = index + torch.arange(count, device=index.device)[:, None, None] * (height * width)
    flat = maps.permute(0, 2, 3, 1).view(-1, out)
    flat.index_add_(0, index.flatten(), patches.view(-1, out))
