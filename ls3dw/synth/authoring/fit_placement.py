"""Fit where the 68 points lie on the head to faces that people have labelled.

Faces (pose, shape, expression) and placement are fitted in turn. The step of the placement allows for the faces' own
freedom, so that an offset common to all goes to the placement and not into thousands of equally wrong faces. How the
jaw's lines find the far contour is searched on turned faces fitted without it.
Figures: `docs/reports/2026-11-22/placement.md`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ls3dw.core.markup import GROUPS, MIRROR, POINTS
from ls3dw.errors import ConfigurationError
from ls3dw.synth.authoring.fit_faces import (
    JAW,
    POSE,
    FaceModel,
    Fits,
    Linearised,
    fit_faces,
    linearise,
    normalised,
    prior,
)
from ls3dw.synth.authoring.sliding import HALF, LINE_PLACES, HeadShape, Sheet, Sliding
from ls3dw.synth.head.frontal import with_frontal_jaw
from ls3dw.synth.head.nose import with_nose_tip
from ls3dw.synth.head.placement import Placement, load_placement

CHUNK = 250
"""Faces that are linearised at once."""
LARGEST_STEP = 2
"""Most units (0.02 of the head's) by which one step moves a value."""
FEWEST_POINTS = 20
"""A face with fewer visible points is left out."""
TURNED = (8, 58)
"""Degrees of yaw at which the far side of the jaw is looked at: beyond them nobody labels it."""
MOST_TURNED = 800
BENDS = tuple(range(-40, 11, 10))
OUTWARD = tuple(range(165, 271, 5))
FAR = slice(HALF, JAW)
MIRRORED = list(MIRROR)


def fit(
    head: HeadShape,
    labels: ArrayLike,
    *,
    occluded: ArrayLike | None = None,
    start: Placement | None = None,
    rounds: tuple[int, ...] = (6, 5, 4),
    fitted_on: Mapping[str, Any] | None = None,
) -> Placement:
    """Fit the placement to labels (N, 68, 2; pixels, y down, NaN where missing) of N faces in many poses.

    occluded: (N, 68) labels that were guessed behind something; they are left out. start: the placement to begin from;
    the bundled one without it. rounds: steps of the placement between searches for the contour. fitted_on: what the
    labels are, kept with the result. `ConfigurationError` when there are too few faces.
    """
    points, certainty = prepare(labels, occluded)
    start = load_placement() if start is None else start
    sheet = Sheet(head, start)
    sliding, fits = sheet.first(start), None
    for number, steps in enumerate(rounds):
        if number and fits is not None:
            sliding = fit_contour(sheet, sliding, fits, points, certainty)
        for _ in range(steps):
            model = sheet.model(sliding)
            fits = fit_in_parts(model, points, certainty, fits, 3 if fits else 8)
            matrix, right = placement_system(sheet, sliding, model, fits, points, certainty)
            step = torch.linalg.solve(matrix, right).numpy()
            largest = LARGEST_STEP * sliding.units
            sliding = sliding.moved(step.clip(-largest, largest))
    fitted = sheet.placement(sliding, {"faces": len(points), **(fitted_on or {})})
    return with_nose_tip(head, with_frontal_jaw(head, fitted))


def read_labels(path: Path) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Read `landmarks` (N, 68, 2) and, if it is there, `externally_occluded` (N, 68) from an .npz file.

    In place of `landmarks` there may be `published_pt3d_68` (N, 3, 68), as AFLW2000-3D has them, 1-based.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            occluded = file.get("externally_occluded")
            if "published_pt3d_68" in file:
                return np.swapaxes(file["published_pt3d_68"][:, :2], 1, 2) - 1.0, occluded
            return np.asarray(file["landmarks"]), occluded
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, BadZipFile) as error:
        raise ConfigurationError(f"{path}: expected an .npz file with landmarks (N, {POINTS}, 2): {error}") from error


