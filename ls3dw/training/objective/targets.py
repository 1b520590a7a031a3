"""What the networks shall give, and how far they are from it. Landmarks in crop pixels; NaN: unknown."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ls3dw.core.geometry import CROP_SIZE
from ls3dw.models.networks.heatmaps import CELLS, STRIDE, draw_gaussians

LOSS_UNIT = 100.0
"""The mean over all cells is small; in per cent it is of order one, far above the optimizers' epsilon."""

DEPTH_UNIT = 32.0
"""In training the depth network's last layer gives depth in units of this many crop pixels: numbers of order one."""

DEPTH_KNEE = 0.1
"""Where the depth's loss goes from squared to absolute, in depth units."""


def heatmap_targets(landmarks: Tensor, std: float) -> Tensor:
    """Draw (B, 68, 2) as heatmaps (B, 68, 64, 64): empty where a landmark is unknown or lies outside the crop."""
    inside = ((landmarks >= -0.5) & (landmarks <= CROP_SIZE - 0.5)).all(dim=2, keepdim=True)
    cells = (landmarks + 0.5) / STRIDE - 0.5
    return draw_gaussians(torch.where(inside, cells, torch.nan), std, CELLS)


def heatmap_loss(heatmaps: Sequence[Tensor], targets: Tensor, known: Tensor, weight: float) -> Tensor:
    """Add up the MSE of every stack; a cell counts 1 + weight * target times, an unknown landmark (B, 68) not at all.

    The divisor is the batch's full size, known or not: so the gradients of two halves of a batch have that of the
    whole as their mean.
    """
    weights = (1 + weight * targets) * known[..., None, None]
    losses = [(weights * (heatmap.float() - targets).square()).mean() for heatmap in heatmaps]
    return LOSS_UNIT * torch.stack(losses).sum()


def known_points(landmarks: Tensor) -> Tensor:
    """Say which landmarks (B, 68, D) are known: (B, 68)."""
    return torch.isfinite(landmarks).all(dim=2)


def depth_targets(landmarks: Tensor) -> Tensor:
    """Return z of (B, 68, 3) relative to the mean of the face's points, in depth units; NaN in a face with any NaN."""
    z = landmarks[..., 2]
    return (z - z.mean(dim=1, keepdim=True)) / DEPTH_UNIT


def depth_loss(depths: Tensor, targets: Tensor) -> Tensor:
    """Return the smooth L1 of the known depths over the whole batch's size."""
    known = torch.isfinite(targets)
    errors = F.smooth_l1_loss(depths.float(), targets.nan_to_num(), beta=DEPTH_KNEE, reduction="none")
    return (errors * known).mean()
