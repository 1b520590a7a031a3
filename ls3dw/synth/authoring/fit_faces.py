"""Fit the parametric head to labelled 2D points: scaled orthography, shape and expression, whole batches at once.

Gauss-Newton on robustly weighted residuals with Gaussian priors. The fit of the placement needs each face's pose and
shape, and how much of a residual shape may explain.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ls3dw.core.markup import GROUPS, POINTS

JAW = len(GROUPS["jaw"])
NOISE = 0.035
"""Standard deviation of a label's coordinate about the fitted head, in head units: 2 % of a face."""
ROBUST = 2.5 * NOISE
"""Residuals of this length count half (Cauchy)."""
POSE = 6
START_YAWS = (-1.2, -0.6, 0.0, 0.6, 1.2)
BOUND_PRECISION = 1e4
"""Precision of the prior that pulls a coefficient back to a bound."""


@dataclass(frozen=True)
class FaceModel:
    """A linear model, in float64, of P = 51 + 17 L places: points 17 to 67, then L places on each jaw point's line.

    mean, basis: (P, 3) and (C, P, 3)
    directions: (17, 2) outward directions of the lines
    precision, low, high: (C,) prior N(0, 1 / precision) and bounds of the coefficients, which may be infinite
    """

    mean: Tensor
    basis: Tensor
    directions: Tensor
    precision: Tensor
    low: Tensor
    high: Tensor

    def with_components(self, keep: Tensor) -> FaceModel:
        """Return the model with some of the coefficients; keep: (C,) bool."""
        return replace(
            self, basis=self.basis[keep], precision=self.precision[keep], low=self.low[keep], high=self.high[keep]
        )


@dataclass(frozen=True)
class Fits:
    """N fitted faces: rotation (N, 3, 3), scale (N,), shift (N, 2), coefficients (N, C)."""

    rotation: Tensor
    scale: Tensor
    shift: Tensor
    coefficients: Tensor

    def of(self, part: Tensor) -> Fits:
        """Select some of the faces."""
        return Fits(self.rotation[part], self.scale[part], self.shift[part], self.coefficients[part])

    def roll(self) -> Tensor:
        """Return the rotation (N,) of the head's up axis in the picture, counter-clockwise."""
        return torch.atan2(-self.rotation[:, 0, 1], self.rotation[:, 1, 1])

    def unrolled(self, points: Tensor) -> Tensor:
        """Turn points (N, P, 2) in the picture so that the heads stand upright."""
        return torch.einsum("nab,npa->npb", _turn(self.roll()), points)


@dataclass(frozen=True)
class Linearised:
    """The 68 points in the picture, linearised in pose and coefficients.

    residual: (N, 68, 2) label minus fit
    jacobian: (N, 68, 2, 6 + C)
    weight: (N, 68) inverse variance
    chosen: (N, 68) numbers of the points' places
    """

    residual: Tensor
    jacobian: Tensor
    weight: Tensor
    chosen: Tensor


