"""Fit a labelling convention: offsets of its 68 points from those of the placement.

The mean head is turned to lie on each labelled face, and mean residuals are taken: once for the new labels, once for
labels like those the placement was fitted to. Brow, eye and lip points move by the difference of the two, so that what
the mean head and people differ in cancels. The jaw is fitted to the new labels alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ls3dw.core.markup import GROUPS, MIRROR, POINTS
from ls3dw.core.sample import Doubles
from ls3dw.errors import ConfigurationError
from ls3dw.synth.head.conventions import JAW, Convention, along, symmetric
from ls3dw.synth.head.landmarks import contour_points, places
from ls3dw.synth.head.mean_head import mean_head, mean_points
from ls3dw.synth.head.model import Head

SHARE: Final = 0.8
"""Part of the difference that is used: the two sets of labels show different people."""

FEWEST: Final = 20
"""A face with fewer of the points 17 to 67 is left out."""

ROBUST: Final = 0.1
"""Residual, in head units, that counts half (Cauchy weight) in the pose fit; 1.5 times that for the offsets."""

YAWS: Final = (0.0, 6.0, 18.0, 30.0, 60.0)
"""Bins of |yaw| in degrees in which the jaw's spacing is found."""

REACH: Final = 1.6
"""How far along the contour a label is looked for, in steps from one of its points to the next."""

_FINE: Final = 40
"""Places a step."""

RIDGE: Final = tuple(GROUPS["nose ridge"])
BASE: Final = tuple(GROUPS["nose base"])

_UP: Final = np.array([1.0, -1.0])


@dataclass(frozen=True)
class Posed:
    """N faces with y up, and the pose of the mean head on each.

    points (N, 68, 2), scale (N,), rotation (N, 2, 3), shift (N, 2).
    """

    points: Doubles
    scale: Doubles
    rotation: Doubles
    shift: Doubles

    @property
    def yaw(self) -> Doubles:
        yaw: Doubles = np.degrees(np.arcsin((-self.rotation[:, 0, 2]).clip(-1, 1)))
        return yaw

    def of(self, rows: NDArray[np.bool_]) -> Posed:
        return Posed(self.points[rows], self.scale[rows], self.rotation[rows], self.shift[rows])

    def residuals(self, shape: Doubles) -> Doubles:
        """Return labels less the turned mean head (N, 68, 2) in head units, NaN where a label is missing."""
        turned = np.einsum("nab,pb->npa", self.rotation, shape)
        rest: Doubles = (self.points - self.shift[:, None]) / self.scale[:, None, None] - turned
        return rest


def fit_convention(
    head: Head,
    labels: ArrayLike,
    reference: ArrayLike,
    *,
    solid: bool,
    fitted_on: Mapping[str, Any] | None = None,
) -> Convention:
    """Fit a convention to labels (N, 68, 2; pixels, y down, NaN where missing).

    reference: labels like those the placement was fitted to
    solid: the labels are projected 3D points; else their jaw follows the visible contour
    """
    mean = mean_points(head).double().numpy()
    own = pose(labels, mean)
    others = pose(reference, mean)
    others = others.of(abs(others.yaw) <= np.percentile(abs(own.yaw), 99))
    offsets, usual = _offsets(own, mean), _offsets(others, mean)
    moved = SHARE * (offsets - usual)
    moved[list(BASE)] = 0.0  # the head's own, and seen
    moved[list(RIDGE)] = SHARE * offsets[list(RIDGE)] if solid else 0.0
    moved[:JAW] = SHARE * offsets[:JAW] if solid else 0.0
    plain = Convention.plain()
    yaws, spacing = (plain.jaw_yaws, plain.jaw_spacing) if solid else _spacing(head, own)
    facts = {"faces": len(own.points), "reference faces": len(others.points), **(fitted_on or {})}
    return Convention(symmetric(moved), yaws, spacing, facts)


def pose(labels: ArrayLike, shape: Doubles, rounds: int = 3) -> Posed:
    """Turn the mean head (68, 3) by scaled orthography so that its points 17 to 67 lie on labels (N, 68, 2; y down)."""
    points = np.asarray(labels, np.float64) * _UP
    if points.ndim != 3 or points.shape[1:] != (POINTS, 2):
        raise ConfigurationError(f"labels of shape {points.shape}: expected (faces, {POINTS}, 2)")
    inner = slice(JAW, POINTS)
    known = np.isfinite(points[:, inner]).all(2)
    points, known = points[known.sum(1) >= FEWEST], known[known.sum(1) >= FEWEST]
    if len(points) < 2:
        raise ConfigurationError(f"{len(points)} faces with {FEWEST} of the points 17 to 67: expected hundreds")
    aims, model = np.where(known[..., None], points[:, inner], 0.0), shape[inner]
    weight = known.astype(np.float64)
    for _ in range(rounds):
        scale, rotation, shift = _rigid(aims, weight, model)
        turned = np.einsum("nab,pb->npa", rotation, model) * scale[:, None, None] + shift[:, None]
        away = np.linalg.norm(aims - turned, axis=2) / scale[:, None]
        weight = known / (1 + (away / ROBUST) ** 2)
    return Posed(points, scale, rotation, shift)


