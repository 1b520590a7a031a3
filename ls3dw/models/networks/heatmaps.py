"""Converts between points and heatmaps, in batches. Points are in pixels of the 256x256 crop."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from ls3dw.core.geometry import CROP_SIZE
from ls3dw.core.markup import MIRROR

CELLS = 64
STRIDE = CROP_SIZE / CELLS
SMOOTHING_STD = 1.2
SMOOTHING_RADIUS = 4
LEAST = 1e-6

STAMP_REACH = 6
"""The published depth network's Gaussians end six pixels from their centre, three times their nominal std of 2."""

PUBLISHED_STD = 3.25
"""Their true std in pixels: a quarter of the 13 pixels of their stamp."""


def gaussian_profiles(points: Tensor, std: float, size: int = CROP_SIZE) -> Tensor:
    """Sample one Gaussian of height 1 a coordinate: (N, P, 2) -> (N, P, 2, size). NaN gives zeros."""
    grid = torch.arange(size, dtype=points.dtype, device=points.device)
    return torch.exp((grid - points[..., None]).square() * (-0.5 / std**2)).nan_to_num(nan=0.0)


def stamp_profiles(points: Tensor, std: float, size: int = CROP_SIZE) -> Tensor:
    """Sample Gaussians as the published code draws them for its depth network: (N, P, 2) -> (N, P, 2, size).

    Centres are whole pixels, half a pixel above and left of a point in the middle of a cell; outside the 13x13 pixels
    around them all is 0. Near the left and upper border the published code starts its stamp too late, which moves the
    Gaussian inward by up to two pixels; the network was trained so.
    """
    # The published code counts pixels from 1: its pixel k covers [k - 1, k).
    at = (points + 0.5).floor()
    late = torch.where(at < STAMP_REACH, 2, torch.where(at == STAMP_REACH, 1, 0))
    grid = torch.arange(1, size + 1, dtype=points.dtype, device=points.device)
    profile = torch.exp((grid - (at + late)[..., None]).square() * (-0.5 / std**2))
    return profile * ((grid - at[..., None]).abs() <= STAMP_REACH)


def from_profiles(profiles: Tensor) -> Tensor:
    """Multiply horizontal (first) and vertical profiles: (N, P, 2, size) -> (N, P, size, size)."""
    return profiles[:, :, 1, :, None] * profiles[:, :, 0, None, :]


def draw_gaussians(points: Tensor, std: float, size: int = CROP_SIZE) -> Tensor:
    """Draw one Gaussian of height 1 a point: (N, P, 2) -> (N, P, size, size). NaN gives zeros."""
    return from_profiles(gaussian_profiles(points, std, size))


def stamp_gaussians(points: Tensor, std: float, size: int = CROP_SIZE) -> Tensor:
    """Draw the Gaussians of `stamp_profiles`: (N, P, 2) crop pixels -> (N, P, size, size)."""
    return from_profiles(stamp_profiles(points, std, size))


def mirror_heatmaps(heatmaps: Tensor) -> Tensor:
    """Turn heatmaps (N, 68, H, W) of a mirrored picture into those of the picture: swap columns and sides."""
    return heatmaps.flip(-1)[:, mirror_on(heatmaps.device)]


def with_mirrored(run: Callable[[Tensor], Tensor], crops: Tensor) -> Tensor:
    """Average the heatmaps of crops (N, 3, 256, 256) by `run` with those of the mirrored crops."""
    both = run(torch.cat((crops, crops.flip(-1))))
    return (both[: len(crops)] + mirror_heatmaps(both[len(crops) :])) * 0.5


@cache
def mirror_on(device: torch.device) -> Tensor:
    """Return the indices of the mirrored points, kept on the device: copying them would wait for all running work."""
    return torch.tensor(MIRROR, device=device)


def cells_to_crop(cells: Tensor) -> Tensor:
    """Turn coordinates in heatmap cells (centres at integers) into crop pixels (centres at integers)."""
    return (cells + 0.5) * STRIDE - 0.5


