"""Between points and heatmaps, for whole batches at once. Points are in pixels of the 256x256 crop."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ls3dw.geometry import CROP_SIZE
from ls3dw.markup import MIRROR

CELLS = 64
STRIDE = CROP_SIZE / CELLS
CENTROID_RADIUS = 2


def draw_gaussians(points: Tensor, std: float, size: int = CROP_SIZE) -> Tensor:
    """Draw one Gaussian of height 1 a point at its sub-pixel place: (N, P, 2) -> (N, P, size, size).

    A point that is NaN gives an empty channel.
    """
    grid = torch.arange(size, dtype=points.dtype, device=points.device)
    profile = torch.exp((grid - points[..., None]).square() * (-0.5 / std**2)).nan_to_num(nan=0.0)
    return profile[:, :, 1, :, None] * profile[:, :, 0, None, :]


def mirror_heatmaps(heatmaps: Tensor) -> Tensor:
    """Turn the heatmaps (N, 68, H, W) of a mirrored picture into those of the picture: columns and sides swapped."""
    partners = torch.tensor(MIRROR, device=heatmaps.device)
    return heatmaps.flip(-1)[:, partners]


def cells_to_crop(cells: Tensor) -> Tensor:
    """Turn coordinates in heatmap cells (centres at integers) into crop pixels (centres at integers)."""
    return (cells + 0.5) * STRIDE - 0.5


def peaks(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """Find the highest cell of each heatmap (N, P, H, W): its (x, y) (N, P, 2) int64 and its value (N, P)."""
    values, index = heatmaps.flatten(2).max(dim=2)
    width = heatmaps.shape[3]
    return torch.stack((index % width, index // width), dim=-1), values


def decode_centroid(heatmaps: Tensor, radius: int = CENTROID_RADIUS) -> tuple[Tensor, Tensor]:
    """Decode at sub-pixel precision: the centroid of the window around the highest cell.

    (N, P, 64, 64) -> points (N, P, 2) in crop pixels and the peak values (N, P). Negative cells count as zero. The
    window moves with the peak past the heatmap's edge, where cells are zero. benchmarks/decoding.py holds this
    estimator against others.
    """
    peak, values = peaks(heatmaps)
    window = _windows(heatmaps.clamp(min=0), peak, radius)
    offset = torch.arange(-radius, radius + 1, dtype=heatmaps.dtype, device=heatmaps.device)
    mass = window.sum(dim=(2, 3)).clamp(min=torch.finfo(heatmaps.dtype).tiny)
    shift_x = (window.sum(dim=2) * offset).sum(dim=2) / mass
    shift_y = (window.sum(dim=3) * offset).sum(dim=2) / mass
    return cells_to_crop(peak + torch.stack((shift_x, shift_y), dim=-1)), values


def _windows(heatmaps: Tensor, peak: Tensor, radius: int) -> Tensor:
    """Cut the (2r+1) x (2r+1) cells around each peak: (N, P, 2r+1, 2r+1), zero outside the heatmap."""
    padded = F.pad(heatmaps, (radius,) * 4)
    steps = torch.arange(2 * radius + 1, device=heatmaps.device)
    rows = peak[..., 1, None] + steps
    columns = peak[..., 0, None] + steps
    index = rows[..., :, None] * padded.shape[3] + columns[..., None, :]
    return padded.flatten(2).gather(2, index.flatten(2)).view(index.shape)


def decode_quarter(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """Decode by the published rule: the highest cell, moved a quarter cell toward the higher neighbour on each axis.

    (N, P, 64, 64) -> points (N, P, 2) in heatmap cells, in the published code's own coordinates (cell k covers
    [k, k+1), so its centre is k + 0.5), and the peak values (N, P). On the border nothing is moved.
    """
    peak, values = peaks(heatmaps)
    window = _windows(heatmaps, peak, radius=1)
    slope = torch.stack((window[:, :, 1, 2] - window[:, :, 1, 0], window[:, :, 2, 1] - window[:, :, 0, 1]), dim=-1)
    limit = torch.tensor((heatmaps.shape[3] - 1, heatmaps.shape[2] - 1), device=peak.device)
    inside = ((peak > 0) & (peak < limit)).all(dim=-1, keepdim=True)
    return peak + torch.where(inside, 0.25 * slope.sign(), 0.0) + 0.5, values