def _rigid(aims: Doubles, weight: Doubles, model: Doubles, steps: int = 10) -> tuple[Doubles, Doubles, Doubles]:
    """Fit scale, rotation and shift of points (P, 3) to places (N, P, 2): an affine camera, then Procrustes' steps."""
    total = weight.sum(1)
    middle = np.einsum("np,pa->na", weight, model) / total[:, None]
    centred = model - middle[:, None]
    shift = np.einsum("np,npa->na", weight, aims) / total[:, None]
    square = np.einsum("np,npa,npb->nab", weight, centred, centred)
    cross = np.einsum("np,npa,npb->nab", weight, aims - shift[:, None], centred)
    affine = cross @ np.linalg.inv(square)
    u, values, v = np.linalg.svd(affine, full_matrices=False)
    rotation, scale = u @ v, values.mean(1)
    for _ in range(steps):
        depth = np.cross(rotation[:, 0], rotation[:, 1])
        lifted = np.einsum("np,na,npa,npb->nb", weight, depth * scale[:, None], centred, centred)
        u, values, v = np.linalg.svd(np.concatenate((cross, lifted[:, None]), axis=1))
        sign = np.ones_like(values)
        sign[:, 2] = np.sign(np.linalg.det(u @ v))
        rotation = ((u * sign[:, None]) @ v)[:, :2]
        scale = (values * sign).sum(1) / np.einsum("naa->n", square)
    return scale, rotation, shift - scale[:, None] * np.einsum("nab,nb->na", rotation, middle)


def _offsets(faces: Posed, shape: Doubles) -> Doubles:
    """Find the offset (68, 3) of each point, and of its partner mirrored, that explains the residuals best."""
    rest = faces.residuals(shape)
    found = np.zeros((POINTS, 3))
    for point in range(POINTS):
        matrix, right = np.eye(3), np.zeros(3)
        for side, sign in ((point, 1.0), (MIRROR[point], -1.0)):
            known = np.isfinite(rest[:, side]).all(1)
            ways, away = faces.rotation[known] * np.array([sign, 1.0, 1.0]), rest[known, side]
            weight = 1 / (1 + np.square(away).sum(1) / (1.5 * ROBUST) ** 2)
            matrix = matrix + np.einsum("nab,n,nac->bc", ways, weight, ways)
            right = right + np.einsum("nab,n,na->b", ways, weight, away)
        found[point] = np.linalg.solve(matrix, right)
    return found


def _spacing(head: Head, faces: Posed) -> tuple[Doubles, Doubles]:
    """Find how far along the mean head's visible contour the mean labels of the jaw lie, by yaw: (K,), (K, 17)."""
    labels, rotation = _upright(faces)
    yaw = np.degrees(np.arcsin((-rotation[:, 0, 2]).clip(-1, 1)))
    contour = _contours(head, rotation)
    yaws: list[float] = []
    rows: list[Doubles] = []
    for low, high in pairwise(YAWS):
        chosen = (yaw >= low) & (yaw < high)
        if chosen.any():
            steps = _places_along(np.nanmean(labels[chosen, :JAW], 0), contour[chosen].mean(0))
            rows.append(SHARE * _smooth(steps if rows else (steps - steps[::-1]) / 2))
            yaws.append(0.0 if len(rows) == 1 else float(yaw[chosen].mean()))
    return np.array(yaws), np.stack(rows)


def _upright(faces: Posed) -> tuple[Doubles, Doubles]:
    """Turn faces upright, in head units, and mirror those with yaw < 0: labels (N, 68, 2) and rotations (N, 2, 3)."""
    rotation, labels = faces.rotation, (faces.points - faces.shift[:, None]) / faces.scale[:, None, None]
    angle = np.arctan2(-rotation[:, 0, 1], rotation[:, 1, 1])
    cos, sin = np.cos(angle), np.sin(angle)
    back = np.stack((np.stack((cos, sin), -1), np.stack((-sin, cos), -1)), 1)
    labels, rotation = np.einsum("nab,npb->npa", back, labels), back @ rotation
    away = rotation[:, 0, 2] > 0
    labels[away] = labels[away][:, list(MIRROR)] * [-1.0, 1.0]
    rotation[away] = np.diag([-1.0, 1.0]) @ rotation[away] @ np.diag([-1.0, 1.0, 1.0])
    return labels, rotation


def _contours(head: Head, rotation: Doubles) -> Doubles:
    """Return the visible jaw (N, 17, 2) of the mean head turned so."""
    lines = places(mean_head(head), head.jaw_vertices, head.jaw_weights)[0]
    turned = torch.einsum("nab,jlb->njla", torch.from_numpy(rotation).to(lines), lines)
    return contour_points(turned, head.jaw_directions, torch.zeros(len(turned))).double().numpy()


def _places_along(labels: Doubles, curve: Doubles) -> Doubles:
    """Return for each label (17, 2) how far the nearest place lies along the curve (17, 2), in steps: (17,)."""
    steps = np.linspace(-REACH, REACH, int(2 * REACH * _FINE) + 1)
    tried = np.arange(JAW)[:, None] + steps
    found = along(torch.from_numpy(curve)[None], torch.from_numpy(tried.reshape(1, -1)))[0].numpy().reshape(JAW, -1, 2)
    nearest: Doubles = steps[np.linalg.norm(found - labels[:, None], axis=2).argmin(1)]
    return nearest


def _smooth(values: Doubles) -> Doubles:
    """Average each value with its neighbours."""
    padded = np.pad(values, 1, mode="edge")
    smooth: Doubles = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    return smooth
