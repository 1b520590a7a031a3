"""Makes true 2D points as wrong as 2D predictions are, so that the guided networks learn to forgive.

What a 2D-FAN gets wrong is of four kinds, and each is drawn for itself:
spread  every point a little on its own; faces differ much in how much (a squared uniform share of `spread` px);
shift   all points of a face together (normal, `shift` px);
jaw     contour points along with their neighbours, since nothing in the picture holds them in place (noise of `jaw` px
        smoothed over 7 points, times a uniform share);
gross   now and then (`gross` of the faces) a whole part of the face in the wrong place (normal, `gross_size` px).
All in pixels of the 256x256 crop, where a face is about 135 px wide.

Errors drawn so know nothing of the picture, while a 2D network errs where the picture is hard, and in neighbouring
points alike. Hence a share of the faces can be guided by what a trained 2D network predicts (`guidance.model`).
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ls3dw.core.markup import GROUPS, POINTS
from ls3dw.training.data.seeds import Dice
from ls3dw.training.options import GuidanceOptions

JAW = len(GROUPS["jaw"])
JAW_REACH = 3
"""Contour points to either side that err together."""


def guidance_noise(count: int, options: GuidanceOptions, dice: Dice) -> Tensor:
    """Draw the errors of `count` faces: (count, 68, 2) crop pixels."""
    spread = dice.normal(count, POINTS, 2) * (options.spread * dice.uniform(count, 1, 1).square())
    shift = dice.normal(count, 1, 2) * options.shift
    return spread + shift + _jaw(count, options, dice) + _gross(count, options, dice)


def _jaw(count: int, options: GuidanceOptions, dice: Dice) -> Tensor:
    rough = F.pad(dice.normal(count, 2, JAW), (JAW_REACH, JAW_REACH), mode="replicate")
    smooth = F.avg_pool1d(rough, 2 * JAW_REACH + 1, stride=1).transpose(1, 2)
    errors = smooth * (options.jaw * dice.uniform(count, 1, 1))
    return F.pad(errors, (0, 0, 0, POINTS - JAW))


def _gross(count: int, options: GuidanceOptions, dice: Dice) -> Tensor:
    members = _members(dice.device)
    part = members[dice.integers(len(members), count)]
    hit = dice.chance(options.gross, count)[:, None]
    return (part & hit)[..., None] * (dice.normal(count, 1, 2) * options.gross_size)


@cache
def _members(device: torch.device) -> Tensor:
    """Say for each part of the face which points are in it: (parts, 68), on the device once and for all."""
    table = torch.zeros(len(GROUPS), POINTS, dtype=torch.bool)
    for row, members in enumerate(GROUPS.values()):
        table[row, list(members)] = True
    return table.to(device)
