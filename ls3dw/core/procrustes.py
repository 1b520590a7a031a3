"""Procrustes alignment and principal components of many 2D shapes at once.

A shape of P points is a vector of P complex numbers, x + iy: turning and scaling it is one complex factor, so that a
step of the alignment is two products of a matrix and a vector.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Complexes = NDArray[np.complex64]

TOLERANCE: Final = 1e-6
"""Change of the mean, as a share of its size, at which it stands still."""

STEPS: Final = 100


def align(shapes: NDArray[Any]) -> NDArray[np.float32]:
    """Move, turn and scale shapes (N, P, 2) to fit their mean: generalised Procrustes analysis, no mirroring.

    Every shape gets the size of the first mean, that of the centred shapes as they come: that is also how menpo's
    analysis scales. ValueError where a coordinate is not finite or all points of a shape coincide.
    """
    if shapes.ndim != 3 or shapes.shape[2] != 2 or not len(shapes):
        raise ValueError(f"shapes {shapes.shape}: expected (N, points, 2) with at least one")
    centred = np.ascontiguousarray(shapes, dtype=np.float32)
    centred = centred - centred.mean(axis=1, keepdims=True)
    flat: Complexes = centred.view(np.complex64)[..., 0]
    sizes = np.linalg.norm(flat, axis=1)
    if not (np.isfinite(sizes) & (sizes > 0)).all():
        raise ValueError("shapes: expected finite points that do not all coincide")
    mean = flat.mean(axis=0)
    size = np.linalg.norm(mean)
    flat /= sizes[:, None]
    turned = flat * _turns_to_mean(flat, mean)[:, None]
    return np.asarray(turned * size).view(np.float32).reshape(shapes.shape)


def _turns_to_mean(unit: Complexes, mean: Complexes) -> Complexes:
    """Return the turn (N,) of each shape of size one (N, P) to the mean of all turned shapes; `mean` is the start."""
    mean = mean / np.linalg.norm(mean)
    for _ in range(STEPS):
        match = unit @ mean.conj()
        turns: Complexes = match.conj() / np.maximum(np.abs(match), np.finfo(np.float32).tiny)
        moved = turns @ unit
        moved /= np.linalg.norm(moved)
        change = float(np.linalg.norm(moved - mean))
        mean = moved
        if change < TOLERANCE:
            break
    return turns


def project(aligned: NDArray[np.float32], component: int) -> NDArray[np.float32]:
    """Project aligned shapes (N, P, 2) on one of their principal components, 0 the strongest: (N,) around 0.

    The component's sign is that which makes its largest coordinate positive, so that it is the same every time.
    """
    flat = aligned.reshape(len(aligned), -1)
    if not 0 <= component < flat.shape[1]:
        raise ValueError(f"component {component}: expected 0 to {flat.shape[1] - 1}")
    centred = flat - flat.mean(axis=0)
    _, directions = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    direction = directions[:, -1 - component]
    direction = direction * np.sign(direction[np.abs(direction).argmax()])
    return np.asarray(centred @ direction.astype(np.float32))
