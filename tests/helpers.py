"""What several test modules share and no fixture has to set up."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ls3dw.core.geometry import RAISE, REFERENCE_SCALE, REFERENCE_SIDE
from ls3dw.models.networks.heatmaps import STRIDE

REAL = Path(__file__).parents[2] / "shared" / "real"
"""Real data that is not part of the project; a test that needs it is skipped where it is missing."""


def crop_to_cells(points: Tensor) -> Tensor:
    """Turn crop pixels into heatmap cells, both with centres at integers."""
    return (points + 0.5) / STRIDE - 0.5


def square_box(x: float, y: float, crop_side: float) -> np.ndarray:
    """Return the box (4,) whose crop has its centre at (x, y) and `crop_side` pixels a side."""
    side = crop_side * REFERENCE_SCALE / (2 * REFERENCE_SIDE)
    middle = np.array([x, y + RAISE * side])
    return np.concatenate((middle - side / 2, middle + side / 2))


def pts(points: np.ndarray) -> bytes:
    """Write points (P, 2) as they stand into the bytes of a `.pts` file."""
    rows = "\n".join(f"{x} {y}" for x, y in points)
    return f"version: 1\nn_points: {len(points)}\n{{\n{rows}\n}}\n".encode()


@contextlib.contextmanager
def no_waiting() -> Iterator[None]:
    """Make every wait for a GPU an error."""
    with warnings.catch_warnings():
        # torch says that it may not notice all of them.
        warnings.simplefilter("ignore", UserWarning)
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
