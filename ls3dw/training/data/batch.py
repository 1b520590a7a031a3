"""What the streams give and the networks learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """B faces on the device, in pixels of the 256x256 crop.

    images: (B, 3, 256, 256) float32 in [0, 1]; landmarks_2d: (B, 68, 2) visible contour; landmarks_3d: (B, 68, 3),
    z of any origin, larger is nearer. NaN where unknown.
    """

    images: Tensor
    landmarks_2d: Tensor
    landmarks_3d: Tensor


@dataclass(frozen=True)
class Faces:
    """B faces before augmentation.

    pictures: (B, 3, S, S) uint8, the crop in their middle: pixel (x, y) of the crop is (x + m, y + m) with
    m = (S - 256) / 2. Landmarks as in `Batch`, of this crop.
    """

    pictures: Tensor
    landmarks_2d: Tensor
    landmarks_3d: Tensor


class Stream(Protocol):
    """Gives one lane's share of every step's batch: a function of the step (and of seed and lane) alone, so that a
    run that was killed goes on exactly. Asked in rising order of steps it is quick; any other order is right too."""

    def batch(self, step: int) -> Batch: ...


def concatenate(parts: Sequence[Batch]) -> Batch:
    """Join at least one part."""
    if len(parts) == 1:
        return parts[0]
    names = Batch.__dataclass_fields__
    return Batch(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})
