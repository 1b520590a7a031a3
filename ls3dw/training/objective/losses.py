"""Targets and losses. Landmarks are in crop pixels, NaN where unknown.

Losses on coordinates are those of "Wing Loss" (Feng et al., CVPR 2018), in pixels of the network's own input: the sum
over the coordinates x of a face, the mean over the batch.
    l2         x^2 / 2
    l1         |x|
    smooth_l1  x^2 / 2 where |x| < 1, else |x| - 1/2
    wing       w ln(1 + |x| / epsilon) where |x| < w, else |x| - c, with c = w - w ln(1 + w / epsilon)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ls3dw.core.geometry import CROP_SIZE
from ls3dw.models.networks.heatmaps import CELLS, STRIDE, draw_gaussians
from ls3dw.models.networks.straight import mean_on, move, straighten
from ls3dw.models.networks.wing import CoordinateNet
from ls3dw.training.network_options import NetworkOptions

LOSS_UNIT = 100.0
"""Scales the mean over all cells, which is small, to order one, far above the optimizers' epsilon."""

DEPTH_UNIT = 32.0
"""Crop pixels in the unit of depth during training, which makes the depth network's outputs of order one."""

DEPTH_KNEE = 0.1
"""Where the depth loss turns from squared to absolute, in depth units."""


def heatmap_targets(landmarks: Tensor, std: float) -> Tensor:
    """Draw (B, 68, 2) as heatmaps (B, 68, 64, 64), empty for landmarks that are unknown or outside the crop."""
    inside = ((landmarks >= -0.5) & (landmarks <= CROP_SIZE - 0.5)).all(dim=2, keepdim=True)
    cells = (landmarks + 0.5) / STRIDE - 0.5
    return draw_gaussians(torch.where(inside, cells, torch.nan), std, CELLS)


def heatmap_loss(heatmaps: Sequence[Tensor], targets: Tensor, known: Tensor, weight: float) -> Tensor:
    """Sum the MSE of all stacks; a cell counts 1 + weight * target times, an unknown landmark (B, 68) not at all.

    The divisor counts all landmarks, known or not, so that gradients of two halves of a batch average to those of the
    whole.
    """
    weights = (1 + weight * targets) * known[..., None, None]
    losses = [(weights * (heatmap.float() - targets).square()).mean() for heatmap in heatmaps]
    return LOSS_UNIT * torch.stack(losses).sum()


def known_points(landmarks: Tensor) -> Tensor:
    """Return which landmarks (B, 68, D) are known: (B, 68)."""
    return torch.isfinite(landmarks).all(dim=2)


def depth_targets(landmarks: Tensor) -> Tensor:
    """Return z of (B, 68, 3) relative to the face's mean, in depth units; all NaN for a face with any NaN."""
    z = landmarks[..., 2]
    return (z - z.mean(dim=1, keepdim=True)) / DEPTH_UNIT


def depth_loss(depths: Tensor, targets: Tensor) -> Tensor:
    """Return the smooth L1 loss of known depths; the divisor counts all."""
    known = torch.isfinite(targets)
    errors = F.smooth_l1_loss(depths.float(), targets.nan_to_num(), beta=DEPTH_KNEE, reduction="none")
    return (errors * known).mean()


def wing(errors: Tensor, w: float, epsilon: float) -> Tensor:
    """Return the wing loss of errors of any shape: logarithmic up to `w`, linear beyond."""
    size = errors.abs()
    offset = w - w * math.log1p(w / epsilon)
    return torch.where(size < w, w * torch.log1p(size / epsilon), size - offset)


def penalties(errors: Tensor, options: NetworkOptions) -> Tensor:
    """Return the network's own loss of each error."""
    if options.loss == "l1":
        return errors.abs()
    if options.loss == "l2":
        return errors.square() / 2
    if options.loss == "smooth_l1":
        return F.smooth_l1_loss(errors, torch.zeros_like(errors), reduction="none")
    return wing(errors, options.w, options.epsilon)


def point_loss(errors: Tensor, known: Tensor, options: NetworkOptions) -> Tensor:
    """Sum the penalties of errors (B, 68, 2) of known landmarks (B, 68), per face of the batch."""
    # Masked before the penalty: the gradient of a NaN is NaN even when multiplied by zero.
    return penalties(torch.where(known[..., None], errors, 0.0), options).sum() / len(errors)


def coordinate_loss(
    network: CoordinateNet, images: Tensor, truth: Tensor, guide: Tensor | None, options: NetworkOptions
) -> Tensor:
    """Run a network and compare it with the true points (B, 68, 2).

    guide: (B, 68, 2), points that straighten the crop for stage two; faces with unknown ones are left out.
    """
    known = known_points(truth)
    affines = None
    if guide is not None:
        complete, guide = complete_faces(guide)
        known = known & complete[:, None]
        affines = straighten(guide)
    points, frame = network.look(images, affines)
    return point_loss(points - move(truth, frame), known, options)


def complete_faces(points: Tensor) -> tuple[Tensor, Tensor]:
    """Return which faces (B, 68, 2) have all points (B,), and the points with the mean shape for all other faces."""
    complete = known_points(points).all(dim=1)
    return complete, torch.where(complete[:, None, None], points, mean_on(points.device))
