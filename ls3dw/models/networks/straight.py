"""Straightens faces on the device: from landmarks to an upright crop with the published box around them.

Affines (N, 2, 3) here only rotate, scale and shift. Products are computed elementwise in float32: autocast would round
matrix products to 8 bits.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ls3dw.core.geometry import CROP_SIZE, RAISE, REFERENCE_SCALE, REFERENCE_SIDE, apply, crop_affine, tight_box
from ls3dw.core.pose import mean_head
from ls3dw.core.sample import Floats

MIDDLE: Final = (CROP_SIZE - 1) / 2
LEAST: Final = 1e-3
"""Smallest box in crop pixels: points that coincide have none, and count as upright."""


def move(points: Tensor, affines: Tensor) -> Tensor:
    """Map points (N, P, 2) by affines (N or 1, 2, 3)."""
    return _product(affines[..., :2], points) + affines[:, None, :, 2]


def move_back(points: Tensor, affines: Tensor) -> Tensor:
    """Map points (N, P, 2) by the inverses of affines (N or 1, 2, 3)."""
    return move(points, undo(affines))


def undo(affines: Tensor) -> Tensor:
    """Return the inverses of affines (N, 2, 3)."""
    linear = affines[..., :2]
    # Turned and zoomed only, so the inverse is the transpose over the squared zoom.
    back = linear.transpose(1, 2) / linear[:, 0].square().sum(dim=1)[:, None, None]
    return torch.cat((back, -_product(back, affines[:, None, :, 2]).transpose(1, 2)), dim=2)


def compose(second: Tensor, first: Tensor) -> Tensor:
    """Return the affines that apply `first`, then `second`."""
    linear = _product(second[..., :2], first[..., :2].transpose(1, 2)).transpose(1, 2)
    return torch.cat((linear, move(first[:, None, :, 2], second).transpose(1, 2)), dim=2)


def _product(linear: Tensor, points: Tensor) -> Tensor:
    """Multiply vectors (N, P, 2) by matrices (N or 1, 2, 2)."""
    return (linear[:, None] * points[:, :, None]).sum(dim=3)


def straighten(points: Tensor) -> Tensor:
    """Return affines (N, 2, 3), crop -> straight crop, for landmarks (N, 68, 2) in crop pixels.

    The straight crop is the published one around the tight box of the upright points, again 256x256. A face is upright
    if the projection of its head's vertical axis is: the second column of the best linear map from the mean 3D head to
    the points. This is a fixed weighted sum of the points, so single errors hardly change it, and it holds at any yaw:
    a similarity fitted to a frontal shape leans as the head turns, and the line between the eyes is lost in profile.
    """
    up = (_up_weights(points.device)[:, None] * points).sum(dim=1)
    up = F.normalize(up - torch.stack((torch.zeros_like(up[:, 0]), torch.full_like(up[:, 1], LEAST)), dim=1), dim=1)
    # y runs down: (0, -1) is upright.
    turn = torch.stack((-up[:, 1], up[:, 0], -up[:, 0], -up[:, 1]), dim=1).view(-1, 2, 2)
    turned = _product(turn, points)
    low, high = turned.amin(dim=1), turned.amax(dim=1)
    size = (high - low).clamp(min=LEAST)
    raised = torch.stack((torch.zeros_like(size[:, 1]), RAISE * size[:, 1]), dim=1)
    zoom = CROP_SIZE / (size.sum(dim=1) * (REFERENCE_SIDE / REFERENCE_SCALE))
    shift = MIDDLE - zoom[:, None] * ((low + high) / 2 - raised)
    return torch.cat((zoom[:, None, None] * turn, shift[..., None]), dim=2)


def cut(images: Tensor, affines: Tensor, size: int, finer: int) -> Tensor:
    """Resample pictures (N, 3, H, W) by affines (N, 2, 3), picture -> output: (N, 3, size, size) float32.

    Bilinear at `finer` times the resolution, then averaged: free of aliasing where an output pixel covers up to `finer`
    pixels of the picture on a side. Outside the picture is black.
    """
    height, width = images.shape[2:]
    x, y = undo(affines).unbind(dim=1)
    # In the units of grid_sample: a picture reaches from -1 to 1.
    back = torch.stack((x * (2 / width), y * (2 / height)), dim=1)
    middle = torch.stack((back[:, 0, 2] + (1 / width - 1), back[:, 1, 2] + (1 / height - 1)), dim=1)
    # Samples within an output pixel come before output pixels, so that whole planes are averaged.
    within = (torch.arange(finer, dtype=torch.float32, device=images.device) + 0.5) / finer - 0.5
    steps = (within[:, None] + torch.arange(size, dtype=torch.float32, device=images.device)).view(-1, 1)
    # A position is the sum of its column's and its row's parts.
    columns = (steps * back[:, None, :, 0]).view(-1, 1, finer, 1, size, 2)
    rows = (steps * back[:, None, :, 1] + middle[:, None]).view(-1, finer, 1, size, 1, 2)
    grid = (columns + rows).view(-1, finer * finer * size, size, 2)
    # float32 even for networks in float16, which is too coarse for positions.
    fine = F.grid_sample(images.float(), grid, align_corners=False)
    return fine.view(len(fine), -1, finer * finer, size, size).mean(dim=2)


def mean_shape() -> Floats:
    """Return the mean head, seen from the front, in the published crop of its own box: (68, 2) crop pixels."""
    points = (mean_head()[:, :2] * np.array((1.0, -1.0))).astype(np.float32)
    return np.asarray(apply(crop_affine(tight_box(points)), points), dtype=np.float32)


# Constants on the device: copying them anew would wait for all running work. Made in inference mode, they could not be
# used in training.


@cache
@torch.inference_mode(False)
def mean_on(device: torch.device) -> Tensor:
    """Return `mean_shape` as a tensor (68, 2)."""
    return torch.from_numpy(mean_shape()).to(device)


@cache
@torch.inference_mode(False)
def _up_weights(device: torch.device) -> Tensor:
    """Return the weights (68,) of the points for the head's vertical axis."""
    return torch.from_numpy(np.linalg.pinv(mean_head())[1].astype(np.float32)).to(device)