def normalised(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Convert pixels (N, 68, 2) to about head units, y up, 0 where a label is missing; return also pixels a unit (N,).

    The tight box of a mean frontal face has a size of about 1.9 units.
    """
    known = labels.isfinite().all(-1, keepdim=True)
    low = torch.where(known, labels, torch.inf).amin(1)
    high = torch.where(known, labels, -torch.inf).amax(1)
    unit = (high - low).prod(-1).sqrt() / 1.9
    flip = labels.new_tensor([1.0, -1.0])
    placed = (labels - (low + high)[:, None] / 2) / unit[:, None, None] * flip
    return torch.where(known, placed, 0.0), unit


def fit_faces(model: FaceModel, labels: Tensor, certainty: Tensor, start: Fits | None = None, steps: int = 8) -> Fits:
    """Fit N faces. labels: (N, 68, 2) in units, y up; certainty: (N, 68) weights, 0 where missing."""
    if start is None:
        start = _start(model, labels, certainty)
    fits = start
    for _ in range(steps):
        fits = _step(model, fits, labels, certainty)
    return fits


def linearise(model: FaceModel, fits: Fits, labels: Tensor, certainty: Tensor) -> Linearised:
    """Find the points of the fitted heads, their residuals and derivatives."""
    positions = model.mean + torch.einsum("nc,cpx->npx", fits.coefficients, model.basis)
    turned = positions @ fits.rotation.transpose(1, 2)
    chosen = _choose(model, turned, fits.roll())
    picked = torch.gather(turned, 1, chosen[..., None].expand(-1, -1, 3))
    flat = picked[..., :2] * fits.scale[:, None, None]
    residual = labels - flat - fits.shift[:, None]
    weight = certainty / NOISE**2 / (1 + residual.square().sum(-1) / ROBUST**2)
    scaled = fits.rotation[:, :2] * fits.scale[:, None, None]
    moved = torch.einsum("nax,npxc->npac", scaled, model.basis.permute(1, 2, 0)[chosen])
    return Linearised(residual, torch.cat((_pose_jacobian(picked, flat, fits.scale), moved), -1), weight, chosen)


def prior(model: FaceModel, coefficients: Tensor) -> tuple[Tensor, Tensor]:
    """Return precision and centre (N, 6 + C each) of the prior, which pulls coefficients beyond a bound back to it."""
    outside = (coefficients < model.low) | (coefficients > model.high)
    bound = torch.where(coefficients < model.low, model.low, model.high)
    precision = torch.where(outside, BOUND_PRECISION, model.precision.expand_as(coefficients))
    centre = torch.where(outside, bound, 0.0)
    pose = coefficients.new_full((len(coefficients), POSE), 1e-6)
    return torch.cat((pose, precision), 1), torch.cat((torch.zeros_like(pose), centre), 1)


def _turn(angle: Tensor) -> Tensor:
    cosine, sine = angle.cos(), angle.sin()
    return torch.stack((cosine, -sine, sine, cosine), -1).view(-1, 2, 2)


def _choose(model: FaceModel, turned: Tensor, roll: Tensor) -> Tensor:
    """Return the numbers (N, 68) of the points' places: on a jaw line, the one farthest out along `directions`."""
    count, first = len(turned), POINTS - JAW
    lines = turned[:, first:, :2].reshape(count, JAW, -1, 2)
    outward = torch.einsum("nab,jb->nja", _turn(roll), model.directions)
    farthest = torch.einsum("njka,nja->njk", lines, outward).argmax(-1)
    starts = first + torch.arange(JAW, device=turned.device) * lines.shape[2]
    fixed = torch.arange(first, device=turned.device).expand(count, -1)
    return torch.cat((starts + farthest, fixed), 1)


def _pose_jacobian(picked: Tensor, flat: Tensor, scale: Tensor) -> Tensor:
    """Return derivatives (N, 68, 2, 6) by turns about x, y and z, the logarithm of the scale, and the shift."""
    x, y, z = (picked * scale[:, None, None]).unbind(-1)
    none, one = torch.zeros_like(x), torch.ones_like(x)
    across = torch.stack((none, z, -y, flat[..., 0], one, none), -1)
    upward = torch.stack((-z, none, x, flat[..., 1], none, one), -1)
    return torch.stack((across, upward), -2)


def _step(model: FaceModel, fits: Fits, labels: Tensor, certainty: Tensor) -> Fits:
    here = linearise(model, fits, labels, certainty)
    jacobian = here.jacobian.flatten(1, 2)
    weighted = jacobian * here.weight.repeat_interleave(2, 1)[..., None]
    precision, centre = prior(model, fits.coefficients)
    now = torch.cat((torch.zeros_like(precision[:, :POSE]), fits.coefficients), 1)
    normal = weighted.transpose(1, 2) @ jacobian + torch.diag_embed(precision)
    right = torch.einsum("nrc,nr->nc", weighted, here.residual.flatten(1)) + precision * (centre - now)
    step = torch.linalg.solve(normal, right)
    turn = torch.linalg.matrix_exp(_skew(step[:, :3].clamp(-0.5, 0.5)))
    return Fits(
        turn @ fits.rotation,
        fits.scale * step[:, 3].clamp(-0.3, 0.3).exp(),
        fits.shift + step[:, 4:POSE],
        fits.coefficients + step[:, POSE:],
    )


def _skew(vectors: Tensor) -> Tensor:
    x, y, z = vectors.unbind(-1)
    none = torch.zeros_like(x)
    return torch.stack((none, -z, y, z, none, -x, -y, x, none), -1).view(-1, 3, 3)


def _start(model: FaceModel, labels: Tensor, certainty: Tensor) -> Fits:
    """Fit the pose of the mean head from several yaws; keep the best for each face."""
    rigid = model.with_components(torch.zeros_like(model.precision, dtype=torch.bool))
    best, lowest = None, None
    for fits in _starts(rigid, labels, certainty):
        for _ in range(10):
            fits = _step(rigid, fits, labels, certainty)
        squares = linearise(rigid, fits, labels, certainty).residual.square().sum(-1)
        cost = (certainty * torch.log1p(squares / ROBUST**2)).sum(1)
        if best is None or lowest is None:
            best, lowest = fits, cost
            continue
        better = cost < lowest
        lowest = torch.minimum(cost, lowest)
        best = Fits(
            torch.where(better[:, None, None], fits.rotation, best.rotation),
            torch.where(better, fits.scale, best.scale),
            torch.where(better[:, None], fits.shift, best.shift),
            fits.coefficients,
        )
    assert best is not None
    return replace(best, coefficients=labels.new_zeros(len(labels), len(model.precision)))


def _starts(model: FaceModel, labels: Tensor, certainty: Tensor) -> Iterator[Fits]:
    """Yield a rough pose for each yaw: scale, roll and shift of the turned mean points, by least squares."""
    front = torch.cat((model.mean[POINTS - JAW :].view(JAW, -1, 3)[:, 0], model.mean[: POINTS - JAW]))
    share = (certainty / certainty.sum(1, keepdim=True))[..., None]
    middle = (share * labels).sum(1)
    for yaw in START_YAWS:
        cosine, sine = np.cos(yaw), np.sin(yaw)
        rotation = front.new_tensor([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
        flat = (front @ rotation.T)[:, :2]
        centre = (share * flat).sum(1)
        a, b = (flat - centre[:, None]).unbind(-1), (labels - middle[:, None]).unbind(-1)
        weight = share[..., 0]
        along = (weight * (a[0] * b[0] + a[1] * b[1])).sum(1)
        about = (weight * (a[0] * b[1] - a[1] * b[0])).sum(1)
        scale = torch.hypot(along, about) / (weight * (a[0] ** 2 + a[1] ** 2)).sum(1)
        roll = torch.atan2(about, along)
        turned = torch.linalg.matrix_exp(_skew(torch.stack((0 * roll, 0 * roll, roll), -1))) @ rotation
        shift = middle - scale[:, None] * torch.einsum("nax,nx->na", turned[:, :2], (share * front).sum(1))
        yield Fits(turned, scale, shift, labels.new_zeros(len(labels), 0))
