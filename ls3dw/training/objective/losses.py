"""Losses on coordinates ("Wing Loss", Feng et al., CVPR 2018), in pixels of the network's own input.

x is the error of one coordinate. As the paper's networks were trained: the sum over the coordinates of a face, the mean
over the batch.
    l2         x^2 / 2
    l1         |x|
    smooth_l1  x^2 / 2 where |x| < 1, else |x| - 1/2
    wing       w ln(1 + |x| / epsilon) where |x| < w, else |x| - c, with c = w - w ln(1 + w / epsilon)
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ls3dw.models.networks.straight import mean_on, move, straighten
from ls3dw.models.networks.wing import CoordinateNet
from ls3dw.training.network_options import NetworkOptions


def wing(errors: Tensor, w: float, epsilon: float) -> Tensor:
    """Weigh errors of any shape: small and medium ones count more than their size, large ones as L1."""
    size = errors.abs()
    offset = w - w * math.log1p(w / epsilon)
    return torch.where(size < w, w * torch.log1p(size / epsilon), size - offset)


def penalties(errors: Tensor, options: NetworkOptions) -> Tensor:
    """Weigh each error by the loss that a network is trained with."""
    if options.loss == "l1":
        return errors.abs()
    if options.loss == "l2":
        return errors.square() / 2
    if options.loss == "smooth_l1":
        return F.smooth_l1_loss(errors, torch.zeros_like(errors), reduction="none")
    return wing(errors, options.w, options.epsilon)


def point_loss(errors: Tensor, known: Tensor, options: NetworkOptions) -> Tensor:
    """Add up the penalties of errors (B, 68, 2); an unknown landmark (B, 68) adds nothing."""
    # Taken out before the penalty: the gradient of a NaN is NaN even where it is multiplied by zero.
    return penalties(torch.where(known[..., None], errors, 0.0), options).sum() / len(errors)


def coordinate_loss(
    network: CoordinateNet, images: Tensor, truth: Tensor, guide: Tensor | None, options: NetworkOptions
) -> Tensor:
    """Run a network and compare it with the true points (B, 68, 2), crop pixels, NaN where unknown.

    guide: (B, 68, 2), the points that straighten the crop for stage two; a face without all of them teaches nothing.
    """
    known = torch.isfinite(truth).all(dim=2)
    affines = None
    if guide is not None:
        whole, guide = whole_faces(guide)
        known = known & whole[:, None]
        affines = straighten(guide)
    points, frame = network.look(images, affines)
    return point_loss(points - move(truth, frame), known, options)


def whole_faces(points: Tensor) -> tuple[Tensor, Tensor]:
    """Say which faces (B, 68, 2) have all their points (B,), and put the mean shape in the place of the others."""
    whole = torch.isfinite(points).all(dim=2).all(dim=1)
    return whole, torch.where(whole[:, None, None], points, mean_on(points.device))
