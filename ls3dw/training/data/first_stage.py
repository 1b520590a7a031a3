"""Makes true points as wrong as stage one of a cascade leaves them, so that stage two learns to mend its crops.

Of what stage one gives, stage two sees the turn, the size and the place of the face alone. So those err, each with a
normal distribution of its own: the points of a face are turned, zoomed and shifted together.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ls3dw.training.data.seeds import Dice
from ls3dw.training.options import FirstStageOptions


def disturb(points: Tensor, options: FirstStageOptions, dice: Dice) -> Tensor:
    """Turn, zoom and shift the points (B, 68, 2) of each face about the middle of their box; NaN stays NaN."""
    count = len(points)
    low, high = points.amin(dim=1, keepdim=True), points.amax(dim=1, keepdim=True)
    centre = (low + high) / 2
    side = (high - low).mean(dim=2, keepdim=True)
    angle = math.radians(options.rotation) * dice.normal(count, 1)
    zoom = torch.exp(options.zoom * dice.normal(count, 1))
    x, y = (points - centre).unbind(dim=2)
    cos, sin = zoom * torch.cos(angle), zoom * torch.sin(angle)
    turned = torch.stack((cos * x - sin * y, sin * x + cos * y), dim=2)
    return centre + turned + options.shift * side * dice.normal(count, 1, 2)