def peaks(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """Find the highest cell of each heatmap (N, P, H, W): its (x, y) (N, P, 2) int64 and its value (N, P)."""
    values, index = heatmaps.flatten(2).max(dim=2)
    width = heatmaps.shape[3]
    return torch.stack((index % width, index // width), dim=-1), values


def decode_subpixel(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """Decode at sub-pixel precision: one Newton step on the logarithm of the smoothed heatmap around its highest cell.

    (N, P, 64, 64) -> points (N, P, 2) in crop pixels and the peak values (N, P). For a Gaussian the logarithm is a
    parabola and the step is exact (Zhang et al., "Distribution-aware coordinate representation", CVPR 2020). Without a
    maximum in the smoothed heatmap the highest cell's centre is kept.
    """
    peak, values = peaks(heatmaps)
    logs = _smooth(windows(heatmaps, peak, SMOOTHING_RADIUS + 1).clamp(min=0)).clamp(min=LEAST).log()
    across, down = (logs[..., 1, 2] - logs[..., 1, 0]) / 2, (logs[..., 2, 1] - logs[..., 0, 1]) / 2
    xx = logs[..., 1, 2] - 2 * logs[..., 1, 1] + logs[..., 1, 0]
    yy = logs[..., 2, 1] - 2 * logs[..., 1, 1] + logs[..., 0, 1]
    xy = (logs[..., 2, 2] - logs[..., 2, 0] - logs[..., 0, 2] + logs[..., 0, 0]) / 4
    determinant = xx * yy - xy * xy
    maximum = (xx < 0) & (determinant > LEAST)
    step = torch.stack((xy * down - yy * across, xy * across - xx * down), dim=-1)
    step = torch.where(maximum[..., None], step / determinant.clamp(min=LEAST)[..., None], 0.0)
    return cells_to_crop(peak + step.clamp(-1, 1)), values


def _smooth(window: Tensor) -> Tensor:
    """Smooth windows (N, P, k, k) by a Gaussian, without padding: (N, P, 3, 3)."""
    offset = torch.arange(-SMOOTHING_RADIUS, SMOOTHING_RADIUS + 1, dtype=window.dtype, device=window.device)
    kernel = torch.exp(-0.5 * (offset / SMOOTHING_STD).square())
    kernel = kernel / kernel.sum()
    rows = window.unfold(3, len(kernel), 1) @ kernel
    return rows.unfold(2, len(kernel), 1) @ kernel


def windows(heatmaps: Tensor, peak: Tensor, radius: int) -> Tensor:
    """Cut the (2r+1) x (2r+1) cells around each peak: (N, P, 2r+1, 2r+1), zero outside the heatmap."""
    height, width = heatmaps.shape[2:]
    steps = torch.arange(-radius, radius + 1, device=heatmaps.device)
    rows, columns = peak[..., 1, None] + steps, peak[..., 0, None] + steps
    # Padding the heatmaps would copy them.
    inside = ((rows >= 0) & (rows < height))[..., :, None] & ((columns >= 0) & (columns < width))[..., None, :]
    index = rows.clamp(0, height - 1)[..., :, None] * width + columns.clamp(0, width - 1)[..., None, :]
    return heatmaps.flatten(2).gather(2, index.flatten(2)).view(index.shape).masked_fill(~inside, 0.0)


def decode_quarter(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """Decode by the published rule: the highest cell, moved a quarter cell toward the higher neighbour on each axis.

    (N, P, 64, 64) -> points (N, P, 2) in heatmap cells, in the published code's own coordinates (cell k covers
    [k, k+1), so its centre is k + 0.5), and the peak values (N, P). On the border nothing is moved.
    """
    peak, values = peaks(heatmaps)
    window = windows(heatmaps, peak, radius=1)
    slope = torch.stack((window[:, :, 1, 2] - window[:, :, 1, 0], window[:, :, 2, 1] - window[:, :, 0, 1]), dim=-1)
    limit = torch.tensor((heatmaps.shape[3] - 1, heatmaps.shape[2] - 1), device=peak.device)
    inside = ((peak > 0) & (peak < limit)).all(dim=-1, keepdim=True)
    return peak + torch.where(inside, 0.25 * slope.sign(), 0.0) + 0.5, values
