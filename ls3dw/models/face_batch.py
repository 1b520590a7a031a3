"""Faces with cut windows, ready for the networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.crops import Windows
from ls3dw.core.geometry import Affine
from ls3dw.core.sample import Floats
from ls3dw.models.inference.staging import StagedWindows


@dataclass(frozen=True)
class FaceBatch:
    """N faces ready for the networks.

    windows: in blocks of equal size, perhaps on the device already; boxes: (N, 4); guidance: (N, 68, 2) image pixels,
    or None; a face with a NaN in it is guided by its predicted 2D points.
    """

    windows: tuple[Windows | StagedWindows, ...]
    boxes: NDArray[Any]
    guidance: Floats | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def crop(self) -> Affine:
        """Affines from image pixels to crops: (N, 2, 3)."""
        return np.concatenate([block.crop for block in self.windows])

    def rows(self, start: int, stop: int) -> FaceBatch:
        """Return the faces start to stop."""
        blocks = []
        first = 0
        for block in self.windows:
            begin, end = max(start - first, 0), min(stop - first, len(block))
            if begin < end:
                blocks.append(block.rows(begin, end))
            first += len(block)
        guidance = None if self.guidance is None else self.guidance[start:stop]
        return FaceBatch(tuple(blocks), self.boxes[start:stop], guidance)


def join(parts: Sequence[FaceBatch]) -> FaceBatch:
    """Concatenate parts, at least one; all have guidance or none."""
    guidance = [part.guidance for part in parts if part.guidance is not None]
    return FaceBatch(
        tuple(block for part in parts for block in part.windows),
        np.concatenate([part.boxes for part in parts]),
        np.concatenate(guidance) if guidance else None,
    )
