"""Batches of faces, before and after augmentation, and their slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """B augmented faces on the device, in pixels of the 256x256 crop."""

    images: Tensor
    """(B, 3, 256, 256) float32 in [0, 1]."""

    landmarks_2d: Tensor
    """(B, 68, 2), visible contour; NaN where unknown."""

    landmarks_3d: Tensor
    """(B, 68, 3), z of any origin, larger is nearer; NaN where unknown."""


@dataclass(frozen=True)
class RawBatch:
    """B faces before augmentation. The crop is in the middle of its picture: pixel (x, y) of the crop is (x + m, y + m)
    of the picture, with m = (S - 256) / 2."""

    pictures: Tensor
    """(B, 3, S, S) uint8."""

    landmarks_2d: Tensor
    """(B, 68, 2) crop pixels, as in `Batch`."""

    landmarks_3d: Tensor
    """(B, 68, 3) crop pixels, as in `Batch`."""


@dataclass(frozen=True)
class StreamSlice:
    """The part of a stream that one slice of the batch takes: `count` faces a step.

    A batch is cut into `slices`, each with its own random numbers, so that the faces of a step do not depend on how
    many processes share the slices. index: of this slice; seed: of the stream.
    """

    seed: int
    index: int
    slices: int
    count: int


class Stream(Protocol):
    """Gives a slice's faces of each step, as a function of seed, slice and step only, so that a killed run resumes
    exactly. Rising steps are quick; any other order gives the same faces."""

    def batch(self, step: int) -> Batch: ...


@dataclass(frozen=True)
class BatchSlice:
    """A slice of the batch: a fixed number of faces of each stream."""

    index: int
    streams: Sequence[Stream]


def concatenate(parts: Sequence[Batch]) -> Batch:
    """Join one or more batches."""
    if len(parts) == 1:
        return parts[0]
    names = Batch.__dataclass_fields__
    return Batch(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})