def prepare(labels: ArrayLike, occluded: ArrayLike | None = None) -> tuple[Tensor, Tensor]:
    """Return labels in units (M, 68, 2), y up, and how much each counts (M, 68), of the faces with enough points."""
    try:
        values = torch.from_numpy(np.array(labels, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"labels are no numbers: {error}") from error
    if values.ndim != 3 or values.shape[1:] != (POINTS, 2):
        raise ConfigurationError(f"labels of shape {tuple(values.shape)}: expected (faces, {POINTS}, 2)")
    known = values.isfinite().all(-1)
    if occluded is not None:
        hidden = torch.from_numpy(np.array(occluded, dtype=bool))
        if hidden.shape != known.shape:
            raise ConfigurationError(
                f"externally_occluded of shape {tuple(hidden.shape)}: expected {tuple(known.shape)}, one a point"
            )
        known &= ~hidden
    enough = known.sum(1) >= FEWEST_POINTS
    if enough.sum() < 2:
        raise ConfigurationError(f"{int(enough.sum())} faces with {FEWEST_POINTS} visible points: expected hundreds")
    return normalised(values[enough])[0], known[enough].double()


def fit_in_parts(
    model: FaceModel, labels: Tensor, certainty: Tensor, start: Fits | None = None, steps: int = 8
) -> Fits:
    """Fit faces as `fit_faces` does, some hundred at a time: their Jacobians would fill the memory."""
    parts = [
        fit_faces(model, labels[part], certainty[part], start and start.of(part), steps) for part in _parts(len(labels))
    ]
    return Fits(*(torch.cat([getattr(part, name) for part in parts]) for name in Fits.__dataclass_fields__))


def held_out_error(
    head: HeadShape, placement: Placement, labels: ArrayLike, occluded: ArrayLike | None = None
) -> dict[str, float]:
    """Return how far labels lie from the points of faces fitted to them: the mean distance of each group and of all.

    In % of the face's size. labels, occluded: as in `fit`, of faces that the placement was not fitted to.
    """
    points, certainty = prepare(labels, occluded)
    sheet = Sheet(head, placement)
    model = sheet.model(sheet.first(placement))
    fits = fit_in_parts(model, points, certainty)
    distance = linearise(model, fits, points, certainty).residual.norm(dim=-1) / 1.9 * 100
    groups = {**{name: list(members) for name, members in GROUPS.items()}, "all": list(range(POINTS))}
    return {
        name: round(float((distance * certainty)[:, members].sum() / certainty[:, members].sum()), 3)
        for name, members in groups.items()
    }


def _parts(count: int) -> list[Tensor]:
    return [torch.arange(at, min(at + CHUNK, count)) for at in range(0, count, CHUNK)]


def placement_system(
    sheet: Sheet, sliding: Sliding, model: FaceModel, fits: Fits, labels: Tensor, certainty: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the normal matrix and right side of the step of the sliding, the faces' own freedom taken out."""
    moves = sheet.derivatives(sliding)

    def slides(_: Tensor, here: Linearised, own: Fits) -> Tensor:
        turn = own.rotation[:, :2] * own.scale[:, None, None]
        return torch.einsum("nax,vnpx->npav", turn, moves[:, here.chosen]).flatten(1, 2)

    return eliminated(model, fits, labels, certainty, slides)


def eliminated(
    model: FaceModel,
    fits: Fits,
    labels: Tensor,
    certainty: Tensor,
    moves: Callable[[Tensor, Linearised, Fits], Tensor],
) -> tuple[Tensor, Tensor]:
    """Return the normal matrix (S, S) and right side (S,) of a step of S values that all faces share.

    moves: from a part of the faces (the Jacobian (n, 136, C) of their coefficients, how they were linearised, their
    fits) to how their points move with the values (n, 136, S). The faces' own freedom is taken out by Schur
    complements.
    """
    matrix, right = torch.zeros(()), torch.zeros(())
    for part in _parts(len(labels)):
        own = fits.of(part)
        here = linearise(model, own, labels[part], certainty[part])
        precision, centre = prior(model, own.coefficients)
        now = torch.cat((torch.zeros_like(precision[:, :POSE]), own.coefficients), 1)
        jacobian, weight = here.jacobian.flatten(1, 2), here.weight.repeat_interleave(2, 1)
        slides = moves(jacobian[..., POSE:], here, own)
        weighted = jacobian * weight[..., None]
        normal = weighted.transpose(1, 2) @ jacobian + torch.diag_embed(precision)
        cross = weighted.transpose(1, 2) @ slides
        solved = torch.linalg.solve(normal, cross)
        residual = here.residual.flatten(1)
        face_right = torch.einsum("nrc,nr->nc", weighted, residual) + precision * (centre - now)
        squares = (slides * weight[..., None]).flatten(0, 1).T @ slides.flatten(0, 1)
        matrix = matrix + squares - cross.flatten(0, 1).T @ solved.flatten(0, 1)
        right = right + torch.einsum("nrv,nr,nr->v", slides, weight, residual)
        right = right - torch.einsum("ncv,nc->v", solved, face_right)
    return matrix, right


def fit_contour(sheet: Sheet, sliding: Sliding, fits: Fits, labels: Tensor, certainty: Tensor) -> Sliding:
    """Search how the lines of the jaw bend and which way their points look, so that they follow the far contour.

    The faces are fitted without their far jaw, or their shapes would give way to a wrong rule.
    """
    points, known = _far_to_the_left(fits, labels, certainty)
    if not len(points):
        return sliding
    model, near = sheet.model(sliding), known.clone()
    near[:, FAR] = 0
    fits = fit_in_parts(model, points, near)
    cost = np.stack([_contour_cost(sheet, sliding, bend, fits, points, known) for bend in BENDS])
    best = cost.reshape(-1, HALF - 1).argmin(0)
    bend = np.array(BENDS, np.float64)[best // len(OUTWARD)]
    outward = np.array(OUTWARD, np.float64)[best % len(OUTWARD)]
    return replace(sliding, bend=np.append(_smooth(bend), 0.0), outward=np.append(_smooth(outward), 270.0))


def _far_to_the_left(fits: Fits, labels: Tensor, certainty: Tensor) -> tuple[Tensor, Tensor]:
    """Choose turned faces, and mirror those whose far side is their right."""
    sine = fits.rotation[:, 0, 2].clamp(-1, 1)
    low, high = TURNED
    yaw = sine.asin().rad2deg().abs()
    chosen = torch.nonzero((yaw > low) & (yaw < high))[:, 0]
    chosen = chosen[:: max(1, -(-len(chosen) // MOST_TURNED))]
    labels, certainty, away = labels[chosen], certainty[chosen], sine[chosen] < 0
    mirrored = labels[:, MIRRORED] * labels.new_tensor([-1.0, 1.0])
    return (
        torch.where(away[:, None, None], mirrored, labels),
        torch.where(away[:, None], certainty[:, MIRRORED], certainty),
    )


def _contour_cost(
    sheet: Sheet, sliding: Sliding, bend: float, fits: Fits, labels: Tensor, certainty: Tensor
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the mean distance (directions, 8) of far labels from lines with one bend, for points 0 to 7."""
    model = sheet.model(replace(sliding, bend=np.append(np.full(HALF - 1, float(bend)), 0.0)))
    lines, basis = model.mean[POINTS - JAW :], model.basis[:, POINTS - JAW :]
    turned = (lines + torch.einsum("nc,cpx->npx", fits.coefficients, basis)) @ fits.rotation.transpose(1, 2)
    flat = turned[..., :2] * fits.scale[:, None, None] + fits.shift[:, None]
    flat = fits.unrolled(flat).view(-1, JAW, LINE_PLACES, 2)[:, MIRRORED[: HALF - 1]]
    far = [MIRRORED[point] for point in range(HALF - 1)]
    aims, known = fits.unrolled(labels[:, :JAW])[:, far], certainty[:, far]
    rows = []
    for angle in OUTWARD:
        away = np.radians(540 - angle)
        chosen = (flat @ flat.new_tensor([np.cos(away), np.sin(away)])).argmax(-1)
        picked = torch.gather(flat, 2, chosen[..., None, None].expand(-1, -1, 1, 2))[:, :, 0]
        distance = (aims - picked).norm(dim=-1).clamp(max=0.3)
        rows.append((distance * known).sum(0) / known.sum(0).clamp(min=1))
    return torch.stack(rows).numpy()


def _smooth(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Average each value with its neighbours: the optimum is flat, and neighbouring lines should not cross."""
    padded = np.pad(values, 1, mode="edge")
    smooth: np.ndarray[Any, np.dtype[np.float64]] = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    return smooth
