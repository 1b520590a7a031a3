"""Errors of the points that networks are given: guidance of 2D-to-3D and depth networks, and a cascade's first stage.

A 2D-FAN errs in four ways, each drawn by itself, in pixels of the 256x256 crop (a face is about 135 px wide):
spread  each point by itself; faces differ much in how much (a squared uniform share of `spread` px);
shift   all points of a face together (normal, `shift` px);
jaw     contour points with their neighbours, since nothing in the picture holds them in place (noise of `jaw` px
        smoothed over 7 points, times a uniform share);
gross   on a share `gross` of the faces, a whole part of the face (normal, `gross_size` px).

These errors do not depend on the picture, while a 2D network errs where the picture is hard. Hence a share of the faces
can be guided by the predictions of a trained 2D network (`guidance.model`).
"""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ls3dw.core.markup import GROUPS, POINTS
from ls3dw.synth.rng import Rng
from ls3dw.training.network_options import FirstStageOptions, GuidanceOptions

JAW = len(GROUPS["jaw"])
JAW_REACH = 3
"""Contour points to either side that err together."""


def guidance_noise(count: int, options: GuidanceOptions, rng: Rng) -> Tensor:
    """Draw the errors of `count` faces: (count, 68, 2) crop pixels."""
    spread = rng.normal(count, POINTS, 2) * (options.spread * rng.uniform(count, 1, 1).square())
    shift = rng.normal(count, 1, 2) * options.shift
    rough = F.pad(rng.normal(count, 2, JAW), (JAW_REACH, JAW_REACH), mode="replicate")
    smooth = F.avg_pool1d(rough, 2 * JAW_REACH + 1, stride=1).transpose(1, 2)
    jaw = F.pad(smooth * (options.jaw * rng.uniform(count, 1, 1)), (0, 0, 0, POINTS - JAW))
    members = _group_members(rng.device)
    group = members[rng.integers(len(members), count)]
    hit = rng.chance(options.gross, count)[:, None]
    gross = (group & hit)[..., None] * (rng.normal(count, 1, 2) * options.gross_size)
    return spread + shift + jaw + gross


@cache
def _group_members(device: torch.device) -> Tensor:
    """Return the points of each landmark group as a mask (groups, 68), cached on the device."""
    table = torch.zeros(len(GROUPS), POINTS, dtype=torch.bool)
    for row, members in enumerate(GROUPS.values()):
        table[row, list(members)] = True
    return table.to(device)


def disturb(points: Tensor, options: FirstStageOptions, rng: Rng) -> Tensor:
    """Turn, zoom and shift the points (B, 68, 2) of each face about the middle of their box; NaN stays NaN.

    Stage two of a cascade only takes the face's turn, size and place from stage one, so only those err, each with its
    own normal distribution.
    """
    count = len(points)
    low, high = points.amin(dim=1, keepdim=True), points.amax(dim=1, keepdim=True)
    centre = (low + high) / 2
    side = (high - low).mean(dim=2, keepdim=True)
    angle = math.radians(options.rotation) * rng.normal(count, 1)
    zoom = torch.exp(options.zoom * rng.normal(count, 1))
    x, y = (points - centre).unbind(dim=2)
    cos, sin = zoom * torch.cos(angle), zoom * torch.sin(angle)
    turned = torch.stack((cos * x - sin * y, sin * x + cos * y), dim=2)
    return centre + turned + options.shift * side * rng.normal(count, 1, 2)
